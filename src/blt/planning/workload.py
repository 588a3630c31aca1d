"""What is to be trained, and how ranks share it."""

import functools
from dataclasses import dataclass
from typing import Literal

from blt.configuration import check
from blt.entropy import EntropyConfig
from blt.model import BLTConfig
from blt.model.cost import Cost, cost_of
from blt.planning.weights import possible_shards


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A stage of training; the names are those of a recipe's loop."""

    model: BLTConfig
    """Shape of the BLT."""
    entropy_model: EntropyConfig | None = None
    """Shape of the frozen entropy model, if there is one."""
    mean_patch_bytes: float = 4.4
    """Bytes per patch, on average."""
    sequence_length: int = 512
    """Bytes per row."""
    batch_size: int = 16
    """Rows of a batch, over all ranks and accumulated parts."""
    accumulation: int = 1
    """Parts that a batch is computed in."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What moves the weights."""
    bfloat16: bool = True
    """Whether matmuls are in bfloat16."""
    sparse_ngrams: bool = False
    """Whether the n-gram tables have sparse gradients."""
    parallel: Literal["none", "ddp", "fsdp"] = "ddp"
    """How ranks share the work."""
    shards: int | None = None
    """Ranks of one replica under FSDP; None: all."""
    recompute: bool = False
    """Whether a layer's inner values are computed again in the backward pass."""

    @functools.cached_property
    def cost(self) -> Cost:
        """Parameters and FLOPs per byte."""
        return cost_of(
            self.model,
            mean_patch_bytes=self.mean_patch_bytes,
            context_bytes=self.sequence_length,
            entropy_model=self.entropy_model,
        )

    def is_divided(self, ranks: int) -> bool:
        """Whether weights are divided over ranks."""
        return self.parallel == "fsdp" and ranks > 1

    def shards_of(self, ranks: int) -> int:
        """Return the number of ranks that share out one replica's weights."""
        return (self.shards or ranks) if self.is_divided(ranks) else 1

    def bytes_of_part(self, ranks: int) -> int:
        """Return the bytes of one forward pass of a rank."""
        return self.batch_size // (ranks * self.accumulation) * self.sequence_length

    def check_ranks(self, ranks: int) -> None:
        """Refuse a number of ranks that cannot train this.

        Raises:
            ConfigurationError: rows or weights cannot be shared out evenly.
        """
        check(
            ranks == 1 or self.parallel != "none", f"parallel: 'none', and there are {ranks:,} ranks; say ddp or fsdp"
        )
        parts = ranks * self.accumulation
        check(
            self.batch_size % parts == 0,
            f"batch_size: {self.batch_size:,} is no multiple of {ranks:,} ranks × {self.accumulation:,} parts; "
            f"{-(-self.batch_size // parts) * parts:,} would be",
        )
        shards = self.shards_of(ranks)
        check(ranks % shards == 0, f"shards: {shards:,} does not divide {ranks:,} ranks")
        possible = possible_shards(self.model, ranks)
        check(
            shards in possible,
            f"shards: n-gram tables of width {self.model.local_encoder.dim:,} cannot be divided over {shards:,} ranks; "
            f"give at most {max(number for number in possible if number <= shards):,}, in several replicas",
        )
