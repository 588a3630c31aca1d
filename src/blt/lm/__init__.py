"""Stage 7: one language model, one folder on disk, one thing to load.

In: text or bytes. Out: logits, scores, patches. Next: `blt.generation`, `blt.evaluation`, `blt.inspection`.
"""

from blt.lm.card import CardFigure
from blt.lm.finite import require_finite, require_finite_model
from blt.lm.folder import LMConfig
from blt.lm.language_model import LanguageModel, Score, ShownPatch, fingerprint
from blt.lm.likeliest import likeliest_bytes
from blt.lm.session import DecodingSession, DecodingStep
from blt.lm.static_decoding import StaticConfig

__all__ = [
    "CardFigure",
    "DecodingSession",
    "DecodingStep",
    "LMConfig",
    "LanguageModel",
    "Score",
    "ShownPatch",
    "StaticConfig",
    "fingerprint",
    "likeliest_bytes",
    "require_finite",
    "require_finite_model",
]
