"""What the plan says that ranks exchange, against the messages of a step, and the time of rings worked out by hand."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blt.planning import MachineConfig, Workload
from blt.planning.traffic import Collective, collectives_of
from blt.training.optimizers import MuonConfig, build_optimizers
from blt.training.parallelize import parallelize
from ranks import run_ranks
from tiny_config import TINY_CONFIG
from tiny_objective import loop, loss_of, new_objective

MACHINE = MachineConfig(
    memory=1e9,
    float32_flops=1e12,
    memory_bandwidth=1e11,
    ranks_per_node=8,
    bandwidth_inside=100.0,
    bandwidth_between=5.0,
    latency_inside=0.01,
    latency_between=0.1,
    watts=100.0,
)
KINDS = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "alltoall_base_": "all-to-all",
}


class Messages(TorchDispatchMode):
    """Notes the kind of every collective that is started within it, and the bytes of the whole, or of what is sent."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            kind = KINDS[func._schema.name.partition("::")[2]]
            sizes = [tensor.nbytes for tensor in flat(args)]
            if kind == "all-gather":  # of lists, the outputs come first, and the input once more
                sizes = [max(sizes)] if len(sizes) == 2 else [sum(sizes[:-1])]
            self.seen.append((kind, sizes[1] if kind == "all-to-all" else max(sizes)))
        return func(*args, **(kwargs or {}))


def flat(values):
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in flat(value)] if isinstance(values, list | tuple) else []


def exchanged(way, folder, *, is_sparse):
    """Return the messages of a step on 4 ranks, by kind: their number, and the bytes that a rank sends on average."""

    def work(world):
        objective = new_objective(sparse=is_sparse)
        sharing = parallelize(objective, loop(**way), world=world, device=torch.device("cpu"))
        optimizers = build_optimizers(objective.module, MuonConfig())
        sharing.begin_step()
        with Messages() as messages:
            with sharing.part(is_last=True):
                loss_of(objective).backward()
            sharing.sum_gradients()
            for optimizer in optimizers:
                optimizer.step()
        sums = {}
        for kind, size in messages.seen:
            count, total = sums.get(kind, (0, 0.0))
            sums[kind] = (count + 1, total + size)
        sums = {kind: (count, world.sum(total) / world.size) for kind, (count, total) in sorted(sums.items())}
        if world.is_main:
            (folder / "found.json").write_text(json.dumps(sums))

    run_ranks(4, work, folder)
    return json.loads((folder / "found.json").read_text())


def planned(way, *, is_sparse):
    workload = Workload(
        model=TINY_CONFIG.blt,
        sequence_length=23,
        batch_size=8,
        bfloat16=False,
        optimizer="muon",
        sparse_ngrams=is_sparse,
        **way,
    )
    sums = {}
    for each in collectives_of(workload, ranks=4):
        count, total = sums.get(each.kind, (0, 0.0))
        sums[each.kind] = (count + each.times, total + each.bytes)
    return sums


@pytest.mark.parametrize("way", [{"parallel": "fsdp"}, {"parallel": "fsdp", "shards": 2}])
def test_fsdp_sends_what_is_planned(tmp_path, way):
    found, wanted = exchanged(way, tmp_path, is_sparse=False), planned(way, is_sparse=False)
    assert found.keys() == wanted.keys()
    for kind, (count, size) in found.items():
        assert wanted[kind][1] == pytest.approx(size, rel=0.01), kind
        assert wanted[kind][0] == pytest.approx(count, abs=2), kind


def test_ddp_sends_all_gradients_and_of_sparse_tables_at_most_the_rows_that_a_batch_can_read(tmp_path):
    for is_sparse in (False, True):
        found = exchanged({"parallel": "ddp"}, tmp_path / str(is_sparse), is_sparse=is_sparse)
        wanted = planned({"parallel": "ddp"}, is_sparse=is_sparse)
        assert wanted["all-reduce"][1] == pytest.approx(found["all-reduce"][1], rel=0.01)
        assert ("all-gather" in found) == ("all-gather" in wanted) == is_sparse
    assert 0.5 < found["all-gather"][1] / wanted["all-gather"][1] <= 1


def test_a_part_of_an_accumulated_batch_gathers_all_weights_anew_under_fsdp_alone():
    def sent(**fields):
        workload = Workload(model=TINY_CONFIG.blt, batch_size=64, **fields)
        return sum(each.sent for each in collectives_of(workload, ranks=4) if not each.name.startswith("n-gram"))

    assert sent(parallel="fsdp", accumulation=4) == pytest.approx(4 * sent(parallel="fsdp"))
    assert sent(parallel="ddp", accumulation=4) == sent(parallel="ddp")


def collective(kind, **fields):
    return Collective(**{"name": "", "kind": kind, "bytes": 1600.0, "times": 1, "ranks": 16} | fields)


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        # 7 hops within the node, 7/8 of the bytes over each link
        (collective("all-gather", ranks=8), 1600 * 7 / 8 / 100 + 7 * 0.01),
        # two nodes: each rank's links to the other node carry an eighth of the ring's load, 8 × 5 bytes/s together
        (collective("all-gather"), 1600 * 15 / 16 / 40 + 14 * 0.01 + 0.1),
        (collective("reduce-scatter", times=3), 1600 * 15 / 16 / 40 + 3 * (14 * 0.01 + 0.1)),
        (collective("all-reduce"), 2 * 1600 * 15 / 16 / 40 + 2 * (7 * 0.01 + 0.1)),
        # the ranks of a group lie on different nodes, and each has its own link
        (collective("all-reduce", ranks=4, stride=8), 2 * 1600 * 3 / 4 / 5 + 2 * 2 * 0.1),
        # half of the replicas' ranks lie in one node
        (collective("all-reduce", ranks=4, stride=4), 2 * 1600 * 3 / 4 / 10 + 2 * (0.01 + 0.1)),
        # half of what a rank sends goes to the other node, over its own link
        (collective("all-to-all"), 1600 * 8 / 16 / 5 + 0.1),
        (collective("all-to-all", ranks=8), 1600 * 7 / 8 / 100 + 0.01),
    ],
)
def test_time_is_that_of_the_slowest_link_and_of_the_hops(what, seconds):
    assert what.seconds(MACHINE) == pytest.approx(seconds)


def test_one_rank_exchanges_nothing():
    assert collectives_of(Workload(model=TINY_CONFIG.blt), ranks=1) == []
