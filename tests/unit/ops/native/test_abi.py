"""The interface between Python and C++: declared as it is written, and checked at the door."""

import re

import jaxtyping
import pytest
import torch

from blt.nn.transformer import Layer, RMSNorm, TransformerConfig
from blt.ops import (
    attend_to_slots,
    attend_within_slots,
    embedding_bag,
    rotary_table,
    segment_max,
)
from blt.ops.linear import fits_tiles
from blt.ops.native import abi, build, operators

pytestmark = pytest.mark.skipif(build.load("training") is None, reason="no compiler here")


@pytest.fixture(autouse=True)
def _as_outside_the_tests():
    """Here annotations are executed, which would refuse much of this before the doors do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def declarations():
    """Each function of the interface, with the types of its parameters."""
    code = re.sub(r"//.*", "", (build.FOLDER / "training.cpp").read_text())
    code = code[code.rindex('extern "C" {') :]
    found = {}
    for result, function, parameters in re.findall(r"^(\w+) (\w+)\(([^)]*)\) \{", code, re.M):
        types = []
        for parameter in filter(None, parameters.split(",")):
            words = re.sub(r"\[\[maybe_unused\]\]|\bconst\b", "", parameter)
            kind, pointer = re.fullmatch(r"\s*(\w+)\s*(\*?)\s*\w+\s*", words).groups()
            types.append(kind + pointer)
        found[function] = (result, types)
    return found


def test_every_function_is_declared_as_it_is_written():
    written = declarations()
    assert len(written) >= 3
    assert {function: types for function, (_, types) in written.items()} == {
        function: abi.split(declared) for function, declared in abi.TRAINING.items()
    }
    assert {result for result, _ in written.values()} == {"int32_t"}
    library = abi.declare(build.load("training"))
    for function, declared in abi.TRAINING.items():
        assert len(getattr(library, function).argtypes) == len(abi.split(declared))


@pytest.mark.parametrize("epsilon", [0, 1, 0.0])
def test_a_norm_takes_whole_numbers_for_epsilon(epsilon):
    states = torch.randn(3, 64)
    expected = torch.nn.functional.rms_norm(states, (64,), eps=float(epsilon))
    torch.testing.assert_close(RMSNorm(64, epsilon=epsilon)(states), expected)
    layer = Layer(TransformerConfig(dim=64, num_layers=1, num_heads=2, norm_epsilon=epsilon))
    torch.testing.assert_close(layer.attention_norm(states), expected)


HEADS = (2, 6, 2, 32)  # B T H E
RIGHT = torch.tensor([[3, 0, 0, 1, 3, 2], [0, 0, 0, 0, 0, 3]])
WRONG = {
    "negative": [[-1, 0, 0, 1, 3, 2], [0, 0, 0, 0, 0, 3]],
    "beyond none": [[4, 0, 0, 1, 3, 2], [0, 0, 0, 0, 0, 3]],
    "a slot in two runs": [[3, 0, 1, 0, 3, 2], [0, 0, 0, 0, 0, 3]],
    "huge": [[3, 0, 0, 1, 3, 2], [0, 0, 0, 0, 0, 1 << 62]],
}
OF_SLOTS = (2, 3, 2, 2, 32)  # B P K H E
BY_SLOTS = {
    "bytes read slots": lambda slots: attend_to_slots(
        torch.randn(HEADS), torch.randn(OF_SLOTS), torch.randn(OF_SLOTS), slots
    ),
    "slots read bytes": lambda slots: attend_within_slots(
        torch.randn(OF_SLOTS), torch.randn(HEADS), torch.randn(HEADS), slots
    ),
    "maximum": lambda slots: segment_max(torch.randn(2, 6, 32), slots, num_slots=3),
}


@pytest.mark.parametrize("function", BY_SLOTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_slots_that_break_their_contract_are_refused(function, wrong):
    BY_SLOTS[function](RIGHT)
    with pytest.raises(ValueError, match="indices out of bounds, or out of order"):
        BY_SLOTS[function](torch.tensor(WRONG[wrong]))


@pytest.mark.parametrize("function", BY_SLOTS)
def test_slots_of_another_type_or_shape_are_refused(function):
    with pytest.raises(ValueError, match=r"torch\.int32; the kernel reads torch\.int64"):
        BY_SLOTS[function](RIGHT.int())
    with pytest.raises(ValueError, match="expected equal shapes"):
        BY_SLOTS[function](RIGHT[:, :5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([[0, 0, 1, 1, 0, 0]] * 2, "out of order"),
        ([[0, 0, 3, 3, 3, 3]] * 2, "out of order"),
        ([[-1, 0, 0, 0, 0, 0]] * 2, "out of bounds"),
        ([[0, 0, 0, 0, 0]] * 2, "expected equal shapes"),
    ],
)
def test_runs_that_break_their_contract_are_refused(dtype, first, message):
    heads = [torch.randn(HEADS).to(dtype) for _ in range(3)]
    torch.ops.blt.attend_to_runs(*heads, torch.tensor([[0, 0, 1, 1, 4, 5]] * 2))
    with pytest.raises(ValueError, match=message):
        torch.ops.blt.attend_to_runs(*heads, torch.tensor(first))


def test_rows_of_a_table_are_checked_in_the_backward_pass_too():
    indices, table = torch.tensor([[0, 1]]), torch.randn(4, 32, requires_grad=True)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        embedding_bag(torch.tensor([[0, 4]]), table)
    given = torch.ones(1, 32)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="indices"):
            operators.call("scatter_rows", given, torch.tensor([[0, wrong]]), 1, 2, 4, 32, torch.zeros(4, 32))
    torch.ops.blt.embedding_bag(indices, table).sum().backward()
    assert torch.equal(table.grad, torch.tensor([1.0, 1, 0, 0])[:, None].expand(4, 32))


def test_shapes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="expected equal shapes"):
        torch.ops.blt.swiglu(torch.randn(3, 32), torch.randn(2, 32))
    with pytest.raises(ValueError, match="expected equal shapes"):
        torch.ops.blt.residual_add(torch.randn(3, 32), torch.randn(2, 32), None)
    with pytest.raises(ValueError, match="expected equal shapes"):
        torch.ops.blt.residual_add(torch.randn(3, 32), torch.randn(3, 32), torch.ones(2))
    with pytest.raises(ValueError, match=r"torch\.float64"):
        torch.ops.blt.residual_add(torch.randn(3, 32), torch.randn(3, 32), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected equal shapes"):
        torch.ops.blt.attend_to_runs(torch.randn(HEADS), torch.randn(HEADS), torch.randn(2, 5, 2, 32), RIGHT)


def test_angles_that_all_rows_share_are_taken_as_pytorch_takes_them():
    states, positions = torch.randn(HEADS), torch.arange(6)[None]
    table = rotary_table(positions, head_dim=32, theta=10000.0)
    cos, sin = table
    first, second = states.chunk(2, dim=-1)
    expected = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    torch.testing.assert_close(torch.ops.blt.rotate(states, cos, sin, 1.0), expected)


def test_what_cannot_be_computed_is_an_error_and_not_nothing(monkeypatch):
    operators.call("use_tiles", 0)
    try:
        states = torch.zeros(4, 32, dtype=torch.bfloat16)
        with pytest.raises(RuntimeError, match="not supported on this processor"):
            operators.call("weight_gradient", states, states, 4, 32, 32, torch.empty(32, 32))
        square = torch.zeros(32, 32)
        with pytest.raises(RuntimeError, match="not supported"):
            torch.ops.blt.muon_step(square, square.clone(), square.clone(), 0.0, 1.0, 1.0, torch.zeros(5, 3))
    finally:
        operators.call("use_tiles", 1)


def test_matrices_without_numbers_are_left_to_pytorch():
    assert not fits_tiles(torch.zeros(0, 32))
    assert not fits_tiles(torch.zeros(32, 0))


def test_memory_that_there_is_not_is_an_error_and_no_crash():
    functions, huge = abi.declare(build.load("training")), 1 << 55
    one = torch.zeros(1, 1, dtype=torch.int64)
    at = one.data_ptr()
    assert functions.blt_norm_backward(0, 0, at, at, at, at, huge, 16, at, at) == 1
    for kind in (0, 1):
        assert functions.blt_attend_forward(kind, at, at, at, at, 1, 1, 1, huge, at, at) == 1
        assert functions.blt_attend_backward(kind, at, at, at, at, at, at, at, 1, 1, 1, huge, at, at, at) == 1
        assert functions.blt_read_forward(kind, at, at, at, at, 1, 1, 1, huge, 1, huge, at) == 1
        assert functions.blt_pool_forward(kind, at, at, at, at, 1, 1, 1, 1, 1, huge, at) == 1
        assert functions.blt_read_backward(kind, at, at, at, at, at, 1, 1, 1, huge, 1, 16, at, at, at) == 1
        assert functions.blt_pool_backward(kind, at, at, at, at, at, 1, 1, 1, 1, 1, huge, at, at, at) == 1
    with pytest.raises(MemoryError, match="no memory to work in"):
        abi.check_status(1, "a function")
