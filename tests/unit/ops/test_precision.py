"""Which processors are held to be fast in bfloat16."""

import pytest
import torch

import blt.ops.precision
from blt.ops.precision import has_fast_bfloat16


@pytest.mark.parametrize(
    ("units", "is_intel", "is_fast"),
    [
        (set(), True, False),
        ({"avx512_bf16"}, True, False),  # half the rate of float32: measured 2.0 times as slow
        ({"avx512_bf16"}, False, True),
        ({"avx512_bf16", "amx_tile"}, True, True),
    ],
)
def test_a_cpu_is_fast_in_bfloat16_by_amx_or_by_dot_products_of_the_full_rate(units, is_intel, is_fast, monkeypatch):
    monkeypatch.setattr(blt.ops.precision, "_has", units.__contains__)
    monkeypatch.setattr(blt.ops.precision, "_is_intel", lambda: is_intel)
    assert has_fast_bfloat16(torch.device("cpu")) is is_fast


def test_a_unit_that_pytorch_knows_nothing_of_is_not_there():
    assert not blt.ops.precision._has("unit of another world")


def test_devices_of_other_kinds_are_not():
    assert not has_fast_bfloat16(torch.device("meta"))
