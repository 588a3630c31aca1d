"""What to change where a rank's memory does not suffice, and which way of sharing is the fastest that fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from blt.errors import ConfigurationError
from blt.planning.estimate import Estimate, estimate
from blt.planning.machine import MachineConfig
from blt.planning.weights import possible_shards
from blt.planning.workload import Workload

MAX_RANKS = 2**13


@dataclass(frozen=True, kw_only=True)
class Change:
    """A way to make a workload fit."""

    fields: dict[str, Any]
    """Fields of the workload that change, under the names of a recipe's loop."""
    estimate: Estimate
    """What comes of it; `ranks` may have changed too."""

    def __str__(self) -> str:
        """Return the options that bring it about."""
        options = [f"--blt.loop.{name} {_as_option(value)}" for name, value in self.fields.items()]
        return " ".join(options)


def ways_to_fit(workload: Workload, machine: MachineConfig, *, ranks: int) -> list[Change]:
    """Return what to change where memory does not suffice: the fewest fields on as many ranks, and on more ranks.

    Args:
        workload: what does not fit.
        machine: where.
        ranks: how many there are.

    Returns:
        The fastest of the changes of fewest fields; and the same for the least number of ranks above, in doublings,
        where fewer fields suffice. Empty where nothing helps.
    """
    found: list[Change] = []
    count = ranks
    while count <= MAX_RANKS:
        best = _least(workload, machine, ranks=count)
        if best is not None and (not found or len(best.fields) < len(found[-1].fields)):
            found.append(best)
        if found and len(found[-1].fields) <= 1:
            break
        count *= 2
    return found[:1] + found[-1:] if len(found) > 1 else found


def fastest(workload: Workload, machine: MachineConfig, *, ranks: int, parallel: Literal["ddp", "fsdp"]) -> Estimate:
    """Return the fastest settings that fit, by one way of sharing; where none does, those that need the least memory.

    Accumulation, recomputation and, under FSDP, the ranks of a replica are chosen.

    Raises:
        ConfigurationError: the batch has no share for each rank.
    """
    changed = replace(workload, parallel=parallel, shards=None, accumulation=1)
    if not (tried := list(_tried(changed, machine, ranks=ranks))):
        changed.check_ranks(ranks)
    fitting = [found for found in tried if found.fits]
    if not fitting:
        return min(tried, key=lambda found: found.memory.total)
    return _first(fitting)


def _least(workload: Workload, machine: MachineConfig, *, ranks: int) -> Change | None:
    ways = [workload]
    if ranks > 1:
        ways += [replace(workload, parallel=parallel, shards=None) for parallel in ("ddp", "fsdp")]
    changes = []
    for way in ways:
        for found in _tried(way, machine, ranks=ranks):
            if found.fits:
                names = ("parallel", "shards", "accumulation", "recompute")
                fields = {name: getattr(found.workload, name) for name in names}
                fields = {name: value for name, value in fields.items() if value != getattr(workload, name)}
                changes.append(Change(fields=fields, estimate=found))
    fewest = min((len(change.fields) for change in changes), default=0)
    changes = [change for change in changes if len(change.fields) == fewest]
    best = _first([change.estimate for change in changes]) if changes else None
    return next((change for change in changes if change.estimate is best), None)


def _first(fitting: list[Estimate]) -> Estimate:
    """Return the fastest; of those within 1% of it, the one that is the fastest where nothing overlaps."""
    limit = 1.01 * min(found.step_seconds() for found in fitting)
    as_fast = [found for found in fitting if found.step_seconds() <= limit]
    return min(as_fast, key=lambda found: found.step_seconds(overlap=False))


def _tried(workload: Workload, machine: MachineConfig, *, ranks: int) -> Iterator[Estimate]:
    """Try the accumulations that double, with and without recomputation, and under FSDP each size of a replica."""
    shards: list[int | None] = [workload.shards]
    if workload.parallel == "fsdp" and ranks > 1:
        shards = [None, *(number for number in possible_shards(workload.model, ranks) if 1 < number < ranks)]
    rows = workload.batch_size // ranks
    accumulations = [2**power for power in range(rows.bit_length()) if rows % 2**power == 0] or [1]
    for number in shards:
        for accumulation in accumulations:
            for recompute in (False, True):
                changed = replace(workload, shards=number, accumulation=accumulation, recompute=recompute)
                try:
                    yield estimate(changed, machine, ranks=ranks)
                except ConfigurationError:  # ranks that cannot share this out
                    continue


def _as_option(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)
