"""The shape of a BLT. Devices, seeds and paths belong elsewhere; so does the patch rule."""

from dataclasses import dataclass, field
from typing import Literal

from blt.configuration import check, check_range, shown
from blt.nn import LocalConfig, TransformerConfig
from blt.nn.configuration import MAX_ROPE_THETA

MAX_NGRAM = 256
"""Bytes of the longest n-gram that may have a table."""


@dataclass(frozen=True, kw_only=True)
class HashConfig:
    """Tables of hashed n-grams, added to the byte embedding (paper, section 3.2.1)."""

    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Lengths n of the n-grams, in bytes; empty for none."""
    num_rows: int = 4096
    """Rows of each table."""
    num_functions: int = 1
    """Hash functions, each with a table for every n."""

    def __post_init__(self) -> None:
        sizes = shown(self.ngram_sizes)
        check(
            all(2 <= n <= MAX_NGRAM for n in self.ngram_sizes),
            f"ngram_sizes: {sizes}; each from 2 to {MAX_NGRAM}",
        )
        distinct = len(set(self.ngram_sizes)) == len(self.ngram_sizes)
        check(distinct, f"ngram_sizes: {sizes}; each length once")
        check_range("num_rows", self.num_rows, 1, 2**31)
        check(1 <= self.num_functions <= 11, f"num_functions: {self.num_functions}; expected 1 to 11")

    @property
    def num_tables(self) -> int:
        """Number of tables: one for every n of every hash function."""
        return self.num_functions * len(self.ngram_sizes)


@dataclass(frozen=True, kw_only=True)
class BLTConfig:
    """Shape of a Byte Latent Transformer."""

    local_encoder: LocalConfig
    """Bytes → byte states and patch states."""
    global_transformer: TransformerConfig
    """Patch states → latents; holds most parameters."""
    local_decoder: LocalConfig
    """Byte states and latents → logits; as wide as the encoder."""
    hash_embedding: HashConfig = field(default_factory=HashConfig)
    """Tables of hashed n-grams."""
    queries_per_patch: int = 3
    """k: vectors of the encoder's width that represent one patch."""
    decoder_cross_attention: Literal["every", "first"] = "every"
    """Cross-attention from bytes to their patch before every decoder layer, or before the first only."""
    cross_attention_residual: Literal["once", "twice"] = "once"
    """Residual of the cross-attention: the state added once, or twice as in transformers' BLT."""
    tie_embeddings: bool = True
    """Use the byte embedding as the output matrix too."""
    rope_theta: float = 500000.0
    """Base of RoPE."""
    global_rope_theta: float | None = None
    """Base of RoPE in the global transformer; None means `rope_theta`. A pretrained one may need its own."""

    def __post_init__(self) -> None:
        encoder, decoder = self.local_encoder.dim, self.local_decoder.dim
        check(encoder == decoder, f"local_decoder.dim: {decoder} differs from local_encoder.dim, {encoder}")
        check_range("queries_per_patch", self.queries_per_patch, 1, 2**10)
        check_range("rope_theta", self.rope_theta, 1, MAX_ROPE_THETA)
        if self.global_rope_theta is not None:
            check_range("global_rope_theta", self.global_rope_theta, 1, MAX_ROPE_THETA)

    @property
    def num_decoder_cross_attentions(self) -> int:
        """Number of decoder layers that a cross-attention stands before."""
        return self.local_decoder.num_layers if self.decoder_cross_attention == "every" else 1
