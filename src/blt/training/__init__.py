"""Training: a recipe's stages, one after the other: entropy model → threshold → BLT.

In: shards written by `blt prepare` and a recipe. Out: a run folder with checkpoints, metrics, curves and, at the end,
a model folder. Next: `blt.lm.ByteLM.from_pretrained` on that folder.
"""

from blt.training.loop import Stopped
from blt.training.pipeline import run_recipe
from blt.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "Stopped", "load_recipe", "run_recipe"]
