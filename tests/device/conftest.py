"""Says where the tests here compute: on the device that BLT_DEVICE names, else on a stand-in for a GPU.

BLT_DEVICE=cuda python -m pytest -m gpu
"""

import os
import sys
from pathlib import Path

import pytest
import torch

import blt.decoder.library
from blt.api import ByteLM
from blt.ops import only_references
from cuda_stand_in import CudaStandIn
from tiny_config import TINY_CONFIG

sys.path.insert(0, str(Path(__file__).parents[1] / "laws"))  # for the laws, which are tried there too


@pytest.fixture(autouse=True, scope="module")
def _without_shape_checks(without_shape_checks):
    """Shapes are the same on every device."""


@pytest.fixture
def stand_in():
    """A stand-in for a GPU, which computes as the CPU does and counts waits; None where BLT_DEVICE names a device."""
    if os.environ.get("BLT_DEVICE"):
        yield None
        return
    with CudaStandIn() as found:
        yield found


@pytest.fixture
def device(stand_in):
    """Where the tests compute."""
    return torch.device(os.environ["BLT_DEVICE"] if stand_in is None else "cuda")


@pytest.fixture
def gpu(stand_in):
    """The stand-in, for what it alone can show."""
    if stand_in is None:
        pytest.skip("the stand-in alone counts waits and refuses what is left on the host; unset BLT_DEVICE")
    return stand_in


@pytest.fixture
def lm():
    """A model on the CPU, where PyTorch alone computes."""
    torch.manual_seed(1)
    with only_references(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(blt.decoder.library, "load", lambda *source, **options: None)
        yield ByteLM.new(TINY_CONFIG).eval()
