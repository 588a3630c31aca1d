"""Lets the laws import the checks, models and flaws beside them, in any import mode of pytest."""

import sys
from pathlib import Path

import pytest

import blt.decoder.library
import blt.nn.native.build
import blt.nn.native.fused
import blt.nn.native.kernels

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["kernels", "pytorch"], scope="module")
def backend(request):
    """Run a law by the compiled kernels, and by PyTorch alone."""
    if request.param == "kernels" and blt.nn.native.build.load("kernels") is None:
        pytest.skip("no compiler here")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "pytorch":
            for module in (blt.nn.native.kernels, blt.nn.native.fused):
                patch.setattr(module, "load", lambda source: None)
            patch.setattr(blt.decoder.library, "load", lambda *source, **options: None)
        yield request.param
