"""`blt plan`: parameters, FLOPs per byte, memory and, for a machine, time and energy, from a configuration alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from blt.cli.options import fields_as_options, json_option, model_option, read_recipe, refuse_unread
from blt.cli.plan_machine import MachinePlan, plan_on_machine, read_machine, table
from blt.cli.plan_machine import as_json as machine_as_json
from blt.cli.types import Count, Counts, Name, Number
from blt.configuration import from_dict, tag_of, to_dict, with_overrides
from blt.entropy import EntropyConfig
from blt.errors import ConfigurationError
from blt.lm.folder import download, read_config
from blt.model import PRESETS, BLTConfig, entropy_preset, preset
from blt.model.cost import Cost, PartCost, with_unit
from blt.model.memory import DecodingMemory, TrainingMemory, decoding_memory, training_memory
from blt.planning import MACHINES, Workload, budget_of, warnings_of

if TYPE_CHECKING:
    from blt.training.recipe import BLTStage

MEAN_PATCH_BYTES = 4.4
CONTEXT_BYTES = 512
BATCH_ROWS = 16
BATCH_BYTES = 2**24
"""Of a preset on a machine: large enough for 4,096 ranks."""
MAX_RANKS = 2**16


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be worked out, and for which texts."""

    title: str
    stage: "BLTStage"
    blt: BLTConfig
    entropy_model: EntropyConfig | None
    mean_patch_bytes: float = MEAN_PATCH_BYTES
    context_bytes: int
    training_bytes: int | None = None
    is_recipe: bool = False

    @property
    def rows_at_once(self) -> float:
        """Rows of one forward pass of a single process."""
        rows = self.stage.loop.batch_size / self.stage.loop.accumulation
        return rows if self.is_recipe else min(rows, float(BATCH_ROWS))

    @property
    def workload(self) -> Workload:
        loop = self.stage.loop
        optimizer = tag_of(loop.optimizer)
        return Workload(
            model=self.blt,
            entropy_model=self.entropy_model,
            mean_patch_bytes=self.mean_patch_bytes,
            sequence_length=self.context_bytes,
            batch_size=loop.batch_size,
            accumulation=loop.accumulation,
            optimizer="muon" if optimizer == "muon" else "adamw",
            bfloat16=loop.precision != "float32",
            sparse_ngrams=self.stage.sparse_ngrams,
            parallel=loop.parallel,
            shards=loop.shards,
            recompute=loop.recompute,
        )


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("recipe", type=Name(), required=False, metavar="[RECIPE.toml]")
@click.option("--preset", "preset_name", metavar="NAME", help=f"One of {', '.join(PRESETS)}.")
@model_option
@click.option("--mean-patch", type=Number(min=1), help="Bytes per patch; the recipe's, or 4.4.")
@click.option("--context", type=Count(), help="Bytes of a document; the recipe's sequence length, or 512.")
@click.option("--machine", metavar="NAME|FILE.toml", type=Name(), help=f"One of {', '.join(MACHINES)}, or your own.")
@click.option(
    "--ranks", metavar="N[,N…]", type=Counts(max=MAX_RANKS), help="GPUs, or processes; one node's by default."
)
@click.option("--bytes", "num_bytes", type=Number(min=1), help="Text to train on; the recipe's, or 60 per parameter.")
@json_option
@click.pass_context
def plan(
    context_of_verb: click.Context,
    recipe: str | None,
    preset_name: str | None,
    model: str | None,
    mean_patch: float | None,
    context: int | None,
    machine: str | None,
    ranks: tuple[int, ...] | None,
    num_bytes: float | None,
    as_json: bool,
) -> None:
    """Show parameters, FLOPs per byte and memory from a configuration alone.

    Takes a recipe, a preset or a model; nothing is built and no weights are read. FLOPs follow the paper's accounting:
    matmuls only, embeddings cost nothing, training costs three times the forward pass.

    With --machine also memory per rank, speed, days, energy, and what is lost to communication, for DDP and FSDP. Any
    field can be set besides, such as --blt.loop.parallel fsdp or --machine.utilisation 0.5.
    """
    reason = "only a plan for a machine has it; give --machine too"
    refuse_unread(context_of_verb, "ranks", "num_bytes", unless=machine is not None, reason=reason)
    arguments = list(context_of_verb.args)
    if recipe is not None and recipe.startswith("--"):  # a field, since no recipe was given
        arguments, recipe = [recipe, *arguments], None
    overrides, figures = _overrides(arguments, machine)
    planned = _planned(
        recipe,
        preset_name,
        model,
        mean_patch=mean_patch,
        context=context,
        overrides=overrides,
        is_large=machine is not None,
    )
    workload = planned.workload
    on_machine = None
    if machine is not None:
        num_bytes = num_bytes or planned.training_bytes or budget_of(workload)
        on = read_machine(machine, figures)
        counts = ranks or (on.ranks_per_node,)
        on_machine = plan_on_machine(
            workload, name=machine, on=on, ranks=counts, num_bytes=num_bytes, is_given=planned.is_recipe
        )
    read = num_bytes or planned.training_bytes
    warnings = [] if read is None else warnings_of(workload, num_bytes=read)
    cost, training, decoding = workload.cost, _training_memory(planned), _decoding_memory(planned)
    if as_json:
        click.echo(json.dumps(_as_json(planned, cost, training, decoding, on_machine, warnings)))
    else:
        lines = _table(planned, cost, training, decoding)
        lines += [] if on_machine is None else ["", *table(on_machine)]
        click.echo("\n".join([*lines, *(f"warning: {line}" for line in warnings)]))


