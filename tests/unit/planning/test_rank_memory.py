"""What the plan says of a rank's memory, against weights, gradients and moments that are built and divided."""

from dataclasses import replace

import pytest
import torch
from torch.distributed.tensor import DTensor

from blt.entropy import EntropyModel
from blt.errors import ConfigurationError
from blt.lm.initialisation import WithoutInitialisation
from blt.model import BLT, HashConfig, entropy_preset, preset
from blt.patching import SpaceRule
from blt.planning import Workload, memory_of_rank
from blt.planning.weights import owned_by_ranks
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers
from blt.training.parallelize import parallelize
from ranks import run_ranks
from simulated_ranks import as_one_of
from tiny_config import TINY_CONFIG
from tiny_objective import loop, loss_of, new_objective

CPU = torch.device("cpu")
OPTIMIZERS = {"adamw": AdamWConfig(), "muon": MuonConfig()}
TABLE = "hash_embedding.ngrams.weight"


def nbytes(tensor):
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    return tensor._values().nbytes if tensor.is_sparse else tensor.nbytes


def held_by(objective, sharing, optimizers):
    """Sum what a rank holds, by part; step counts of AdamW, four bytes each, are left out."""
    weights = dict(objective.module.named_parameters())
    names = {weight: name for name, weight in weights.items()}
    held = {"weights": 0, "gradients": 0, "moments": 0, "tables": 0}
    for name, weight in weights.items():
        part = "tables" if name == TABLE else None
        held[part or "weights"] += nbytes(weight)
        held[part or "gradients"] += nbytes(weight.grad)
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            part = "tables" if names[weight] == TABLE else "moments"
            held[part] += sum(nbytes(tensor) for key, tensor in state.items() if key != "step")
    return held


def built_on_64_ranks(optimizer, rank):
    def build(world):
        with torch.device("meta"), WithoutInitialisation():
            objective = BLTObjective(BLT(preset("blt-8b")), rule=SpaceRule(), slots_multiple=1)
        sharing = parallelize(objective, loop(parallel="fsdp"), world=world, device=CPU)
        optimizers = build_optimizers(objective.module, OPTIMIZERS[optimizer])
        for weight in objective.module.parameters():
            weight.grad = torch.zeros_like(weight)
        for moved in optimizers:
            for group in moved.param_groups:
                group.update({"fused": False, "foreach": False} if "fused" in group else {})  # not on the meta device
            moved.step()
        assert all(weight.to_local().is_meta for weight in objective.module.parameters())
        return held_by(objective, sharing, optimizers)

    return build


@pytest.mark.parametrize(("optimizer", "rank"), [("adamw", 0), ("muon", 0), ("muon", 63)])
def test_blt_8b_on_64_ranks_is_planned_within_2_percent(tmp_path, optimizer, rank):
    found = as_one_of(64, built_on_64_ranks(optimizer, rank), tmp_path, rank=rank)
    workload = Workload(model=preset("blt-8b"), optimizer=optimizer, parallel="fsdp", batch_size=64)
    planned = memory_of_rank(workload, ranks=64)
    assert planned.tables == found.pop("tables")
    if optimizer == "muon":  # owners hold whole matrices, some more of them than others, and the plan says the most
        owned = [4 * sum(weight.numel for weight in some) for some in owned_by_ranks(workload.model, 64)]
        found["moments"] += max(owned) - owned[rank]
    for part, size in found.items():
        assert getattr(planned, part) == pytest.approx(size, rel=0.02)
    assert sum(found.values()) > 1.2e9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("way", "is_sparse"), [({"parallel": "ddp"}, False), ({"parallel": "fsdp"}, False), ({"parallel": "fsdp"}, True)]
)
def test_two_ranks_hold_what_is_planned(tmp_path, optimizer, way, is_sparse):
    workload = Workload(
        model=TINY_CONFIG.blt,
        optimizer=optimizer,
        bfloat16=False,
        sequence_length=23,
        batch_size=2 * 24,
        sparse_ngrams=is_sparse,
        **way,
    )
    planned = memory_of_rank(workload, ranks=2)
    shards = workload.shards_of(2)
    owned = [4 * sum(weight.numel for weight in some) for some in owned_by_ranks(workload.model, shards)]

    def work(world):
        objective = new_objective(sparse=is_sparse)
        sharing = parallelize(objective, loop(**way), world=world, device=CPU)
        optimizers = build_optimizers(objective.module, OPTIMIZERS[optimizer])
        sharing.begin_step()
        with sharing.part(is_last=True):
            loss_of(objective, rows=24).backward()
        sharing.sum_gradients()
        for moved in optimizers:
            moved.step()
        found = held_by(objective, sharing, optimizers)
        if optimizer == "muon":
            found["moments"] += max(owned) - owned[world.rank % shards]
        for part, size in found.items():
            assert size == pytest.approx(getattr(planned, part), rel=0.02), part

    run_ranks(2, work, tmp_path)


def test_the_frozen_entropy_model_lies_on_every_rank():
    workload = Workload(model=preset("blt-1b"), parallel="fsdp", batch_size=64)
    with_it = memory_of_rank(replace(workload, entropy_model=entropy_preset("blt-1b")), ranks=64)
    without = memory_of_rank(workload, ranks=64)
    with torch.device("meta"), WithoutInitialisation():
        entropy_model = EntropyModel(entropy_preset("blt-1b"))
    assert with_it.total - without.total == 4 * sum(weight.numel() for weight in entropy_model.parameters())


def test_a_replica_of_more_ranks_a_smaller_part_and_recomputation_all_need_less():
    workload = Workload(model=preset("blt-1b"), parallel="fsdp", batch_size=256)
    whole = memory_of_rank(workload, ranks=64)
    assert memory_of_rank(replace(workload, shards=8), ranks=64).weights > 7 * whole.weights
    assert memory_of_rank(replace(workload, accumulation=4), ranks=64).activations == pytest.approx(
        whole.activations / 4
    )
    assert memory_of_rank(replace(workload, recompute=True), ranks=64).activations < whole.activations / 3


@pytest.mark.parametrize(
    ("fields", "ranks", "message"),
    [
        ({"batch_size": 8}, 16, "batch_size: 8 is no multiple of 16 ranks × 1 parts; 16 would be"),
        ({"batch_size": 96, "parallel": "fsdp", "shards": 64}, 96, "shards: 64 does not divide 96 ranks"),
        ({"batch_size": 384, "parallel": "fsdp"}, 384, "width 1,024 cannot be divided over 384 ranks"),
        ({"parallel": "none"}, 2, "parallel: 'none', and there are 2 ranks"),
    ],
)
def test_ranks_that_cannot_share_it_out_are_refused(fields, ranks, message):
    with pytest.raises(ConfigurationError, match=message):
        memory_of_rank(Workload(model=preset("blt-1b"), **fields), ranks=ranks)


def test_a_shape_without_tables_has_none():
    model = replace(TINY_CONFIG.blt, hash_embedding=HashConfig(ngram_sizes=()))
    assert memory_of_rank(Workload(model=model, parallel="fsdp"), ranks=2).tables == 0
