"""The arithmetic of a stage, printed before it starts: what it costs, what it sees, what it needs."""

from dataclasses import asdict

from blt.data import Shards
from blt.entropy import EntropyConfig
from blt.model import BLTConfig
from blt.model.cost import PartCost, cost_of, cost_of_entropy_model, with_unit
from blt.model.memory import training_memory
from blt.training.optimizers import MuonConfig
from blt.training.recipe import BLTStage, EntropyStage, LoopConfig


def describe_entropy_stage(stage: EntropyStage, shards: Shards) -> str:
    """Return lines on the cost of the entropy model and the text that it sees."""
    cost = cost_of_entropy_model(stage.model, context_bytes=stage.loop.sequence_length)
    return "\n".join(
        [
            f"entropy model: {cost.num_parameters:,} parameters, {with_unit(cost.flops)}FLOPs per byte forward",
            *_loop(stage.loop, shards, flops=3 * cost.flops),
        ]
    )


def describe_blt_stage(
    stage: BLTStage,
    shards: Shards,
    *,
    model: BLTConfig,
    entropy_model: EntropyConfig | None,
    mean_patch_bytes: float,
) -> str:
    """Return lines on the cost of the BLT, its memory, and the text that it sees.

    Args:
        stage: of the recipe.
        shards: the text.
        model: shape of the BLT.
        entropy_model: shape of the entropy model, if there is one.
        mean_patch_bytes: bytes per patch, on average.
    """
    loop = stage.loop
    mean_patch_bytes = max(1.0, mean_patch_bytes)
    cost = cost_of(
        model, mean_patch_bytes=mean_patch_bytes, context_bytes=loop.sequence_length, entropy_model=entropy_model
    )
    memory = training_memory(
        model,
        optimizer="muon" if isinstance(loop.optimizer, MuonConfig) else "adamw",
        batch_bytes=loop.batch_size * loop.sequence_length // loop.accumulation,
        mean_patch_bytes=mean_patch_bytes,
        entropy_model=entropy_model,
        sparse_ngrams=stage.sparse_ngrams,
        accumulation=loop.accumulation,
    )
    parts = ", ".join(f"{name} {with_unit(size)}B" for name, size in asdict(memory).items())
    flops = f"  {with_unit(cost.flops)}FLOPs per byte forward, {with_unit(cost.training_flops)}FLOPs in training"
    if entropy_model is not None:
        flops += f"; with the entropy model {with_unit(cost.flops_with_entropy_model)}FLOPs forward"
    return "\n".join(
        [
            f"BLT: {cost.num_parameters:,} parameters, {mean_patch_bytes:.2f} bytes per patch",
            *(_part(part) for part in cost.parts if part.num_parameters or part.flops),
            flops,
            *([f"  trained: {stage.parts}"] if str(stage.parts) else []),
            *_dropped(stage),
            f"  memory: about {with_unit(memory.total)}B ({parts})",
            *_loop(loop, shards, flops=cost.training_flops),
        ]
    )


def _part(part: PartCost) -> str:
    return f"    {part.name:<24} {part.num_parameters:>13,} parameters {with_unit(part.flops):>8}FLOPs per byte"


def _dropped(stage: BLTStage) -> list[str]:
    shares = {"n-grams": stage.ngram_dropout, "a layer's update": stage.layer_dropout}
    return [f"  in training {share:.0%} of positions go without {what}" for what, share in shares.items() if share]


def _loop(loop: LoopConfig, shards: Shards, *, flops: float) -> list[str]:
    per_step = loop.batch_size * loop.sequence_length
    seen = per_step * loop.num_steps
    epochs = seen / shards.num_ids
    return [
        f"  {loop.batch_size} rows × {loop.sequence_length:,} bytes = {per_step:,} bytes per step, "
        f"× {loop.num_steps:,} steps = {with_unit(seen)}B, {with_unit(flops * seen)}FLOPs",
        f"  text: {shards.num_documents:,} documents, {with_unit(shards.num_bytes)}B, read {epochs:,.2f} times",
    ]
