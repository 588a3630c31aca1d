import pytest
import torch

from blt.data import Batch
from blt.distributed import World
from blt.errors import ConfigurationError
from blt.training import parallelize as module_under_test
from blt.training.parallelize import Alone, Replicated, parallelize, recompute_layers
from ranks import run_ranks
from tiny_objective import loop, loss_of, new_objective

CPU = torch.device("cpu")


def test_one_process_shares_with_nobody():
    objective = new_objective()
    before = objective.module
    sharing = parallelize(objective, loop(parallel="fsdp"), world=World(), device=CPU)
    assert type(sharing) is Alone
    assert objective.module is objective.called is before
    with sharing.part(is_last=False), sharing.whole_weights(before):
        assert not any(weight.is_meta for weight in before.parameters())


def test_more_than_one_rank_needs_to_say_how_it_shares():
    with pytest.raises(ConfigurationError, match="parallel: 'none', with 2 ranks; give ddp or fsdp"):
        parallelize(new_objective(), loop(parallel="none"), world=World(rank=0, size=2), device=CPU)


def test_ddp_communicates_in_the_last_part_only_and_while_the_backward_pass_goes_on(tmp_path, monkeypatch):
    def work(world):
        objective = new_objective()
        sharing = parallelize(objective, loop(parallel="ddp"), world=world, device=CPU)
        assert isinstance(sharing, Replicated)
        summed, honest = [], module_under_test._sum_bucket
        module_under_test._sum_bucket = lambda bucket: summed.append(missing(objective)) or honest(bucket)
        sharing.begin_step()
        for is_last in (False, False, True):
            with sharing.part(is_last=is_last):
                loss_of(objective).backward()
            assert bool(summed) == is_last
        alone = new_objective()
        (3 * world.size * loss_of(alone)).backward()
        for found, wanted in zip(objective.module.parameters(), alone.module.parameters(), strict=True):
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)

    def missing(objective):
        return sum(weight.grad is None for weight in objective.module.parameters())

    run_ranks(2, work, tmp_path)


def test_recomputed_layers_have_the_same_gradients_and_keep_less():
    kept = []
    gradients = []
    for is_recomputed in (False, True):
        objective = new_objective()
        if is_recomputed:
            recompute_layers(objective.module)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = loss_of(objective)
        loss.backward()
        kept.append(sum(sizes))
        gradients.append([weight.grad for weight in objective.module.parameters()])
    assert kept[1] < 0.8 * kept[0]
    for found, wanted in zip(gradients[1], gradients[0], strict=True):
        assert torch.equal(found, wanted)


def test_a_row_costs_what_its_patches_cost():
    objective = new_objective()
    ids = torch.randint(4, 260, (3, 24))
    entropies = torch.zeros(3, 23)
    entropies[1, ::2] = entropies[2] = 2.0  # patches only at the end, at every other byte, at every byte
    costs = objective.costs(Batch.of(ids, entropies=entropies))
    assert costs[0] < costs[1] < costs[2]