def _overrides(arguments: list[str], machine: str | None) -> tuple[dict[str, object], dict[str, object]]:
    """Divide fields that were set on the command line: those of the recipe, and figures of the machine."""
    overrides = fields_as_options(arguments)
    figures = {
        name.removeprefix("machine."): overrides.pop(name) for name in list(overrides) if name.startswith("machine.")
    }
    if figures and machine is None:
        raise ConfigurationError(f"--machine.{next(iter(figures))}: no --machine is given whose figure it could be")
    return overrides, figures


def _planned(
    recipe: str | None,
    preset_name: str | None,
    model: str | None,
    *,
    mean_patch: float | None,
    context: int | None,
    overrides: Mapping[str, object],
    is_large: bool,
) -> _Plan:
    """Find the one configuration that was asked for; the bundled model's if none was."""
    if sum(choice is not None for choice in (recipe, preset_name, model)) > 1:
        raise ConfigurationError("RECIPE.toml, --preset and --model: give one of them")
    given: dict[str, Any] = {"mean_patch_bytes": mean_patch, "context_bytes": context}
    given = {key: value for key, value in given.items() if value is not None}
    if recipe is not None:
        return _Plan(**_from_recipe(recipe, overrides) | given)
    if preset_name is not None:
        title, shape = f"preset {preset_name}", preset(preset_name)
        given["entropy_model"] = entropy_preset(preset_name)
    else:
        config = read_config(download(model))
        title, shape = f"model {model or '(bundled)'}", config.blt
        given["entropy_model"] = config.entropy_model
    length = context or CONTEXT_BYTES
    rows = max(1, BATCH_BYTES // length) if is_large else BATCH_ROWS
    stage = _stage(shape, {"batch_size": rows, "sequence_length": length}, overrides)
    assert stage.model is not None
    given["context_bytes"] = stage.loop.sequence_length
    return _Plan(title=title, stage=stage, blt=stage.model, **given)


def _stage(shape: BLTConfig, loop: dict[str, int], overrides: Mapping[str, object]) -> "BLTStage":
    """Return a stage for a shape that comes without a recipe."""
    from blt.training.recipe import BLTStage

    for name in overrides:
        if not name.startswith("blt."):
            raise ConfigurationError(f"--{name}: only fields of blt can be set without a recipe")
    values = {"model": to_dict(shape), "loop": {"num_steps": 1} | loop}
    fields = {name.removeprefix("blt."): value for name, value in overrides.items()}
    stage: BLTStage = from_dict(BLTStage, with_overrides(values, fields), where="blt")
    return stage


def _from_recipe(path: str, overrides: Mapping[str, object]) -> dict[str, Any]:
    recipe = read_recipe(path, overrides=overrides)
    loop, patching = recipe.blt.loop, recipe.patching
    start = None if recipe.start_from is None else read_config(download(recipe.start_from))
    entropy_model = None if start is None else start.entropy_model
    return {
        "title": f"recipe {path}",
        "stage": recipe.blt,
        "blt": recipe.blt.model or (start and start.blt),
        "entropy_model": entropy_model if recipe.entropy is None else recipe.entropy.model,
        "mean_patch_bytes": (patching and patching.mean_patch_bytes) or MEAN_PATCH_BYTES,
        "context_bytes": loop.sequence_length,
        "training_bytes": loop.num_steps * loop.batch_size * loop.sequence_length,
        "is_recipe": True,
    }


def _training_memory(planned: _Plan) -> TrainingMemory:
    workload = planned.workload
    return training_memory(
        planned.blt,
        optimizer=workload.optimizer,
        batch_bytes=round(planned.rows_at_once * planned.context_bytes),
        mean_patch_bytes=planned.mean_patch_bytes,
        entropy_model=planned.entropy_model,
        sparse_ngrams=workload.sparse_ngrams,
        accumulation=workload.accumulation,
        recompute=workload.recompute,
    )


def _decoding_memory(planned: _Plan) -> DecodingMemory:
    return decoding_memory(
        planned.blt,
        context_bytes=planned.context_bytes,
        mean_patch_bytes=planned.mean_patch_bytes,
        entropy_model=planned.entropy_model,
    )


def _as_json(
    planned: _Plan,
    cost: Cost,
    training: TrainingMemory,
    decoding: DecodingMemory,
    on_machine: MachinePlan | None,
    warnings: list[str],
) -> dict[str, Any]:
    parts = [*cost.parts, *([] if cost.entropy_model is None else [cost.entropy_model])]
    return {
        "title": planned.title,
        "mean_patch_bytes": cost.mean_patch_bytes,
        "context_bytes": cost.context_bytes,
        "num_parameters": cost.num_parameters,
        "num_parameters_without_embeddings": cost.num_parameters_without_embeddings,
        "flops_per_byte": cost.flops,
        "flops_per_byte_with_entropy_model": cost.flops_with_entropy_model,
        "training_flops_per_byte": cost.training_flops,
        "training_flops_per_byte_with_entropy_model": cost.training_flops_with_entropy_model,
        "training_bytes": planned.training_bytes,
        "parts": {part.name: _part_as_json(part) for part in parts},
        "training_memory_bytes": _memory_as_json(training) | {"optimizer_name": planned.workload.optimizer},
        "decoding_memory_bytes": _memory_as_json(decoding),
        "warnings": warnings,
    } | ({} if on_machine is None else {"machine": machine_as_json(on_machine)})


def _part_as_json(part: PartCost) -> dict[str, Any]:
    return {
        "num_parameters": part.num_parameters,
        "flops_in_products": part.products,
        "flops_in_attention": part.attention,
    }


def _memory_as_json(memory: TrainingMemory | DecodingMemory) -> dict[str, Any]:
    return {name: getattr(memory, name) for name in memory.__dataclass_fields__} | {"total": memory.total}


def _table(planned: _Plan, cost: Cost, training: TrainingMemory, decoding: DecodingMemory) -> list[str]:
    conditions = f"{cost.mean_patch_bytes:g} bytes per patch, {cost.context_bytes:,} bytes of context"
    lines = [f"{planned.title}: {conditions}", ""]
    lines.append(f"{'':<26}{'parameters':>16}{'FLOPs per byte':>16}{'of it attention':>18}")
    lines += [_row(part) for part in cost.parts]
    lines.append(_totals("BLT", cost.num_parameters, cost.flops))
    lines.append(_totals("  without embeddings", cost.num_parameters_without_embeddings, cost.flops))
    if cost.entropy_model is not None:
        lines.append(_row(cost.entropy_model))
        together = cost.num_parameters + cost.entropy_model.num_parameters
        lines.append(_totals("with the entropy model", together, cost.flops_with_entropy_model))
    lines += ["", f"training, per byte         {with_unit(cost.training_flops)}FLOPs (backward = 2 × forward)"]
    if planned.training_bytes is not None:
        total = cost.training_flops_with_entropy_model * planned.training_bytes
        lines.append(f"training, in all           {with_unit(total)}FLOPs for {planned.training_bytes:,} bytes")
    rows = f"{planned.rows_at_once:g} rows of {planned.context_bytes:,} bytes"
    held = [f"{name} {with_unit(getattr(training, name))}B" for name in training.__dataclass_fields__]
    lines.append(f"memory in training         {with_unit(training.total)}B: {', '.join(held)} (estimate, {rows})")
    caches = f"weights {with_unit(decoding.weights)}B, caches {with_unit(decoding.caches)}B per text"
    lines.append(f"memory in decoding         {with_unit(decoding.total)}B: {caches}")
    lines.append(f"                           all in float32; {planned.workload.optimizer} moves the weights")
    return lines


def _row(part: PartCost) -> str:
    attention = with_unit(part.attention) if part.attention else "- "
    return f"{_totals(part.name, part.num_parameters, part.flops)}{attention:>18}".rstrip()


def _totals(name: str, num_parameters: int, flops: float) -> str:
    return f"{name:<26}{num_parameters:>16,}{with_unit(flops):>16}"
