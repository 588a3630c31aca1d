"""Gives the tests here a stand-in for a GPU, and a model that reads on the CPU by the same operations."""

import pytest

from cuda_stand_in import CudaStandIn


@pytest.fixture
def gpu():
    with CudaStandIn() as stand_in:
        yield stand_in
