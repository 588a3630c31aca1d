"""Patch rules: when a patch is complete.

Every rule sees one thing, `Seen`: what is known once a byte has been read. The same rule is therefore asked about all
bytes of a batch at once (`patch`) or about one byte per row (`OnlinePatcher`), and cannot answer differently.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID
from blt.configuration import check, shown, variant
from blt.errors import ConfigurationError
from blt.patching.patches import Patches
from blt.shapes import Bool, Float, Int, Tensor

MAX_LENGTH = 2**31
"""The longest that patches may be told to be, in bytes."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known once a byte has been read: for all bytes of a batch (`B T`), or for one byte per row (`B`).

    A row starts as if an EOS stood before it: no patch is open, and no byte of its document has been read.
    """

    byte_ids: Int[Tensor, "*S"]
    """The byte just read."""
    previous_ids: Int[Tensor, "*S"]
    """The byte before it; EOS before the start of a row."""
    since_boundary: Int[Tensor, "*S"]
    """Bytes read since the last BOS or EOS, or since the start of the row; 0 at a BOS or EOS itself."""
    entropies: Float[Tensor, "*S"]
    """Uncertainty about the next byte, in nats; 0 where the rule needs none."""
    previous_entropies: Float[Tensor, "*S"]
    """The entropy one byte earlier; without meaning after an EOS, where a document starts."""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What all rules share."""

    max_length: int | None = None
    """Cut patches that are longer than this many bytes; None means patches may be of any length."""

    needs_entropies: ClassVar[bool] = False
    """Whether the rule looks at entropies."""

    def __post_init__(self) -> None:
        check(
            self.max_length is None or 1 <= self.max_length <= MAX_LENGTH,
            f"max_length: a patch holds at least 1 byte, got {shown(self.max_length)}; leave it out for patches of any "
            "length",
        )

    def completes(self, seen: Seen) -> Bool[Tensor, "*S"]:
        """Return where the rule itself ends a patch, document boundaries and `max_length` aside."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _ThresholdRule(_Rule):
    """A rule that ends a patch wherever a score exceeds a threshold; `calibrate` can find the threshold."""

    threshold: float
    """The global threshold θ, in nats, compared in float32; the higher, the longer the patches."""

    needs_entropies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_finite("threshold", self.threshold)

    def score(self, seen: Seen) -> Float[Tensor, "*S"]:
        """Return what is compared with the threshold; −inf where the rule ends no patch at any threshold."""
        raise NotImplementedError

    def completes(self, seen: Seen) -> Bool[Tensor, "*S"]:
        """Return where the score exceeds the threshold."""
        return self.score(seen) > self.threshold


@variant("entropy")
@dataclass(frozen=True, kw_only=True)
class EntropyRule(_ThresholdRule):
    """End a patch wherever the next byte will be hard to predict: H_t > θ (paper, section 2.3)."""

    def score(self, seen: Seen) -> Float[Tensor, "*S"]:
        """Return H_t."""
        return seen.entropies


@variant("entropy-rise")
@dataclass(frozen=True, kw_only=True)
class EntropyRiseRule(_ThresholdRule):
    """End a patch wherever the entropy rises: H_t − H_{t−1} > θ (paper, section 2.3).

    The first byte of a document or row has no entropy before it, and ends no patch by this rule.
    """

    def score(self, seen: Seen) -> Float[Tensor, "*S"]:
        """Return H_t − H_{t−1}."""
        return _rise(seen)


@variant("entropy-and-rise")
@dataclass(frozen=True, kw_only=True)
class EntropyAndRiseRule(_ThresholdRule):
    """End a patch wherever the entropy is high and has risen: H_t > θ and H_t − H_{t−1} > rise_threshold."""

    rise_threshold: float
    """How much the entropy must rise from one byte to the next, in nats; calibration leaves it as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_finite("rise_threshold", self.rise_threshold)

    def score(self, seen: Seen) -> Float[Tensor, "*S"]:
        """Return H_t where it has risen enough."""
        return torch.where(_rise(seen) > self.rise_threshold, seen.entropies, -math.inf)


@variant("space")
@dataclass(frozen=True, kw_only=True)
class SpaceRule(_Rule):
    """End a patch after the first of one or more space-like bytes (SpaceByte, arXiv 2404.14408, section 3).

    A byte is space-like when it is not an ASCII letter, a digit or a UTF-8 continuation byte; special ids are
    space-like too. (So is the leading byte of a multi-byte character, as in SpaceByte.)
    """

    def completes(self, seen: Seen) -> Bool[Tensor, "*S"]:
        """Return where a space-like byte follows one that is not."""
        return _is_space_like(seen.byte_ids) & ~_is_space_like(seen.previous_ids)


