import pytest
import torch
from torch import nn

from blt.model import BLT, BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import SpaceRule, patch
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers, clip_gradients
from blt.training.row_adam import RowAdam

LOCAL = LocalConfig(dim=64, num_layers=1, num_heads=2, window=8)
CONFIG = BLTConfig(
    local_encoder=LOCAL,
    local_decoder=LOCAL,
    global_transformer=TransformerConfig(dim=64, num_layers=1, num_heads=2),
    hash_embedding=HashConfig(ngram_sizes=(3, 4), num_rows=50),
)


def sparse(gradient, rows):
    rows = torch.tensor(rows)
    return torch.sparse_coo_tensor(rows[None], gradient[rows], gradient.shape, check_invariants=True)


def test_rows_that_always_have_a_gradient_move_as_by_adam():
    torch.manual_seed(0)
    ours, wanted = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.zeros(5, 4))
    wanted.data.copy_(ours.data)
    optimizers = RowAdam([ours], lr=0.1), torch.optim.Adam([wanted], lr=0.1, betas=(0.9, 0.95))
    for _ in range(6):
        gradient = torch.randn(5, 4)
        ours.grad, wanted.grad = sparse(gradient, [4, 0, 1, 2, 3]), gradient
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(ours, wanted)


def test_a_row_without_a_gradient_waits_and_then_goes_on_as_if_no_time_had_passed():
    torch.manual_seed(0)
    waits, goes_on = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(3, 4))
    gradients = torch.randn(4, 3, 4)
    first, second = RowAdam([waits], lr=0.1), RowAdam([goes_on], lr=0.1)
    for gradient, rows in zip(gradients, ([0, 1], [1], [1, 2], [0, 1]), strict=True):
        before = waits.detach().clone()
        waits.grad = sparse(gradient, rows)
        first.step()
        moved = (waits != before).any(1).nonzero().flatten().tolist()
        assert moved == rows
    for gradient in (gradients[0], gradients[3]):
        goes_on.grad = sparse(gradient, [0])
        second.step()
    torch.testing.assert_close(waits[0], goes_on[0])
    torch.testing.assert_close(waits[2].abs(), torch.full((4,), 0.1))  # late, and yet a whole first step


def test_entries_of_the_same_row_add_up():
    table = nn.Parameter(torch.zeros(3, 2))
    rows, values = torch.tensor([[1, 1]]), torch.tensor([[2.0, 1.0], [-1.0, 1.0]])
    table.grad = torch.sparse_coo_tensor(rows, values, (3, 2), check_invariants=True)
    RowAdam([table], lr=0.5).step()
    torch.testing.assert_close(table, torch.tensor([[0.0, 0.0], [-0.5, -0.5], [0.0, 0.0]]))


def gradients_of(*, is_sparse):
    torch.manual_seed(0)
    blt = BLT(CONFIG)
    blt.hash_embedding.sparse_gradients = is_sparse
    ids = torch.tensor([list(b"the cat sat, the cat sat")]) + 4
    blt(ids, patch(ids, SpaceRule())).logsumexp(-1).sum().backward()
    return blt


def test_sparse_gradients_are_the_dense_ones_and_are_clipped_alike():
    dense, with_sparse = gradients_of(is_sparse=False), gradients_of(is_sparse=True)
    table = with_sparse.hash_embedding.ngrams.weight
    assert table.grad.is_sparse
    torch.testing.assert_close(table.grad.to_dense(), dense.hash_embedding.ngrams.weight.grad)
    for largest in (1e6, 0.5):
        wanted = nn.utils.clip_grad_norm_(dense.parameters(), largest)
        torch.testing.assert_close(clip_gradients(with_sparse.parameters(), max_norm=largest), wanted)
        for ours, theirs in zip(with_sparse.parameters(), dense.parameters(), strict=True):
            torch.testing.assert_close(ours.grad.to_dense() if ours.grad.is_sparse else ours.grad, theirs.grad)


def test_weights_without_a_gradient_are_left_out_of_the_norm():
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    weights[0].grad = torch.tensor([3.0, 4.0])
    assert clip_gradients(weights, max_norm=1.0).item() == pytest.approx(5.0)
    torch.testing.assert_close(weights[0].grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("config", [AdamWConfig(learning_rate=0.5), MuonConfig(adamw=AdamWConfig(learning_rate=0.5))])
def test_tables_with_sparse_gradients_are_moved_by_row_adam_at_the_rate_of_adamw(config):
    blt = BLT(CONFIG)
    blt.hash_embedding.sparse_gradients = True
    optimizers = build_optimizers(blt, config)
    moved = [id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(moved) == sorted(id(weight) for weight in blt.parameters())
    (rows,) = [optimizer for optimizer in optimizers if isinstance(optimizer, RowAdam)]
    assert [id(weight) for group in rows.param_groups for weight in group["params"]] == [
        id(blt.hash_embedding.ngrams.weight)
    ]
    assert rows.param_groups[0]["base_lr"] == 0.5
