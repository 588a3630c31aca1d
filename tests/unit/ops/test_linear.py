"""Linear maps and steps of Muon, by AMX tiles and by their references; tiles do not round the gradients of weights."""

from contextlib import nullcontext

import pytest
import torch

from blt.nn import Linear
from blt.ops import only_references, orthogonalise
from blt.ops.linear import fits_tiles
from blt.ops.native.build import load
from blt.training.muon import Muon

library = load("training")
needs_tiles = pytest.mark.skipif(library is None or library.blt_bfloat16_products() != 2, reason="no AMX here")


@pytest.fixture(params=[pytest.param("tiles", marks=needs_tiles), "reference"])
def way(request):
    """How products are computed."""
    with only_references() if request.param == "reference" else nullcontext():
        yield request.param


def with_gradients(layer, states, above):
    states = states.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(states)
    out.backward(above)
    return out, states.grad, layer.weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lead", [(0,), (1,), (31,), (5, 67), (2, 1100), (4133,)])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 32), (64, 1056), (1056, 96)])
def test_a_linear_map_and_its_gradients_are_those_of_exact_products(inputs, outputs, lead, dtype, way):
    torch.manual_seed(0)
    layer, states = Linear(inputs, outputs), torch.randn(*lead, inputs).to(dtype)
    assert way == "reference" or fits_tiles(layer.weight)
    above = torch.randn(*lead, outputs).bfloat16()
    out, of_states, of_weight = with_gradients(layer, states, above)
    rounded, matrix = states.bfloat16().double(), layer.weight.detach().bfloat16().double()
    torch.testing.assert_close(out.double(), rounded @ matrix.T, rtol=1e-2, atol=1e-2)
    assert of_states.dtype == dtype
    torch.testing.assert_close(of_states.double(), above.double() @ matrix, rtol=1e-2, atol=2e-2)
    assert of_weight.dtype == torch.float32
    exact = above.double().flatten(0, -2).T @ rounded.flatten(0, -2)
    assert (of_weight.double() - exact).norm() <= (1e-6 if way == "tiles" else 1e-2) * exact.norm()


@needs_tiles
def test_gradients_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    layer, states, above = Linear(96, 160), torch.randn(2500, 96), torch.randn(2500, 160).bfloat16()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = with_gradients(layer, states, above)[2].clone()
        torch.set_num_threads(3)
        together = with_gradients(layer, states, above)[2]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


def test_other_sizes_and_frozen_weights_are_left_to_pytorch():
    assert not fits_tiles(torch.zeros(32, 48))
    assert not fits_tiles(torch.zeros(32, 32, dtype=torch.float64))
    assert not fits_tiles(torch.zeros(64, 32).T)
    layer, states = Linear(32, 48), torch.randn(5, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16
    frozen = Linear(32, 64).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        frozen(states).sum().backward()
    assert frozen.weight.grad is None
    torch.testing.assert_close(states.grad, frozen.weight.sum(0).expand(5, 32), rtol=1e-2, atol=1e-2)
    assert layer(states).dtype == torch.float32


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (96, 96), (64, 224), (224, 64), (800, 1056)])
@pytest.mark.usefixtures("way")
def test_a_step_of_muon_is_that_of_its_formula(shape, threads):
    torch.manual_seed(0)
    weight, gradients = torch.nn.Parameter(torch.randn(shape)), torch.randn(3, *shape)
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    wanted, average = weight.detach().clone(), torch.zeros(shape)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
            average = 0.9 * average + 0.1 * gradient
            move = orthogonalise(0.9 * average + 0.1 * gradient, num_iterations=5)
            wanted = wanted * (1 - 0.1 * 0.5) - 0.1 * max(1, shape[0] / shape[1]) ** 0.5 * move
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], average)
    assert (weight.detach() - wanted).norm() < 0.1 * (0.1 * move.norm())  # both round to bfloat16, one after the other


@pytest.mark.usefixtures("way")
def test_a_matrix_of_zeros_stays_where_it_is():
    weight = torch.nn.Parameter(torch.ones(32, 64))
    weight.grad = torch.zeros(32, 64)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(32, 64))
