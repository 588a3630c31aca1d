"""Constants of the build spec, taken from the code; a page says `{{ constants NAME }}`."""

import re
from collections.abc import Callable

from records import markdown

from blt.configuration import to_dict
from blt.evaluation import WINDOW
from blt.model import PRESETS, HashConfig
from blt.model.cost import cost_of
from blt.nn import TransformerConfig
from blt.nn.configuration import FEED_FORWARD_MULTIPLE
from blt.ops import PRIMES
from blt.ops.muon import COEFFICIENTS
from blt.training.optimizers import AdamWConfig, MuonConfig

_CONSTANT = re.compile(r"\{\{ constants (\w+) \}\}")
_SHAPE = TransformerConfig(dim=8, num_layers=1, num_heads=1)


def fill(text: str) -> str:
    """Replace every constant that a page asks for."""
    return _CONSTANT.sub(lambda match: CONSTANTS[match[1]](), text)


def primes() -> str:
    """Bases of the hash functions."""
    return "`" + "`, `".join(map(str, PRIMES)) + "`"


def polynomials() -> str:
    """Coefficients of Muon's iterations."""
    rows = [[str(number), *map(repr, row)] for number, row in enumerate(COEFFICIENTS, start=1)]
    return markdown(["iteration", "a", "b", "c"], rows)


def presets() -> str:
    """Every named shape."""
    rows = []
    for name, shape in PRESETS.items():
        stacks = (shape.local_encoder, shape.global_transformer, shape.local_decoder)
        layers = [f"{stack.num_layers} × {stack.dim}, {stack.num_heads} heads" for stack in stacks]
        tables = f"{len(shape.hash_embedding.ngram_sizes)} × {shape.hash_embedding.num_rows:,}"
        details = [str(shape.local_encoder.window), tables, str(shape.queries_per_patch), shape.decoder_cross_attention]
        rows.append([f"`{name}`", *layers, *details, "yes" if shape.tie_embeddings else "no"])
    header = ["preset", "encoder", "global", "decoder", "window", "n-gram rows", "k", "cross-attention", "tied"]
    return markdown(header, rows)


def sizes() -> str:
    """Parameters and FLOPs of every named shape."""
    rows = []
    for name, shape in PRESETS.items():
        cost = cost_of(shape, mean_patch_bytes=4.4, context_bytes=512)
        counts = (cost.num_parameters, cost.num_parameters_without_embeddings)
        rows.append([f"`{name}`", *(f"{count:,}" for count in counts), f"{cost.flops / 1e6:,.2f}"])
    header = ["preset", "parameters", "without embeddings", "forward MFLOPs per byte at 4.4 bytes per patch, 512 bytes"]
    return markdown(header, rows)


def optimizer(config: AdamWConfig | MuonConfig) -> str:
    """Defaults of an optimiser."""
    fields = {name: value for name, value in to_dict(config).items() if name not in ("type", "adamw")}
    return "Defaults: " + ", ".join(f"`{name}` {value}" for name, value in fields.items()) + "."


CONSTANTS: dict[str, Callable[[], str]] = {
    "adamw": lambda: optimizer(AdamWConfig()),
    "epsilon": lambda: f"ε = {_SHAPE.norm_epsilon:g} by default",
    "multiple": lambda: str(FEED_FORWARD_MULTIPLE),
    "muon": lambda: optimizer(MuonConfig()),
    "polynomials": polynomials,
    "presets": presets,
    "primes": primes,
    "rows": lambda: f"{HashConfig().num_rows:,}",
    "sizes": sizes,
    "window": lambda: str(WINDOW),
}
"""Every constant by the name that pages call it."""
