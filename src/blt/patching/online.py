"""Patching one byte at a time, for rows that come and go."""

from typing import NamedTuple

import torch

from blt.codec import EOS_ID
from blt.errors import ConfigurationError
from blt.patching.rules import PatchRule, Seen, checked_entropies, is_boundary, look_back, open_lengths, patch
from blt.shapes import Bool, Float, Int, Tensor


class PatcherState(NamedTuple):
    """What a row must remember: four numbers, whatever the rule and however long the row."""

    previous_ids: Int[Tensor, " B"]
    """The byte last read; EOS before the first."""
    previous_entropies: Float[Tensor, " B"]
    """The entropy after it, in nats."""
    since_boundary: Int[Tensor, " B"]
    """Bytes read since the last BOS or EOS, or since the start of the row."""
    open_lengths: Int[Tensor, " B"]
    """Bytes read since the last patch end."""


class OnlinePatcher:
    """Computes after each byte whether it completes a patch, exactly as `patch` does for the whole row.

    Args:
        rule: when a patch is complete.
        batch: how many rows there are, all of them at their start.
        device: where the bytes will be.
    """

    def __init__(self, rule: PatchRule, *, batch: int, device: torch.device | str | None = None) -> None:
        self.rule = rule
        self._state = _initial_state(batch, device=device)

    @classmethod
    def after(
        cls,
        byte_ids: Int[Tensor, "B T"],
        *,
        lengths: Int[Tensor, " B"],
        rule: PatchRule,
        entropies: Float[Tensor, "B T"] | None = None,
    ) -> "OnlinePatcher":
        """Return the patcher that has read the first `lengths[b]` bytes of each row b; later bytes do not matter.

        Raises:
            ConfigurationError: the rule needs entropies, and there are none, or not one per byte.
        """
        patcher = cls(rule, batch=byte_ids.shape[0], device=byte_ids.device)
        seen = look_back(byte_ids, checked_entropies(byte_ids, rule, entropies=entropies))
        ends = patch(byte_ids, rule, entropies=entropies).ends
        patcher._state = PatcherState(
            previous_ids=_after(seen.byte_ids, lengths, start=EOS_ID),
            previous_entropies=_after(seen.entropies, lengths, start=0),
            since_boundary=_after(seen.since_boundary, lengths, start=0),
            open_lengths=_after(torch.where(ends, 0, open_lengths(ends)), lengths, start=0),
        )
        return patcher

    @property
    def batch(self) -> int:
        """How many rows there are now."""
        return self._state.previous_ids.shape[0]

    def step(
        self,
        byte_ids: Int[Tensor, " R"],
        entropies: Float[Tensor, " R"] | None = None,
        *,
        rows: Int[Tensor, " R"] | None = None,
    ) -> Bool[Tensor, " R"]:
        """Advance some rows by one byte each, and return where it completes a patch.

        Args:
            byte_ids: the byte just read.
            entropies: uncertainty about the byte after it, in nats; not looked at by a rule without entropies.
            rows: which rows read; all by default.

        Raises:
            ConfigurationError: the rule needs entropies, and there are none, or not one per row.
        """
        ends, after = read_byte(self.of(rows), byte_ids, entropies, rule=self.rule)
        self.put(after, rows)
        return ends

    def of(self, rows: Int[Tensor, " R"] | None) -> "PatcherState":
        """Return what is remembered of some rows, or of all."""
        return self._state if rows is None else PatcherState(*(values[rows] for values in self._state))

    def put(self, state: "PatcherState", rows: Int[Tensor, " R"] | None) -> None:
        """Replace the state of some rows, or of all."""
        if rows is None:
            self._state = state
        else:
            pairs = zip(self._state, state, strict=True)
            self._state = PatcherState(*(values.index_copy(0, rows, given) for values, given in pairs))

    def reset(self, rows: Int[Tensor, " R"] | Bool[Tensor, " B"]) -> None:
        """Put some rows, given by number or by mask, back at their start."""
        fresh = _initial_state(1, device=self._state.previous_ids.device)
        for values, start in zip(self._state, fresh, strict=True):
            values[rows] = start.to(values.dtype)

    def append(self, other: "OnlinePatcher") -> None:
        """Add the rows of another patcher with the same rule after one's own.

        Raises:
            ConfigurationError: the other patcher has another rule.
        """
        if other.rule != self.rule:
            raise ConfigurationError(f"rows patched by {other.rule} cannot join rows patched by {self.rule}")
        self._state = PatcherState(*(torch.cat(pair) for pair in zip(self._state, other.of(None), strict=True)))


def read_byte(
    state: PatcherState, byte_ids: Int[Tensor, " R"], entropies: Float[Tensor, " R"] | None, *, rule: PatchRule
) -> tuple[Bool[Tensor, " R"], PatcherState]:
    """Return where one more byte of each row completes a patch, and the state after it.

    Args:
        state: of the rows, before the byte.
        byte_ids: the byte.
        entropies: uncertainty about the byte after it, in nats; not looked at by a rule without entropies.
        rule: when a patch is complete.

    Raises:
        ConfigurationError: the rule needs entropies, and there are none, or not one per row.
    """
    # A rule looks back at most one byte, one entropy, and two counts: bytes since the last BOS or EOS, and bytes in
    # the open patch. Those four numbers are the whole state, so a row costs the same however long it is, and what
    # `patch` computes by scans over a row is here one update of each number.
    boundary = is_boundary(byte_ids)
    seen = Seen(
        byte_ids=byte_ids,
        previous_ids=state.previous_ids,
        since_boundary=torch.where(boundary, 0, state.since_boundary + 1),
        entropies=checked_entropies(byte_ids, rule, entropies=entropies),
        previous_entropies=state.previous_entropies,
    )
    ends = boundary | rule.completes(seen)
    lengths = state.open_lengths + 1
    if rule.max_length is not None:
        ends = ends | (lengths == rule.max_length)
    after = PatcherState(
        previous_ids=byte_ids.clone(),  # the caller may reuse its buffers
        previous_entropies=seen.entropies.clone(),
        since_boundary=seen.since_boundary,
        open_lengths=torch.where(ends, 0, lengths),
    )
    return ends, after


def _initial_state(batch: int, *, device: torch.device | str | None) -> PatcherState:
    zeros = torch.zeros(batch, dtype=torch.long, device=device)
    return PatcherState(
        previous_ids=torch.full_like(zeros, EOS_ID),
        previous_entropies=zeros.float(),
        since_boundary=zeros.clone(),
        open_lengths=zeros.clone(),
    )


def _after(values: Tensor, lengths: Int[Tensor, " B"], *, start: int) -> Tensor:
    """Pick each row's value once its first `lengths` bytes have been read; `start` where none has."""
    # Column t of the padded values is the state after t bytes, so that a row of which nothing was read gathers `start`.
    with_start = torch.nn.functional.pad(values, (1, 0), value=start)
    return with_start.gather(1, lengths[:, None])[:, 0]