@variant("static")
@dataclass(frozen=True, kw_only=True)
class StaticRule(_Rule):
    """End a patch every `length` bytes, counted from the document's BOS, which is a patch of its own (MegaByte)."""

    length: int
    """Bytes per patch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_length = 1 <= self.length <= MAX_LENGTH
        check(is_length, f"length: a patch holds at least 1 byte, got {shown(self.length)}; at most {MAX_LENGTH:,}")

    def completes(self, seen: Seen) -> Bool[Tensor, "*S"]:
        """Return where another `length` bytes have been read."""
        return seen.since_boundary % self.length == 0


@variant("byte")
@dataclass(frozen=True, kw_only=True)
class ByteRule(_Rule):
    """End a patch after every byte."""

    def completes(self, seen: Seen) -> Bool[Tensor, "*S"]:
        """Return True everywhere."""
        return torch.ones_like(seen.byte_ids, dtype=torch.bool)


PatchRule = EntropyRule | EntropyRiseRule | EntropyAndRiseRule | SpaceRule | StaticRule | ByteRule
"""Every patch rule; `type` chooses one in a recipe."""


def patch(
    byte_ids: Int[Tensor, "B T"],
    rule: PatchRule,
    *,
    entropies: Float[Tensor, "B T"] | None = None,
    slots_multiple: int = 1,
) -> Patches:
    """Divide the rows of a batch into patches.

    A BOS ends its own patch and an EOS ends a patch, whatever the rule says. (A BOS that follows no EOS joins the
    patch that was open: nothing looks ahead.) A row that starts within a document starts with a new patch.

    Args:
        byte_ids: rows of one or more documents; padding at the end of a row changes nothing before it.
        rule: when a patch is complete.
        entropies: uncertainty about the next byte after each byte, in nats; not looked at by a rule without entropies.
        slots_multiple: round the number of patch slots up to a multiple of this.

    Raises:
        ConfigurationError: the rule needs entropies, and there are none, or not one per byte.
    """
    seen = look_back(byte_ids, checked_entropies(byte_ids, rule, entropies=entropies))
    ends = is_boundary(byte_ids) | rule.completes(seen)
    if rule.max_length is not None:
        ends = ends | (open_lengths(ends) % rule.max_length == 0)
    return Patches(ends=ends, slots_multiple=slots_multiple)


def is_boundary(byte_ids: Int[Tensor, "*S"]) -> Bool[Tensor, "*S"]:
    """Return where a document starts or ends: at a BOS or EOS, where every rule ends a patch."""
    return (byte_ids == BOS_ID) | (byte_ids == EOS_ID)


def look_back(byte_ids: Int[Tensor, "B T"], entropies: Float[Tensor, "B T"]) -> Seen:
    """Collect what is known once each byte of a batch has been read."""
    boundary = is_boundary(byte_ids)
    return Seen(
        byte_ids=byte_ids,
        previous_ids=_shift(byte_ids, first=EOS_ID),
        since_boundary=torch.where(boundary, 0, open_lengths(boundary)),
        entropies=entropies,
        previous_entropies=_shift(entropies, first=0),
    )


def open_lengths(ends: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Count the bytes from the start of each byte's patch up to and including that byte: 1, 2, … up to the end."""
    positions = torch.arange(ends.shape[1], device=ends.device).expand(ends.shape)
    if not ends.numel():
        return positions
    last_end = torch.where(ends, positions, -1).cummax(1).values
    return positions - _shift(last_end, first=-1)


def checked_entropies(byte_ids: Int[Tensor, "*S"], rule: PatchRule, *, entropies: Tensor | None) -> Float[Tensor, "*S"]:
    """Return the entropies in float32, in which all rules compare; zeros for a rule that needs none.

    Raises:
        ConfigurationError: the rule needs entropies, and there are none, or not one per byte.
    """
    if not rule.needs_entropies:
        return torch.zeros_like(byte_ids, dtype=torch.float32)
    if entropies is None:
        raise ConfigurationError(
            f"{type(rule).__name__} needs entropies, and got none; pass those of an entropy model, "
            "or choose a rule of type 'space', 'static' or 'byte'"
        )
    if entropies.shape != byte_ids.shape:
        expected, got = tuple(byte_ids.shape), tuple(entropies.shape)
        raise ConfigurationError(f"entropies: expected one per byte, of shape {expected}, got shape {got}")
    return entropies.float()


def _shift(values: Tensor, *, first: int) -> Tensor:
    """Move every value of a row one byte later; `first` stands before the row."""
    return torch.nn.functional.pad(values, (1, 0), value=first)[:, :-1]


def _rise(seen: Seen) -> Float[Tensor, "*S"]:
    return torch.where(seen.previous_ids != EOS_ID, seen.entropies - seen.previous_entropies, -math.inf)


def _is_space_like(byte_ids: Int[Tensor, "*S"]) -> Bool[Tensor, "*S"]:
    is_part_of_word = torch.zeros_like(byte_ids, dtype=torch.bool)
    for first, last in ((ord("a"), ord("z")), (ord("A"), ord("Z")), (ord("0"), ord("9")), (0x80, 0xBF)):
        is_part_of_word |= (byte_ids >= first + BYTE_OFFSET) & (byte_ids <= last + BYTE_OFFSET)
    return ~is_part_of_word


def _check_finite(name: str, value: float) -> None:
    check(math.isfinite(value), f"{name}: expected a finite number of nats, got {value}")
