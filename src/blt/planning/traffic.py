"""What ranks exchange in one optimiser step, and how long that takes: rings of NCCL or gloo, by bandwidth and latency.

Only what grows with the model or the batch is counted; the sums of losses and norms are a few numbers.
"""

import math
from dataclasses import dataclass
from typing import Literal

from blt.model.memory import FLOAT32_BYTES
from blt.planning.machine import MachineConfig
from blt.planning.weights import shares_of
from blt.planning.workload import Workload

ID_BYTES = 8
BUCKET_BYTES = 25 * 2**20
"""Of DDP, by default."""

Phase = Literal["forward", "backward", "alone"]
"""What a collective can overlap with: a forward pass, a backward pass, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Collective:
    """Collectives of one kind in one optimiser step."""

    name: str
    """What is exchanged."""
    kind: Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all"]
    """The operation."""
    bytes: int | float
    """Of the whole tensors, over all times; of an all-to-all, what one rank sends."""
    times: int
    """How many messages."""
    ranks: int
    """In the group."""
    stride: int = 1
    """Distance of neighbours in the group: 1 within a replica, the ranks of a replica between replicas."""
    during: Phase = "alone"
    """What goes on meanwhile."""

    @property
    def sent(self) -> float:
        """Bytes that each rank sends."""
        return (2 if self.kind == "all-reduce" else 1) * self.bytes * (self.ranks - 1) / self.ranks

    def seconds(self, machine: MachineConfig) -> float:
        """Return how long all of them take, one after the other."""
        per_node = max(1, min(self.ranks, machine.ranks_per_node // self.stride))
        nodes = math.ceil(self.ranks / per_node)
        if self.kind == "all-to-all":
            inside = self.bytes * (per_node - 1) / self.ranks / machine.bandwidth_inside
            between = self.bytes * (self.ranks - per_node) / self.ranks / machine.bandwidth_between
            latency = machine.latency_between if nodes > 1 else machine.latency_inside
            return max(inside, between) + self.times * latency
        # The slowest link of a ring: within a node, or between nodes, where the node's ranks share out what passes.
        links = [machine.bandwidth_inside] if per_node > 1 else []
        links += [per_node * machine.bandwidth_between] if nodes > 1 else []
        return self.sent / min(links) + self.times * self._latency(machine, per_node=per_node, nodes=nodes)

    def _latency(self, machine: MachineConfig, *, per_node: int, nodes: int) -> float:
        """Return the hops of one message: round a ring, or for sums up a tree of nodes and down again."""
        if self.kind == "all-reduce":
            return 2 * ((per_node - 1) * machine.latency_inside + math.log2(nodes) * machine.latency_between)
        return (self.ranks - nodes) * machine.latency_inside + (nodes - 1) * machine.latency_between


def collectives_of(workload: Workload, *, ranks: int) -> list[Collective]:
    """List what ranks exchange in one optimiser step."""
    if ranks == 1:
        return []
    found = _of_fsdp(workload, ranks=ranks) if workload.is_divided(ranks) else _of_ddp(workload, ranks=ranks)
    return [collective for collective in found if collective.ranks > 1 and collective.bytes > 0]


def _of_ddp(workload: Workload, *, ranks: int) -> list[Collective]:
    """Gradients in buckets in the last part's backward pass; rows of sparse tables after it."""
    shares = shares_of(workload.model, 1)
    size = FLOAT32_BYTES * (shares.dense + (0 if workload.sparse_ngrams else shares.table))
    found = [
        Collective(
            name="gradients",
            kind="all-reduce",
            bytes=size,
            times=1 + math.ceil(size / BUCKET_BYTES),
            ranks=ranks,
            during="backward",
        )
    ]
    if workload.sparse_ngrams:
        found.append(_sparse_rows(workload, width=1.0, ranks=ranks))
    return found


def _of_fsdp(workload: Workload, *, ranks: int) -> list[Collective]:
    """Weights are gathered and gradients summed group by group, in each part; tables exchange columns instead."""
    shards, parts = workload.shards_of(ranks), workload.accumulation
    replicas, shares = ranks // shards, shares_of(workload.model, shards)
    root, layers, messages = shares.root, shares.layers, shares.num_groups
    size = 2 if workload.bfloat16 else FLOAT32_BYTES
    gathered: list[tuple[Phase, float, int]] = [
        ("forward", root + layers, messages),
        ("backward", layers, messages - 1),
    ]
    found = [
        Collective(
            name=f"weights, {during}",
            kind="all-gather",
            bytes=parts * size * weights,
            times=parts * groups,
            ranks=shards,
            during=during,
        )
        for during, weights, groups in gathered
    ]
    found += [
        Collective(
            name="gradients",
            kind="reduce-scatter",
            bytes=parts * FLOAT32_BYTES * (root + layers),
            times=parts * messages,
            during="backward",
            ranks=shards,
        ),
        Collective(
            name="gradients of replicas",
            kind="all-reduce",
            bytes=FLOAT32_BYTES * (root + layers) / shards,
            times=messages,
            ranks=replicas,
            stride=shards,
            during="backward",
        ),
    ]
    return found + _of_tables(workload, ranks=ranks) + _of_muon(workload, shards=shards)


def _of_tables(workload: Workload, *, ranks: int) -> list[Collective]:
    """Hashes of all positions, their columns to and fro in each part, and at the end the gradients of replicas."""
    hashing, shards, parts = workload.model.hash_embedding, workload.shards_of(ranks), workload.accumulation
    if not hashing.num_tables:
        return []
    positions, dim = workload.bytes_of_part(ranks), workload.model.local_encoder.dim
    hashes = parts * shards * positions * hashing.num_tables * ID_BYTES
    columns = 2 * parts * positions * dim * FLOAT32_BYTES
    found = [
        Collective(name="n-gram hashes", kind="all-gather", bytes=hashes, times=parts, ranks=shards),
        Collective(name="n-gram columns", kind="all-to-all", bytes=columns, times=2 * parts, ranks=shards),
    ]
    replicas = ranks // shards
    if workload.sparse_ngrams:
        return [*found, _sparse_rows(workload, width=1 / shards, ranks=replicas, stride=shards)]
    size, name = FLOAT32_BYTES * shares_of(workload.model, shards).table, "n-gram gradients of replicas"
    return [*found, Collective(name=name, kind="all-reduce", bytes=size, times=1, ranks=replicas, stride=shards)]


def _of_muon(workload: Workload, *, shards: int) -> list[Collective]:
    """Each matrix's gradient goes to its owner, and the update back."""
    if workload.optimizer != "muon":
        return []
    shares = shares_of(workload.model, shards)
    sent, rounds = 2 * FLOAT32_BYTES * shares.hidden / shards, 2 * math.ceil(shares.num_hidden / shards)
    return [Collective(name="Muon's matrices", kind="all-to-all", bytes=sent, times=rounds, ranks=shards)]


def _sparse_rows(workload: Workload, *, width: float, ranks: int, stride: int = 1) -> Collective:
    """Return the gathering of the rows that gradients hold: in each, at most one per table and byte that it is of."""
    hashing = workload.model.hash_embedding
    rows = hashing.num_tables * min(hashing.num_rows, workload.batch_size * workload.sequence_length // ranks)
    size = ranks * rows * (FLOAT32_BYTES * workload.model.local_encoder.dim * width + ID_BYTES)
    name = "rows of n-gram gradients"
    return Collective(name=name, kind="all-gather", bytes=size, times=3, ranks=ranks, stride=stride)
