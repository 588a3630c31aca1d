"""Stages 4 to 6: the Byte Latent Transformer itself.

In: byte ids `B T` and their `Patches`. Out: logits `B T V`, float32; `logits[b, t]` predict byte t + 1.
Next: `blt.lm`, which joins it with an entropy model and a patch rule.
"""

from blt.model.blt import BLT
from blt.model.configuration import BLTConfig, HashConfig
from blt.model.incremental import BLTState, RowPosition
from blt.model.presets import ENTROPY_PRESETS, PRESETS, entropy_preset, preset
from blt.nn import LocalConfig, TransformerConfig

__all__ = [
    "BLT",
    "ENTROPY_PRESETS",
    "PRESETS",
    "BLTConfig",
    "BLTState",
    "HashConfig",
    "LocalConfig",
    "RowPosition",
    "TransformerConfig",
    "entropy_preset",
    "preset",
]
