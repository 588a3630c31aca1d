"""How long training takes on a machine, what it uses, and how much of the time goes into the exchange between ranks."""

import math
from dataclasses import dataclass
from typing import Literal

from blt.planning.machine import MachineConfig
from blt.planning.rank_memory import RankMemory, memory_of_rank, updated_in_tables
from blt.planning.traffic import Collective, collectives_of
from blt.planning.weights import shares_of
from blt.planning.workload import Workload

ADAMW_BYTES = 28
"""Read and written per weight and step: weight, gradient and two moments are read, all but the gradient written."""
DAY, KILOWATT_HOUR = 86_400.0, 3.6e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A workload on a number of ranks of a machine."""

    workload: Workload
    """What is trained, and how ranks share it."""
    machine: MachineConfig
    """Where."""
    ranks: int
    """How many."""
    memory: RankMemory
    """Of the rank that holds most."""
    forward_seconds: float
    """Of one optimiser step, over all parts."""
    backward_seconds: float
    """The same; what is computed again included."""
    optimizer_seconds: float
    """Of one optimiser step."""
    collectives: tuple[Collective, ...]
    """What ranks exchange in one optimiser step."""

    @property
    def fits(self) -> bool:
        """Whether a rank's memory suffices."""
        return self.memory.total <= self.machine.usable_memory * self.machine.memory

    @property
    def computing_seconds(self) -> float:
        """Seconds of a step without any exchange."""
        return self.forward_seconds + self.backward_seconds + self.optimizer_seconds

    @property
    def communication_seconds(self) -> float:
        """Seconds of a step's exchange, were it alone."""
        return math.fsum(collective.seconds(self.machine) for collective in self.collectives)

    @property
    def exposed_seconds(self) -> float:
        """Seconds of a step in which ranks only exchange, where the rest overlaps with computing as well as it can."""
        return self._during("alone") + self._exposed("forward") + self._exposed("backward")

    def step_seconds(self, *, overlap: bool = True) -> float:
        """Return the seconds of one optimiser step."""
        return self.computing_seconds + (self.exposed_seconds if overlap else self.communication_seconds)

    def communication_share(self, *, overlap: bool = True) -> float:
        """Return the share of the time that is lost to the exchange."""
        return 1 - self.computing_seconds / self.step_seconds(overlap=overlap)

    def bytes_per_second(self, *, overlap: bool = True) -> float:
        """Return how much text all ranks train on per second."""
        workload = self.workload
        return workload.batch_size * workload.sequence_length / self.step_seconds(overlap=overlap)

    def model_flops_utilisation(self, *, overlap: bool = True) -> float:
        """Return the share of the peak that goes into FLOPs which the model needs (MFU)."""
        needed = self.workload.cost.training_flops * self.bytes_per_second(overlap=overlap)
        return needed / (self.ranks * self.machine.flops(bfloat16=self.workload.bfloat16))

    def seconds(self, num_bytes: int | float, *, overlap: bool = True) -> float:
        """Return how long training on a number of bytes takes, with their entropies beforehand."""
        return num_bytes / self.bytes_per_second(overlap=overlap) + self.entropy_seconds(num_bytes)

    def entropy_seconds(self, num_bytes: int | float) -> float:
        """Return how long all ranks compute the entropies of a number of bytes, as they do before training."""
        entropy_model = self.workload.cost.entropy_model
        rate = self.machine.utilisation * self.machine.flops(bfloat16=False) * self.ranks
        return 0.0 if entropy_model is None else num_bytes * entropy_model.flops / rate

    def kilowatt_hours(self, num_bytes: int | float, *, overlap: bool = True) -> float:
        """Return the energy of that."""
        return self.ranks * self.machine.watts * self.seconds(num_bytes, overlap=overlap) / KILOWATT_HOUR

    def _during(self, phase: Literal["forward", "backward", "alone"]) -> float:
        return math.fsum(each.seconds(self.machine) for each in self.collectives if each.during == phase)

    def _exposed(self, phase: Literal["forward", "backward"]) -> float:
        """Return what does not fit beside the computing of a phase; of the messages, one at least never does."""
        some = [each for each in self.collectives if each.during == phase]
        if not some:
            return 0.0
        window = self.forward_seconds if phase == "forward" else self.backward_seconds
        if not self.workload.is_divided(self.ranks):
            window /= self.workload.accumulation  # DDP sums in the last part alone
        single = max(each.seconds(self.machine) / each.times for each in some)
        return max(single, self._during(phase) - window)


def estimate(workload: Workload, machine: MachineConfig, *, ranks: int) -> Estimate:
    """Estimate a workload on a machine.

    Args:
        workload: what is trained, and how ranks share it.
        machine: figures of a rank, and of what connects ranks.
        ranks: how many there are.

    Raises:
        ConfigurationError: this number of ranks cannot train it.
    """
    memory = memory_of_rank(workload, ranks=ranks)
    rate = machine.utilisation * machine.flops(bfloat16=workload.bfloat16)
    cost, num_bytes = workload.cost, workload.batch_size * workload.sequence_length / ranks
    forward = cost.flops * num_bytes / rate
    again = sum(part.flops for part in cost.parts if part.name in _STACKS) * num_bytes / rate
    return Estimate(
        workload=workload,
        machine=machine,
        ranks=ranks,
        memory=memory,
        forward_seconds=forward,
        backward_seconds=2 * forward + (again if workload.recompute else 0.0),
        optimizer_seconds=_optimizer_seconds(workload, machine, ranks=ranks, rate=rate),
        collectives=tuple(collectives_of(workload, ranks=ranks)),
    )


_STACKS = ("local encoder", "global transformer", "local decoder")


def _optimizer_seconds(workload: Workload, machine: MachineConfig, *, ranks: int, rate: float) -> float:
    """AdamW is bound by memory; Muon orthogonalises each matrix, under FSDP on the rank that owns it."""
    shares, is_muon = shares_of(workload.model, workload.shards_of(ranks)), workload.optimizer == "muon"
    numbers = (shares.unhidden if is_muon else shares.dense) + updated_in_tables(workload, ranks=ranks)
    return (shares.muon_flops / rate if is_muon else 0.0) + ADAMW_BYTES * numbers / machine.memory_bandwidth
