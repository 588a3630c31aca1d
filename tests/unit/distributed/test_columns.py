import torch
import torch.distributed as dist

from blt.distributed import join_columns, sum_rows
from ranks import run_ranks

WIDTHS, POSITIONS = [3, 3, 1], 4


def test_every_rank_gets_all_columns_of_its_positions_and_gradients_go_back(tmp_path):
    torch.manual_seed(0)
    whole = torch.randn(3 * POSITIONS, sum(WIDTHS))
    given = torch.randn(3 * POSITIONS, sum(WIDTHS))

    def work(world):
        mine = slice(world.rank * POSITIONS, (world.rank + 1) * POSITIONS)
        columns = whole.split(WIDTHS, dim=1)[world.rank].clone().requires_grad_()
        joined = join_columns(columns, widths=WIDTHS, group=dist.group.WORLD)
        assert torch.equal(joined, whole[mine])
        joined.backward(given[mine])
        assert torch.equal(columns.grad, given.split(WIDTHS, dim=1)[world.rank])
        check_rows(world)

    def check_rows(world):
        rows = torch.tensor([[0, world.rank + 1][: world.rank + 1]])  # ranks hold one, two and two rows
        gradient = torch.sparse_coo_tensor(rows, torch.ones(rows.shape[1], 2), (5, 2), check_invariants=True)
        summed = sum_rows(gradient.coalesce())
        assert summed.is_coalesced()
        assert torch.equal(summed.to_dense()[:, 0], torch.tensor([3.0, 0, 1, 1, 0]))

    run_ranks(3, work, tmp_path)
