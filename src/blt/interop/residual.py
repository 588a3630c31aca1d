"""A model whose cross-attentions add a state once, as in the paper, made into one that adds it twice, as transformers'.

Once: h + A(h). Twice: 2h + A(h). Where A gives twice as much, the second is twice the first, and all that follows
reads its input through a norm, which scale does not touch. So: double what each cross-attention writes, and what every
layer after it writes, once more after each cross-attention. All factors are powers of two, hence exact.

One thing is not: a norm divides by √(mean square + ε), and ε does not grow with the states. transformers has one ε for
a whole stack, which is chosen here to be right for the states after the first cross-attention. In encoder and global
transformer nothing differs; in the decoder, the first cross-attention's queries see 4ε in place of ε, and from the
second on norms see ε/4, ε/16, … Against states of ordinary size that is nothing: about ε / (2 · mean square).
"""

import dataclasses
from typing import TypeVar

from blt.lm import LMConfig
from blt.nn import TransformerConfig
from blt.shapes import Tensor

Shape = TypeVar("Shape", bound=TransformerConfig)


def double_residual(config: LMConfig, weights: dict[str, Tensor]) -> tuple[LMConfig, dict[str, Tensor]]:
    """Return a model that adds states twice and predicts the same; see this module for how nearly.

    Args:
        config: shape of the model.
        weights: of the `ByteLM`, by name; left as they are.
    """
    if config.blt.cross_attention_residual == "twice":
        return config, weights
    blt = config.blt
    doubled = dict(weights)

    def scale(name: str, factor: float) -> None:
        doubled[f"{name}.weight"] = doubled[f"{name}.weight"] * factor

    scale("blt.local_encoder.cross_attention.output", 2.0)  # the k vectors of each patch are twice as large
    scale("blt.local_decoder.from_global", 2.0)  # and so are those that bytes read, as ε is four times as large there
    latent = blt.global_transformer
    if "blt.local_encoder.to_global.weight" in weights:
        scale("blt.local_encoder.to_global", 0.5)
    else:  # the k vectors are the patch state
        latent = _with_epsilon(latent, factor=4.0)
        for index in range(latent.num_layers):
            _scale_layer(doubled, f"blt.global_transformer.layers.layers.{index}", 2.0)
        scale("blt.local_decoder.from_global", 0.5)
    factor = 1.0
    for index in range(blt.local_decoder.num_layers):
        if f"blt.local_decoder.cross_attentions.{index}.output.weight" in weights:
            factor *= 2.0
            scale(f"blt.local_decoder.cross_attentions.{index}.output", factor)
        _scale_layer(doubled, f"blt.local_decoder.layers.layers.{index}", factor)
    shape = dataclasses.replace(
        blt,
        cross_attention_residual="twice",
        global_transformer=latent,
        local_decoder=_with_epsilon(blt.local_decoder, factor=4.0),
    )
    return dataclasses.replace(config, blt=shape), doubled


def _scale_layer(weights: dict[str, Tensor], layer: str, factor: float) -> None:
    """Multiply what a layer adds to the states."""
    for name in (f"{layer}.attention.output.weight", f"{layer}.feed_forward.down.weight"):
        weights[name] = weights[name] * factor


def _with_epsilon(shape: Shape, *, factor: float) -> Shape:
    return dataclasses.replace(shape, norm_epsilon=shape.norm_epsilon * factor)
