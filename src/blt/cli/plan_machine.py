"""The part of `blt plan` that is about a machine: plans by number of ranks and way of sharing, and advice."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blt.cli.tables import in_columns
from blt.configuration import from_dict, to_dict, with_overrides
from blt.errors import ConfigurationError
from blt.model.cost import with_unit
from blt.model.memory import activation_bytes
from blt.planning import MACHINES, Estimate, MachineConfig, Workload, estimate, fastest, machine, ways_to_fit
from blt.planning.advice import Change
from blt.planning.estimate import DAY


@dataclass(frozen=True, kw_only=True)
class MachinePlan:
    """Plans of one workload on one machine."""

    name: str
    machine: MachineConfig
    num_bytes: int | float
    """Of text, to be trained on."""
    asked: tuple[Estimate, ...]
    """The settings that were given, for every number of ranks; empty where none were."""
    chosen: tuple[Estimate, ...]
    """The fastest that fit, by ways of sharing."""
    advice: tuple[Change, ...]
    """For the first of `asked` that does not fit."""


def read_machine(name: str, overrides: dict[str, object]) -> MachineConfig:
    """Return a named machine or that of a TOML file, with single figures set anew.

    Raises:
        ConfigurationError: no such machine or file, or a figure that cannot be.
    """
    if not name.endswith(".toml"):
        values: dict[str, Any] = to_dict(machine(name))
    else:
        try:
            values = tomllib.loads(Path(name).read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{name}: not readable as TOML ({error})") from None
        except OSError as error:
            known = ", ".join(MACHINES)
            raise ConfigurationError(
                f"{name}: {error.strerror or error}; give a TOML file, or one of {known}"
            ) from None
    found: MachineConfig = from_dict(MachineConfig, with_overrides(values, overrides), where="machine")
    return found


def plan_on_machine(
    workload: Workload, *, name: str, on: MachineConfig, ranks: tuple[int, ...], num_bytes: int | float, is_given: bool
) -> MachinePlan:
    """Work out plans for all numbers of ranks.

    Args:
        workload: what is trained.
        name: of the machine.
        on: the machine.
        ranks: numbers of ranks.
        num_bytes: of text, to be trained on.
        is_given: whether the way of sharing was given, as in a recipe, or is to be chosen.

    Raises:
        ConfigurationError: this number of ranks cannot train it.
    """
    workload = replace(workload, bfloat16=workload.bfloat16 and on.bfloat16_flops is not None)
    ways: tuple[Literal["ddp", "fsdp"], ...] = ("ddp", "fsdp")
    asked = tuple(estimate(workload, on, ranks=count) for count in ranks) if is_given else ()
    chosen = tuple(
        fastest(workload, on, ranks=count, parallel=way) for count in ranks for way in (ways if count > 1 else ways[:1])
    )
    unfit = next((found for found in asked or chosen if not found.fits), None)
    is_helped = not is_given and any(found.fits for found in chosen)
    advice = () if unfit is None or is_helped else tuple(ways_to_fit(unfit.workload, on, ranks=unfit.ranks))
    return MachinePlan(name=name, machine=on, num_bytes=num_bytes, asked=asked, chosen=chosen, advice=advice)


def as_json(plan: MachinePlan) -> dict[str, Any]:
    """Return plain values."""
    return {
        "name": plan.name,
        **to_dict(plan.machine),
        "training_bytes": plan.num_bytes,
        "asked": [_estimate_as_json(found, plan) for found in plan.asked],
        "chosen": [_estimate_as_json(found, plan) for found in plan.chosen],
        "advice": [
            {"options": str(change), **_estimate_as_json(change.estimate, plan)} for change in plan.advice
        ],
    }  # fmt: skip


def _estimate_as_json(found: Estimate, plan: MachinePlan) -> dict[str, Any]:
    workload = found.workload
    memory = {part: getattr(found.memory, part) for part in found.memory.__dataclass_fields__}
    return {
        "ranks": found.ranks,
        "parallel": _way(found),
        "shards": workload.shards_of(found.ranks),
        "accumulation": workload.accumulation,
        "recompute": workload.recompute,
        "memory_bytes": memory | {"total": found.memory.total},
        "activations_bytes_with_recompute": _activations(workload, found.ranks, recompute=True),
        "activations_bytes_without_recompute": _activations(workload, found.ranks, recompute=False),
        "fits": found.fits,
        "step_seconds": found.step_seconds(),
        "step_seconds_without_overlap": found.step_seconds(overlap=False),
        "bytes_per_second": found.bytes_per_second(),
        "communication_share": found.communication_share(),
        "communication_share_without_overlap": found.communication_share(overlap=False),
        "model_flops_utilisation": found.model_flops_utilisation(),
        "days": found.seconds(plan.num_bytes) / DAY,
        "kilowatt_hours": found.kilowatt_hours(plan.num_bytes),
        "communication": {
            each.name: {
                "kind": each.kind,
                "ranks": each.ranks,
                "bytes_sent": each.sent,
                "seconds": each.seconds(plan.machine),
            }
            for each in found.collectives
        },
    }  # fmt: skip


def table(plan: MachinePlan) -> list[str]:
    """Return the lines that a person reads."""
    on = plan.machine
    some = next((found for found in plan.chosen if found.fits), plan.chosen[0]) if not plan.asked else plan.asked[0]
    workload, bfloat16 = some.workload, some.workload.bfloat16
    precision = "bfloat16" if bfloat16 else "float32"
    lines = [
        f"machine {plan.name}: {with_unit(on.memory)}B and {with_unit(on.flops(bfloat16=bfloat16))}FLOPS ({precision}, "
        f"{on.utilisation:.0%} reached) per rank, {on.ranks_per_node} per node",
        f"                           {with_unit(on.bandwidth_inside)}B/s within a node, "
        f"{with_unit(on.bandwidth_between)}B/s per rank between nodes, {on.watts:,.0f} W per rank",
        f"                           {on.source}",
        f"batch                      {workload.batch_size:,} rows × {workload.sequence_length:,} bytes; "
        f"{with_unit(plan.num_bytes)}B of text in all",
        "",
    ]
    heads = ["ranks", "sharing", "accumulation", "recompute", "memory", "bytes/s", "lost", "no overlap", "days", "kWh"]
    rows = [_row(found, plan, note="as given") for found in plan.asked]
    rows += [_row(found, plan, note="fastest") for found in plan.chosen]
    lines += in_columns(heads, rows)
    lines += ["", *_detail(plan, some)]
    return lines + [f"to fit                     {_advice(change)}" for change in plan.advice]


def _row(found: Estimate, plan: MachinePlan, *, note: str) -> list[str]:
    workload, fits = found.workload, "" if found.fits else " too much"
    shards = workload.shards_of(found.ranks)
    replicas = f" in {found.ranks // shards}" if 1 < shards < found.ranks else ""
    shown = f"{_way(found)}{replicas}" + (f" ({note})" if plan.asked else "")
    settings = [f"{found.ranks:,}", shown, str(workload.accumulation), "yes" if workload.recompute else "no"]
    return [
        *settings,
        f"{with_unit(found.memory.total)}B{fits}",
        f"{with_unit(found.bytes_per_second())}B/s",
        f"{found.communication_share():.1%}",
        f"{found.communication_share(overlap=False):.1%}",
        _few(found.seconds(plan.num_bytes) / DAY),
        _few(found.kilowatt_hours(plan.num_bytes)),
    ]


def _detail(plan: MachinePlan, found: Estimate) -> list[str]:
    parts = ", ".join(
        f"{name.replace('_', ' ')} {with_unit(getattr(found.memory, name))}B"
        for name in found.memory.__dataclass_fields__
    )
    workload, other = found.workload, not found.workload.recompute
    activations = _activations(workload, found.ranks, recompute=other)
    step = found.step_seconds()
    lines = [
        f"memory of a rank           {parts}",
        f"                           activations {'with' if other else 'without'} recompute: {with_unit(activations)}B",
        f"optimiser step             {step:.3g} s: forward {found.forward_seconds:.3g}, backward "
        f"{found.backward_seconds:.3g}, optimiser {found.optimizer_seconds:.3g}, exchange not overlapped "
        f"{found.exposed_seconds:.3g}; {found.model_flops_utilisation():.0%} MFU",
    ]
    for each in found.collectives:
        seconds = f"{each.seconds(plan.machine):.3g} s"
        how = f"{each.kind} over {each.ranks:,}, sends {with_unit(each.sent)}B in {seconds}"
        lines.append(f"                           {each.name}: {how}")
    entropies = found.entropy_seconds(plan.num_bytes)
    return lines + ([f"entropies beforehand       {_few(entropies / DAY)} days"] if entropies else [])


def _advice(change: Change) -> str:
    found = change.estimate
    return (
        f"{change or 'the same settings'} on {found.ranks:,} ranks: {with_unit(found.memory.total)}B per rank, "
        f"{with_unit(found.bytes_per_second())}B/s"
    )


def _activations(workload: Workload, ranks: int, *, recompute: bool) -> int:
    changed = replace(workload, recompute=recompute)
    return activation_bytes(
        changed.model,
        batch_bytes=changed.bytes_of_part(ranks),
        mean_patch_bytes=changed.mean_patch_bytes,
        recompute=recompute,
        bfloat16=changed.bfloat16,
    )


def _way(found: Estimate) -> str:
    return found.workload.parallel if found.ranks > 1 else "alone"


def _few(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
