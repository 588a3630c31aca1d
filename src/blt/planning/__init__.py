"""What a training run needs of a machine: memory per rank, time, energy, and what the exchange between ranks costs.

In: a `Workload` (shape, batch, way of sharing), a `MachineConfig`, a number of ranks. Out: an `Estimate`, and what to
change where it does not fit. All of it is arithmetic on shapes; formulas: docs/spec/planning.md. Next: `blt plan`.
"""

from blt.planning.advice import fastest, ways_to_fit
from blt.planning.estimate import Estimate, estimate
from blt.planning.machine import MACHINES, MachineConfig, machine
from blt.planning.rank_memory import RankMemory, memory_of_rank
from blt.planning.scaling import budget_of, warnings_of
from blt.planning.workload import Workload

__all__ = [
    "MACHINES",
    "Estimate",
    "MachineConfig",
    "RankMemory",
    "Workload",
    "budget_of",
    "estimate",
    "fastest",
    "machine",
    "memory_of_rank",
    "warnings_of",
    "ways_to_fit",
]
