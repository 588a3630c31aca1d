"""Figures that are no numbers, which no command may pass on as results."""

import torch

from blt.codec import encode
from blt.errors import ModelFolderError
from blt.lm.language_model import LanguageModel
from blt.shapes import Tensor

PARAGRAPH = """\
Once upon a time there was a little boat on a big blue lake. Every morning the boat said, “Good day, sun!” and the \
sun smiled back. One day Zoë, who was 7½, and her brother Tomás found a hole in its side. "Don't worry," said Zoë; \
"we can mend it." They took some wood, some glue, and a café spoon – and by noon the boat was as good as new.
The fish clapped their fins: 魚も喜びました。 🐟
"""
"""A text that models are tried on: words, digits, punctuation, and characters of one to four bytes."""


def require_finite(figures: Tensor, what: str) -> None:
    """Refuse figures of a model that are not finite.

    Args:
        figures: logits, nats or entropies.
        what: their name, in the plural.

    Raises:
        ModelFolderError: at least one is NaN or infinite.
    """
    broken = figures[~figures.isfinite()]
    if len(broken):
        raise ModelFolderError(
            f"{what} of the model are not finite ({float(broken[0])}): its weights are broken, or need float32"
        )


@torch.inference_mode()
def require_finite_model(lm: LanguageModel, text: str | bytes) -> None:
    """Refuse a model whose entropies or logits on a text are not finite.

    Raises:
        ModelFolderError: they are not.
    """
    byte_ids = encode(text, bos=True).to(lm.device)[None]
    entropies = lm.entropies(byte_ids)
    if entropies is not None:
        require_finite(entropies, "entropies")
    require_finite(lm(byte_ids), "logits")
