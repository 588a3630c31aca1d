import pytest
import torch

import blt.ops.muon
from blt.ops import orthogonalise
from blt.training.muon import Muon

SHAPES = [(32, 32), (24, 80), (80, 24)]


def matrix(shape):
    """Singular values from 1 down to a hundredth."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    return (left * torch.logspace(0, -2, min(shape))) @ right


@pytest.mark.parametrize("fast_bfloat16", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_1_and_vectors_stay(shape, fast_bfloat16, monkeypatch):
    dtype = torch.bfloat16 if fast_bfloat16 else torch.float32
    monkeypatch.setattr(blt.ops.muon, "fast_matmul_dtype", lambda device: dtype)
    given = matrix(shape)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    found = orthogonalise(given, num_iterations=5)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    along = left.T @ found @ right.T
    tolerance = 0.05 if fast_bfloat16 else 1e-3
    assert (along - along.diag().diag()).abs().max() < tolerance
    assert along.diag().min() > 0.8
    assert along.diag().max() < 1.2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_moves_by_the_orthogonalised_nesterov_momentum(shape, monkeypatch):
    monkeypatch.setattr(blt.ops.muon, "fast_matmul_dtype", lambda device: torch.float32)
    weight, gradients = torch.nn.Parameter(torch.randn(shape)), [matrix(shape), matrix(shape).flip(0)]
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    wanted, average = weight.detach().clone(), torch.zeros(shape)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
        average = 0.9 * average + 0.1 * gradient
        move = orthogonalise(0.9 * average + 0.1 * gradient, num_iterations=5)
        wanted = wanted * (1 - 0.1 * 0.5) - 0.1 * max(1, shape[0] / shape[1]) ** 0.5 * move
    torch.testing.assert_close(weight.detach(), wanted, atol=1e-5, rtol=1e-5)


def test_a_matrix_without_a_gradient_stays():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    before = weight.detach().clone()
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, before)


def test_more_iterations_come_nearer():
    given = matrix((32, 32))

    def distance(count):
        return float((torch.linalg.svdvals(orthogonalise(given, num_iterations=count)) - 1).abs().max())

    assert distance(9) < distance(5) < distance(2)
