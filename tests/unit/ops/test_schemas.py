"""Every native kernel is a PyTorch operator that its schema, fake implementation and backward describe rightly."""

import ast
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import blt
import blt.ops.registry
from blt.nn import CausalPattern
from blt.nn.transformer import RMSNorm
from blt.ops import OPERATORS, only_references, swiglu
from blt.ops.native import operators
from blt.ops.native.build import load
from blt.ops.precision import has_tiles

needs_compiler = pytest.mark.skipif(load("training") is None, reason="no compiler here")
SOURCE = Path(blt.__file__).parent
BYTES, SLOTS = (2, 6, 2, 32), (2, 3, 2, 2, 32)


def randn(*shape, grad=True):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_(grad)


def plain(*shape):
    return randn(*shape, grad=False)


def slots():
    return torch.tensor([[3, 0, 0, 1, 3, 2], [0, 0, 0, 0, 0, 3]])


def first():
    return torch.tensor([[0, 0, 1, 1, 4, 5]] * 2)


CALLS = {
    "rms_norm": lambda: (randn(4, 32), randn(32), 1e-5, torch.bfloat16),
    "rms_norm_backward": lambda: (plain(4, 32), plain(4, 32), plain(32), plain(4)),
    "swiglu": lambda: (randn(4, 32), randn(4, 32)),
    "swiglu_backward": lambda: (plain(4, 32), plain(4, 32), plain(4, 32)),
    "residual_add": lambda: (randn(4, 32), randn(4, 32), plain(4)),
    "residual_add_backward": lambda: (plain(4, 32), plain(4), torch.bfloat16),
    "rotate": lambda: (randn(*BYTES), plain(2, 6, 1, 16), plain(1, 6, 1, 16), 1.0),
    "attend_to_runs": lambda: (randn(*BYTES), randn(*BYTES), randn(*BYTES), first()),
    "attend_to_runs_backward": lambda: (*(plain(*BYTES) for _ in range(5)), plain(2, 2, 6), first()),
    "attend_within_slots": lambda: (randn(*SLOTS), randn(*BYTES), randn(*BYTES), slots()),
    "attend_within_slots_backward": lambda: (plain(*SLOTS), plain(*SLOTS), plain(*BYTES), plain(*BYTES), slots()),
    "attend_to_slots": lambda: (randn(*BYTES), randn(*SLOTS), randn(*SLOTS), slots()),
    "attend_to_slots_backward": lambda: (plain(*BYTES), plain(*BYTES), plain(*SLOTS), plain(*SLOTS), slots()),
    "segment_max": lambda: (randn(2, 6, 32), slots(), 3),
    "segment_max_backward": lambda: (plain(2, 3, 32), slots()[:, :3, None].expand(-1, -1, 32).clamp_max(5), 6),
    "embedding_bag": lambda: (torch.tensor([[0, 1], [3, 3]]), randn(5, 32)),
    "embedding_bag_backward": lambda: (plain(2, 32), torch.tensor([[0, 1], [3, 3]]), 5),
    "linear_bfloat16": lambda: (
        randn(4, 32).detach().bfloat16().requires_grad_(),
        randn(64, 32),
        plain(64, 32).bfloat16(),
    ),
    "weight_gradient": lambda: (plain(4, 64).bfloat16(), plain(4, 32).bfloat16()),
    "muon_step": lambda: (plain(64, 32), plain(64, 32), plain(64, 32), 0.9, 0.1, 1.0, torch.ones(5, 3)),
}
BY_TILES = {"linear_bfloat16", "weight_gradient", "muon_step"}


def test_every_operator_is_tried():
    assert {f"blt::{name}" for name in CALLS} == operators._LIBRARY._op_defs


@needs_compiler
@pytest.mark.parametrize("name", CALLS)
def test_an_operator_is_what_it_declares(name):
    if name in BY_TILES and not has_tiles():
        pytest.skip("no AMX here")
    torch.library.opcheck(getattr(torch.ops.blt, name).default, CALLS[name]())


@needs_compiler
def test_a_profiler_sees_them_by_name():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        RMSNorm(32, epsilon=1e-5)(torch.randn(3, 32)).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"blt::rms_norm", "blt::rms_norm_backward"} <= names


@needs_compiler
def test_fake_tensors_pass_through():
    with FakeTensorMode():
        heads = [torch.empty(BYTES, requires_grad=True) for _ in range(3)]
        out = CausalPattern(torch.zeros(2, 6, dtype=torch.long))(*heads)
        assert out.shape == BYTES
        assert isinstance(out, FakeTensor)
        out.sum().backward()
    assert heads[0].grad.shape == BYTES


@needs_compiler
def test_references_can_be_asked_for():
    states = torch.zeros(3, 32)
    assert swiglu.is_native(states, states)
    with only_references():
        assert not swiglu.is_native(states, states)
        with only_references():
            pass
        assert not swiglu.is_native(states, states)
    assert swiglu.is_native(states, states)


def test_on_other_devices_the_reference_computes():
    states = torch.zeros(3, 32, device="meta")
    assert not swiglu.is_native(states, states)
    assert swiglu(states, states).shape == (3, 32)
    assert all(found.reference is not found.native for found in OPERATORS.values())


# What tells whether a kernel, a processor or a device can do something.
PREDICATES = {
    "fits_tiles",
    "has_fast_bfloat16",
    "has_tiles",
    "is_available",
    "is_autocast_enabled",
    "get_autocast_dtype",
    "is_cpu",
    "is_native",
    "may_be_native",
    "serves",
    "tiles_allowed",
}


def is_device_type(node):
    """Whether this is the type of something that is called a device."""
    if not (isinstance(node, ast.Attribute) and node.attr == "type"):
        return False
    name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    return "device" in name


def hardware_asked(code):
    """Call sites of the predicates, and comparisons of a device's type."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in PREDICATES:
                found.append((node.lineno, name))
        elif isinstance(node, ast.Compare) and any(map(is_device_type, [node.left, *node.comparators])):
            found.append((node.lineno, "device.type"))
    return found


ABOUT_MACHINES = {
    "cli/bench.py",
    "cli/doctor.py",
    "distributed/world.py",
    "generation/speed.py",
    "interop/lm_eval.py",
} | {"model/memory.py"}
"""Files whose subject is the machine: they measure it, describe it, or choose a device for the user."""


def test_nothing_above_ops_asks_about_hardware():
    found = {}
    for file in SOURCE.rglob("*.py"):
        name = file.relative_to(SOURCE).as_posix()
        if not name.startswith(("ops/", "decoder/")):  # the decoder is a program of its own, for processors
            found[name] = hardware_asked(file.read_text())
    asking = {name for name, sites in found.items() if sites}
    assert asking <= ABOUT_MACHINES
    assert len(found) > 100


@pytest.mark.parametrize(
    "line",
    [
        "if serves(states): pass",
        "x = ops.norm.serves(states)",
        "if states.device.type == 'cpu': pass",
        "y = 1 if 'cuda' != device.type else 2",
        "return_ = torch.is_autocast_enabled('cpu')",
    ],
)
def test_a_question_about_hardware_is_found(line):
    assert len(hardware_asked(line)) == 1
