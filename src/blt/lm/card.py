"""The model card that a model gets on the Hub where it has none: what is known of it, and nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from blt.configuration import check, tag_of
from blt.lm.folder import LMConfig
from blt.nn import LocalConfig, TransformerConfig

TAGS = ("byte-latent-transformer", "tokenizer-free", "byte-level")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class CardFigure:
    """One measured figure, as `blt evaluate` gives it."""

    text: str
    """Name of the text."""
    protocol: str
    """`documents` or `windows`."""
    bits_per_byte: float
    """Held-out bits per byte."""


def write_card(
    config: LMConfig,
    *,
    name: str,
    num_parameters: int,
    num_entropy_parameters: int,
    license: str | None = None,
    figures: Sequence[CardFigure] = (),
) -> str:
    """Write a model card.

    Args:
        config: shape of the model.
        name: by which it is loaded.
        num_parameters: of the model proper.
        num_entropy_parameters: of its entropy model.
        license: as the Hub abbreviates it, `mit` or `apache-2.0`; None: unknown.
        figures: bits per byte, where they are known.

    Raises:
        ConfigurationError: a licence that is no abbreviation.
    """
    license_name = license or "unknown"
    check(
        _LICENSE.fullmatch(license_name) is not None, f"license: {license!r}; give the Hub's abbreviation, like 'mit'"
    )
    front = ["---", f"license: {license_name}", "library_name: blt", "pipeline_tag: text-generation", "tags:"]
    front += [f"- {tag}" for tag in TAGS] + ["---"]
    size = f"{num_parameters / 1e6:,.1f}M parameters"
    if num_entropy_parameters:
        size += f", with an entropy model of {num_entropy_parameters / 1e6:,.2f}M"
    body = [
        f"# {name}",
        f"A Byte Latent Transformer ([Pagnoni et al. 2024](https://arxiv.org/abs/2412.09871)) of {size}. It reads and "
        "writes raw bytes; there is no tokenizer.",
        "## Load",
        f'```python\nimport blt  # pip install blt-llm\n\nlm = blt.ByteLM.from_pretrained("{name}")\n'
        'print(lm.generate("Once upon a time", max_new_bytes=300).text)\n```',
        f'```\nblt generate --model {name} --prompt "Once upon a time"\n```',
        "## Shape",
        _table(("part", "shape"), _shape_rows(config)),
    ]
    if figures:
        rows = [(one.text, one.protocol, f"{one.bits_per_byte:.4f}") for one in figures]
        body += ["## Held-out bits per byte", _table(("text", "protocol", "bits per byte"), rows)]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"


def _shape_rows(config: LMConfig) -> list[tuple[str, str]]:
    blt, hashing = config.blt, config.blt.hash_embedding
    sizes = ", ".join(map(str, hashing.ngram_sizes))
    tables = f"n = {sizes}; {hashing.num_rows:,} rows each, {hashing.num_functions} hash function(s)"
    rows = [
        ("n-grams", tables if sizes else "none"),
        ("local encoder", _stack(blt.local_encoder)),
        ("global transformer", _stack(blt.global_transformer)),
        ("local decoder", _stack(blt.local_decoder)),
        ("queries per patch", str(blt.queries_per_patch)),
        ("patch rule", _rule(config)),
    ]
    if config.entropy_model is not None:
        rows.append(("entropy model", _stack(config.entropy_model)))
    return rows


def _stack(shape: TransformerConfig) -> str:
    text = f"{shape.num_layers} × {shape.dim}, {shape.num_heads} heads"
    return f"{text}, window of {shape.window} bytes" if isinstance(shape, LocalConfig) else text


def _rule(config: LMConfig) -> str:
    rule = config.patch_rule
    values = ((field.name, getattr(rule, field.name)) for field in fields(rule))
    said = [f"{name} = {value:g}" for name, value in values if value is not None]
    return f"`{tag_of(rule)}`" + (f", {', '.join(said)}" if said else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
