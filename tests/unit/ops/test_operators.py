"""The native kernels give what the references give, and the same gradients."""

import os
import shutil
import subprocess

import pytest
import torch
from torch.nn import functional as F

from blt.nn import CausalPattern, WindowPattern
from blt.nn.transformer import RMSNorm
from blt.ops import (
    attend_to_slots,
    attend_within_slots,
    embedding_bag,
    only_references,
    rotary_table,
    rotate,
    run_positions,
    segment_max,
    swiglu,
)
from blt.ops.native.build import load

pytestmark = pytest.mark.skipif(load("training") is None, reason="no compiler here")
ROWS, LENGTH, HEADS, WIDTH, SLOTS, VECTORS = 3, 75, 2, 32, 9, 3


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).requires_grad_()


def segments():
    """Runs of several lengths, another division in every row."""
    starts = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.1
    return starts.long().cumsum(1)


def slots():
    """Slots that rise along a row; some positions have none, and so have some slots."""
    numbers = segments()
    return torch.where(numbers == 2, SLOTS, numbers.clamp_max(SLOTS))


def heads(dtype):
    return tuple(randn(ROWS, LENGTH, HEADS, WIDTH, dtype=dtype) for _ in range(3))


def distinct(dtype):
    """Values of which no two along a row are equal, since PyTorch divides a maximum's gradient among equals."""
    order = torch.rand(ROWS, LENGTH, HEADS, WIDTH, generator=torch.Generator().manual_seed(3)).argsort(1)
    return order.to(dtype)  # at most 256, which bfloat16 has exactly


def of_slots(dtype):
    return randn(ROWS, SLOTS, VECTORS, HEADS, WIDTH, dtype=dtype)


def window(q, k, v):
    return WindowPattern(segments(), window=16)(q, k, v)


def long_window(q, k, v):
    return WindowPattern(segments(), window=500)(q, k, v)


def one_run(q, k, v):
    return WindowPattern(torch.zeros(ROWS, LENGTH, dtype=torch.long), window=70)(q, k, v)


def causal(q, k, v):
    return CausalPattern(segments())(q, k, v)


def turned(states):
    return rotate(states, rotary_table(run_positions(segments()), head_dim=WIDTH, theta=100.0))


def norm(states):
    return RMSNorm(WIDTH, epsilon=1e-3)(states)


def within(q, k, v):
    return attend_within_slots(q, k, v, slots())


def to(q, k, v):
    return attend_to_slots(q, k, v, slots())


def bag(table):
    indices = torch.randint(len(table), (40, 5), generator=torch.Generator().manual_seed(0))
    return embedding_bag(indices, table)


CASES = {
    "window": (window, heads),
    "window longer than the row": (long_window, heads),
    "window over one run": (one_run, heads),
    "causal": (causal, heads),
    "rotation": (turned, lambda dtype: (heads(dtype)[0],)),
    "norm": (norm, lambda dtype: (heads(dtype)[0],)),
    "swiglu": (swiglu, lambda dtype: heads(dtype)[:2]),
    "within slots": (within, lambda dtype: (of_slots(dtype), *heads(dtype)[:2])),
    "to slots": (to, lambda dtype: (heads(dtype)[0], of_slots(dtype), 2 * of_slots(dtype))),
    "largest": (lambda states: segment_max(states, slots(), num_slots=SLOTS), lambda dtype: (distinct(dtype),)),
}


def with_gradients(function, inputs):
    inputs = [part.detach().clone().requires_grad_() for part in inputs]
    out = function(*inputs)
    above = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, above)]


@pytest.fixture(params=[True, False], ids=["tiles", "no tiles"])
def _tiles(request):
    """Multiply bfloat16 as processors with AMX do, where this is one, and as those without it."""
    load("training").blt_use_tiles(int(request.param))
    yield
    load("training").blt_use_tiles(1)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("width", [16, 32, 64, 96])
@pytest.mark.parametrize("pattern", [WindowPattern, CausalPattern])
def test_attention_in_bfloat16_is_that_of_pytorch_in_float32(pattern, width):
    length = 301
    starts = torch.rand(2, length, generator=torch.Generator().manual_seed(2)) < 0.01
    runs = starts.long().cumsum(1)
    attend = pattern(runs, window=70) if pattern is WindowPattern else pattern(runs)
    torch.manual_seed(0)
    inputs = [torch.randn(2, length, 3, width).bfloat16() for _ in range(3)]
    found = with_gradients(attend, inputs)
    with only_references():
        wanted = with_gradients(attend, [part.detach().float() for part in inputs])
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()


def test_bfloat16_is_multiplied_by_what_compiler_and_processor_have():
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    asked = subprocess.run([compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
    products = load("training").blt_bfloat16_products()
    if b"__AVX512BF16__" not in asked.stdout:
        assert products == 0
    else:
        assert products >= 1
        assert products == 1 or b"__AMX_BF16__" in asked.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_pytorch(name, dtype):
    function, make = CASES[name]
    inputs = make(dtype)
    found = with_gradients(function, inputs)
    with only_references():
        wanted = with_gradients(function, [part.detach().float() for part in inputs])
    tolerance = {"rtol": 1e-4, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 4e-2}
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.float(), theirs, **tolerance)


def test_a_table_has_the_gradient_of_pytorch():
    table = [randn(50, 32)]
    found = with_gradients(bag, table)
    with only_references():
        wanted = with_gradients(bag, table)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_weight_of_a_norm_has_the_gradient_of_pytorch():
    def gradient():
        layer, states = RMSNorm(WIDTH, epsilon=1e-3), randn(700, WIDTH).detach()
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, WIDTH))
        layer(states).square().sum().backward()
        return layer.weight.grad

    found = gradient()
    with only_references():
        wanted = gradient()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_a_norm_gives_the_type_of_products_under_autocast():
    layer, states = RMSNorm(WIDTH, epsilon=1e-5), randn(5, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16
    assert layer(states).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_do_not_depend_on_the_number_of_threads(dtype):
    layer, inputs = RMSNorm(WIDTH, epsilon=1e-5), heads(dtype)

    def gradients():
        layer.zero_grad()
        found = with_gradients(lambda q, k, v: window(layer(q).to(dtype), k, v), inputs)
        return [*found, *torch.autograd.grad(layer(inputs[0]).square().sum(), [layer.weight])]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gradients()
        torch.set_num_threads(3)
        together = gradients()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_other_types_and_widths_are_left_to_pytorch():
    states = torch.zeros(3, 32)
    assert swiglu.is_native(states, states)
    assert not swiglu.is_native(states.double(), states.double())
    assert not swiglu.is_native(states[:, :24], states[:, :24])
    assert not swiglu.is_native(states, states.bfloat16())
    states = torch.randn(3, 24, dtype=torch.float64)
    assert torch.equal(swiglu(states, states), F.silu(states) * states)


def test_norms_and_tables_of_bfloat16_weights_are_left_to_pytorch():
    layer = RMSNorm(WIDTH, epsilon=1e-5).bfloat16()
    states = randn(5, WIDTH, dtype=torch.bfloat16)
    assert layer(states).dtype == torch.bfloat16
    torch.testing.assert_close(layer(states), F.rms_norm(states, (WIDTH,), eps=1e-5))
    table = randn(50, WIDTH, dtype=torch.bfloat16)
    bag(table).sum().backward()
    assert table.grad.dtype == torch.bfloat16
