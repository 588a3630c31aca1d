"""Law 3 and the laws of causality, for anything that divides bytes into patches.

Each law is a function that raises AssertionError where it does not hold; `test_patching.py` runs them on every rule,
and on rules that are wrong on purpose.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from blt.codec import BOS_ID, EOS_ID
from blt.patching import Patches
from blt.shapes import Bool, Float, Int, Tensor

Divide = Callable[[Int[Tensor, "B T"], Float[Tensor, "B T"]], Bool[Tensor, "B T"]]
"""Byte ids and entropies → where patches end."""


class Stepper(Protocol):
    """What reads one byte of each row at a time; `OnlinePatcher`, or something that only resembles it."""

    def step(self, byte_ids: Int[Tensor, " B"], entropies: Float[Tensor, " B"]) -> Bool[Tensor, " B"]: ...


def check_every_byte_lies_in_exactly_one_patch(patches: Patches) -> None:
    """The complete patches and the open one, laid end to end, are the row; and `ids` say the same."""
    length = patches.ends.shape[1]
    for row in range(patches.ends.shape[0]):
        ends = patches.end_positions[row][patches.is_complete[row]].tolist()
        starts = [0, *(end + 1 for end in ends)]
        spans = [range(start, end + 1) for start, end in zip(starts, ends, strict=False)]
        assert all(len(span) > 0 for span in spans), "a patch without bytes"
        assert [len(span) for span in spans] == patches.lengths[row][patches.is_complete[row]].tolist()
        spans.append(range(starts[-1], length))
        assert [position for span in spans for position in span] == list(range(length)), "not once each"
        owners = [number for number, span in enumerate(spans) for _ in span]
        assert owners == patches.ids[row].tolist(), "ids and ends disagree"
        complete = [sum(end <= position for end in ends) - 1 for position in range(length)]
        assert complete == patches.readable[row].tolist(), "readable is not the newest complete patch"


def check_documents_end_patches(divide: Divide, byte_ids: Int[Tensor, "B T"], entropies: Float[Tensor, "B T"]) -> None:
    """BOS and EOS end a patch; so a BOS after an EOS, or at the start of a row, has a patch of its own."""
    boundary = (byte_ids == BOS_ID) | (byte_ids == EOS_ID)
    assert bool(divide(byte_ids, entropies)[boundary].all()), "a document boundary within a patch"


def check_truncation(divide: Divide, byte_ids: Int[Tensor, "B T"], entropies: Float[Tensor, "B T"]) -> None:
    """The patches of a prefix are the prefix of the patches."""
    whole = divide(byte_ids, entropies)
    for length in range(byte_ids.shape[1] + 1):
        prefix = divide(byte_ids[:, :length], entropies[:, :length])
        assert torch.equal(prefix, whole[:, :length]), f"the first {length} bytes alone are patched otherwise"


def check_causality(
    divide: Divide,
    byte_ids: Int[Tensor, "B T"],
    entropies: Float[Tensor, "B T"],
    *,
    position: int,
    byte_id: int,
    entropy: float,
) -> None:
    """Another byte at a position, and so another entropy after it, changes no end before it."""
    edited_ids, edited_entropies = byte_ids.clone(), entropies.clone()
    edited_ids[:, position], edited_entropies[:, position:] = byte_id, entropy
    before, after = divide(byte_ids, entropies), divide(edited_ids, edited_entropies)
    assert torch.equal(before[:, :position], after[:, :position]), f"an end before it depends on byte {position}"


def check_packing(divide: Divide, documents: Sequence[tuple[Int[Tensor, " T"], Float[Tensor, " T"]]]) -> None:
    """Documents in one row are patched as if each were alone."""
    alone = [divide(ids[None], entropies[None]) for ids, entropies in documents]
    ids, entropies = (torch.cat(parts)[None] for parts in zip(*documents, strict=True))
    assert torch.equal(divide(ids, entropies), torch.cat(alone, dim=1)), "a document's patches depend on its neighbours"


def check_max_length(ends: Bool[Tensor, "B T"], *, max_length: int) -> None:
    """No patch is longer, not even one that is still open: it would have been cut."""
    patches = Patches(ends=ends)
    for row in patches.ids:
        assert int(row.bincount().max()) <= max_length, f"a patch is longer than {max_length}"


def check_online_equals_offline(
    stepper: Stepper, divide: Divide, byte_ids: Int[Tensor, "B T"], entropies: Float[Tensor, "B T"]
) -> None:
    """One byte at a time gives the same ends as all at once."""
    offline = divide(byte_ids, entropies)
    for t in range(byte_ids.shape[1]):
        ends = stepper.step(byte_ids[:, t], entropies[:, t])
        assert torch.equal(ends, offline[:, t]), f"online and offline differ at byte {t}"
