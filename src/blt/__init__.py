"""The Byte Latent Transformer: language models that read raw bytes, with no tokenizer.

import blt
lm = blt.ByteLM.from_pretrained()
print(lm.generate("Once upon a time", max_new_bytes=300, temperature=0.7, seed=0).text)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blt.api import ByteLM
    from blt.lm import LMConfig, Score
    from blt.model import BLT, BLTConfig, preset
    from blt.patching import Patches

__version__ = "0.1.0"

_HOMES = {
    "BLT": "blt.model",
    "BLTConfig": "blt.model",
    "ByteLM": "blt.api",
    "LMConfig": "blt.lm",
    "Patches": "blt.patching",
    "Score": "blt.lm",
    "preset": "blt.model",
}

__all__ = ["BLT", "BLTConfig", "ByteLM", "LMConfig", "Patches", "Score", "__version__", "preset"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `blt --help` does not wait for PyTorch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'blt' has no attribute {name!r}")
