import os
import random
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the real hub, whatever the network of this machine allows

from blt.api import ByteLM
from blt.distributed import choose_device
from blt.errors import ConfigurationError

sys.path.insert(0, str(Path(__file__).parent))  # for what several folders of tests share

from tiny_config import TINY_CONFIG

torch.set_num_threads(1)  # tiny models gain nothing from more, and two cores may be shared


_SEEN: set[tuple[object, ...]] = set()


def pytest_runtest_setup(item):
    """Check shapes in the first case of each test, and of each way to compute.

    The checks take four times as long as what they check, and a test's cases differ in their values. A test by
    Hypothesis is a hundred cases: none of them is checked.
    """
    cases = item.callspec.params if hasattr(item, "callspec") else {}
    case = item.path, getattr(item, "originalname", item.name), cases.get("backend")
    is_unchecked = case in _SEEN or "without_shape_checks" in item.fixturenames
    is_unchecked |= getattr(item.obj, "is_hypothesis_test", False)
    jaxtyping.config.update("jaxtyping_disable", is_unchecked)
    _SEEN.add(case)


def pytest_configure(config):
    """Refuse a BLT_DEVICE that this machine does not have, before any test."""
    if name := os.environ.get("BLT_DEVICE"):
        try:
            os.environ["BLT_DEVICE"] = str(choose_device(name))
        except ConfigurationError as error:
            reason = str(error).removeprefix("device: ").partition(";")[0]
            raise pytest.UsageError(f"BLT_DEVICE: {reason}; unset it to run on a stand-in for a GPU") from None


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def without_shape_checks():
    """Asked for, no shapes are checked (`pytest_runtest_setup`): for very many small steps that other tests check."""


@pytest.fixture
def tiny_lm():
    """A model with new weights whose patches have very different lengths."""
    torch.manual_seed(1)
    return ByteLM.new(TINY_CONFIG).eval()


@pytest.fixture
def tiny_folder(tiny_lm, tmp_path):
    """The folder of `tiny_lm`."""
    tiny_lm.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"
