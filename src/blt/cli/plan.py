"""`blt plan`: parameters, FLOPs per byte and memory, from a configuration alone."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import click

from blt.cli.options import json_option, model_option, read_recipe
from blt.cli.types import Count, Name, Number
from blt.entropy import EntropyConfig
from blt.errors import ConfigurationError
from blt.lm.folder import download, read_config
from blt.model import PRESETS, BLTConfig, entropy_preset, preset
from blt.model.cost import Cost, PartCost, cost_of, with_unit
from blt.model.memory import DecodingMemory, TrainingMemory, decoding_memory, training_memory

MEAN_PATCH_BYTES = 4.4
CONTEXT_BYTES = 512
BATCH_ROWS = 16.0


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be worked out, and for which texts."""

    title: str
    blt: BLTConfig
    entropy_model: EntropyConfig | None
    mean_patch_bytes: float = MEAN_PATCH_BYTES
    context_bytes: int = CONTEXT_BYTES
    batch_rows: float = BATCH_ROWS
    optimizer: Literal["adamw", "muon"] = "adamw"
    sparse_ngrams: bool = False
    accumulation: int = 1
    training_bytes: int | None = None


@click.command()
@click.argument("recipe", type=Name(), required=False, metavar="[RECIPE.toml]")
@click.option("--preset", "preset_name", metavar="NAME", help=f"One of {', '.join(PRESETS)}.")
@model_option
@click.option("--mean-patch", type=Number(min=1), help="Bytes per patch; the recipe's, or 4.4.")
@click.option("--context", type=Count(), help="Bytes of a document; the recipe's sequence length, or 512.")
@json_option
def plan(
    recipe: str | None,
    preset_name: str | None,
    model: str | None,
    mean_patch: float | None,
    context: int | None,
    as_json: bool,
) -> None:
    """Show parameters, FLOPs per byte and memory from a configuration alone.

    Takes a recipe, a preset or a model; nothing is built and no weights are read. FLOPs follow the paper's accounting:
    matmuls only, embeddings cost nothing, training costs three times the forward pass.
    """
    planned = _planned(recipe, preset_name, model, mean_patch=mean_patch, context=context)
    cost = cost_of(
        planned.blt,
        mean_patch_bytes=planned.mean_patch_bytes,
        context_bytes=planned.context_bytes,
        entropy_model=planned.entropy_model,
    )
    training, decoding = _training_memory(planned), _decoding_memory(planned)
    if as_json:
        click.echo(json.dumps(_as_json(planned, cost, training, decoding)))
    else:
        click.echo("\n".join(_table(planned, cost, training, decoding)))


def _planned(
    recipe: str | None, preset_name: str | None, model: str | None, *, mean_patch: float | None, context: int | None
) -> _Plan:
    """Find the one configuration that was asked for; the bundled model's if none was."""
    if sum(choice is not None for choice in (recipe, preset_name, model)) > 1:
        raise ConfigurationError("RECIPE.toml, --preset and --model: give one of them")
    given: dict[str, Any] = {"mean_patch_bytes": mean_patch, "context_bytes": context}
    given = {key: value for key, value in given.items() if value is not None}
    if recipe is not None:
        return _Plan(**_from_recipe(recipe) | given)
    if preset_name is not None:
        shape, entropy_model = preset(preset_name), entropy_preset(preset_name)
        return _Plan(title=f"preset {preset_name}", blt=shape, entropy_model=entropy_model, **given)
    config = read_config(download(model))
    title = f"model {model or '(bundled)'}"
    return _Plan(title=title, blt=config.blt, entropy_model=config.entropy_model, **given)


def _from_recipe(path: str) -> dict[str, Any]:
    from blt.configuration import tag_of

    recipe = read_recipe(path)
    loop, patching = recipe.blt.loop, recipe.patching
    start = None if recipe.start_from is None else read_config(download(recipe.start_from))
    entropy_model = None if start is None else start.entropy_model
    return {
        "title": f"recipe {path}",
        "blt": recipe.blt.model or (start and start.blt),
        "entropy_model": entropy_model if recipe.entropy is None else recipe.entropy.model,
        "mean_patch_bytes": (patching and patching.mean_patch_bytes) or MEAN_PATCH_BYTES,
        "context_bytes": loop.sequence_length,
        "batch_rows": loop.batch_size / loop.accumulation,
        "optimizer": tag_of(loop.optimizer),
        "sparse_ngrams": recipe.blt.sparse_ngrams,
        "accumulation": loop.accumulation,
        "training_bytes": loop.num_steps * loop.batch_size * loop.sequence_length,
    }


def _training_memory(planned: _Plan) -> TrainingMemory:
    return training_memory(
        planned.blt,
        optimizer=planned.optimizer,
        batch_bytes=round(planned.batch_rows * planned.context_bytes),
        mean_patch_bytes=planned.mean_patch_bytes,
        entropy_model=planned.entropy_model,
        sparse_ngrams=planned.sparse_ngrams,
        accumulation=planned.accumulation,
    )


def _decoding_memory(planned: _Plan) -> DecodingMemory:
    return decoding_memory(
        planned.blt,
        context_bytes=planned.context_bytes,
        mean_patch_bytes=planned.mean_patch_bytes,
        entropy_model=planned.entropy_model,
    )


def _as_json(planned: _Plan, cost: Cost, training: TrainingMemory, decoding: DecodingMemory) -> dict[str, Any]:
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
        "training_memory_bytes": _memory_as_json(training) | {"optimizer_name": planned.optimizer},
        "decoding_memory_bytes": _memory_as_json(decoding),
    }


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
    rows = f"{planned.batch_rows:g} rows of {planned.context_bytes:,} bytes"
    held = [f"{name} {with_unit(getattr(training, name))}B" for name in training.__dataclass_fields__]
    lines.append(f"memory in training         {with_unit(training.total)}B: {', '.join(held)} (estimate, {rows})")
    caches = f"weights {with_unit(decoding.weights)}B, caches {with_unit(decoding.caches)}B per text"
    lines.append(f"memory in decoding         {with_unit(decoding.total)}B: {caches}")
    lines.append(f"                           all in float32; {planned.optimizer} moves the weights")
    return lines


def _row(part: PartCost) -> str:
    attention = with_unit(part.attention) if part.attention else "- "
    return f"{_totals(part.name, part.num_parameters, part.flops)}{attention:>18}".rstrip()


def _totals(name: str, num_parameters: int, flops: float) -> str:
    return f"{name:<26}{num_parameters:>16,}{with_unit(flops):>16}"
