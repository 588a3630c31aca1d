"""The arithmetic of a stage, printed before it starts."""

from blt.data import Shards
from blt.training.recipe import BLTStage, EntropyStage, LoopConfig


def describe_entropy_stage(stage: EntropyStage, shards: Shards) -> str:
    """Say what the entropy model costs and sees."""
    return f"entropy model\n{_describe_loop(stage.loop, shards)}"


def describe_blt_stage(stage: BLTStage, shards: Shards, *, mean_patch_bytes: float) -> str:
    """Say what the BLT costs and sees."""
    return f"BLT at {mean_patch_bytes:.2f} bytes per patch\n{_describe_loop(stage.loop, shards)}"


def _describe_loop(loop: LoopConfig, shards: Shards) -> str:
    per_step = loop.rows * loop.window
    seen = per_step * loop.num_steps
    return (
        f"  {loop.rows} rows × {loop.window} bytes = {per_step:,} bytes per step, {loop.num_steps:,} steps, "
        f"{seen / 1e6:,.1f} MB in all\n"
        f"  data: {shards.num_documents:,} documents, {shards.num_bytes / 1e6:,.1f} MB: "
        f"{seen / max(1, shards.num_ids):,.2f} epochs"
    )
