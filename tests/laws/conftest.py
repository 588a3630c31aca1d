"""Lets the laws import the checks, models and flaws beside them, in any import mode of pytest."""

import sys
from pathlib import Path

import pytest

import blt.decoder.library
from blt.ops import only_references

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["kernels", "pytorch"], scope="module")
def backend(request):
    """Run a law by the compiled kernels, and by PyTorch alone."""
    if request.param == "kernels" and blt.decoder.library.library() is None:
        pytest.skip("no compiler here")
    if request.param == "kernels":
        yield request.param
        return
    with only_references(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(blt.decoder.library, "load", lambda *source, **options: None)
        yield request.param
