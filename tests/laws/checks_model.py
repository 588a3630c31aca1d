"""The laws of the model as functions that raise AssertionError when a law is broken.

They see the model only through its inputs and outputs, so that each can be turned on a planted flaw as well.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from blt.codec import EOS_ID
from blt.model import BLT
from blt.patching import Patches
from blt.shapes import Bool, Float, Int, Tensor

Forward = Callable[[Tensor, Tensor], Tensor]
"""(byte ids `B T`, ends `B T`) → logits `B T V`."""
Whole = Callable[[Tensor], Tensor]
"""Byte ids `B T` → one value or vector per byte, patches found on the way."""
TOLERANCE = 1e-4
"""What rounding may do when the same figures are computed in other shapes."""


def given_patches(model: BLT) -> Forward:
    """Turn a model into a function of ids and ends."""
    return lambda byte_ids, ends: model(byte_ids, Patches(ends=ends))


def assert_close(found: Tensor, expected: Tensor, law: str, *, tolerance: float = TOLERANCE) -> None:
    """Compare figures of the same positions; NaN is never close."""
    assert found.shape == expected.shape, f"{law}: shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    deviation = (found.double() - expected.double()).abs()
    broken = ~(deviation <= tolerance)
    where = broken.nonzero()[0].tolist() if bool(broken.any()) else []
    assert not where, f"{law}: off by {float(deviation.max()):.3g} (more than {tolerance:g}), first at {where}"


def check_edit(
    forward: Forward, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, position: int, new_id: int
) -> None:
    """Law 1: at equal patches, changing byte t leaves the logits before t as they are, bit for bit."""
    edited = byte_ids.clone()
    edited[:, position] = new_id
    before, after = forward(byte_ids, ends)[:, :position], forward(edited, ends)[:, :position]
    assert_close(after, before, f"causality by edit of byte {position}", tolerance=0)


def check_moved_end(
    forward: Forward, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, position: int
) -> None:
    """Law 1 for boundaries: ending a patch after byte t, or not, leaves the logits before t as they are."""
    moved = ends.clone()
    moved[:, position] = ~moved[:, position]
    before, after = forward(byte_ids, ends)[:, :position], forward(byte_ids, moved)[:, :position]
    assert_close(after, before, f"causality by moving the patch end at byte {position}")


def check_edit_of_whole(whole: Whole, byte_ids: Int[Tensor, "B T"], *, position: int, new_id: int) -> None:
    """Law 1 through the patcher: whatever happens to the patches later, what is before t stays."""
    edited = byte_ids.clone()
    edited[:, position] = new_id
    before, after = whole(byte_ids)[:, :position], whole(edited)[:, :position]
    assert_close(after, before, f"causality, patches included, by edit of byte {position}")


def check_gradient(model: BLT, byte_ids: Int[Tensor, "1 T"], patches: Patches, *, position: int) -> Float[Tensor, " T"]:
    """Law 1 by gradient: the logits at t have exactly no gradient in the embedding of any later byte.

    Returns:
        How strongly the logits at t depend on the embedding of each byte.
    """
    strength = gradient_strength(model, byte_ids, patches, position=position)
    later = strength[position + 1 :].nonzero()[:, 0]
    assert not len(later), f"causality by gradient: logits at {position} depend on byte {position + 1 + int(later[0])}"
    return strength


def gradient_strength(
    model: BLT, byte_ids: Int[Tensor, "1 T"], patches: Patches, *, position: int
) -> Float[Tensor, " T"]:
    """Return the largest gradient of a random sum of the logits at one position in each byte's embedding."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: object, embedded: Tensor) -> Tensor:
        caught.append(embedded.detach().requires_grad_())
        return caught[0]

    handle = model.hash_embedding.register_forward_hook(catch)
    try:
        logits = model(byte_ids, patches)[0, position]
    finally:
        handle.remove()
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((logits * direction.to(logits.device)).sum(), caught[0])
    return gradient[0].abs().amax(-1)


def check_reads_what_it_may(
    model: BLT, byte_ids: Int[Tensor, "1 T"], patches: Patches, *, position: int, first: int
) -> None:
    """Nothing is withheld: the logits at t depend on byte t, on all of the newest complete patch, and on far bytes.

    Args:
        model: the model.
        byte_ids: one row.
        patches: of the row.
        position: t.
        first: where the document starts, which only the global transformer can see from t.
    """
    strength = check_gradient(model, byte_ids, patches, position=position)
    assert strength[position] > 0, f"starved: logits at {position} do not depend on that byte"
    newest = max((int(end) for end in patches.ends[0].nonzero()[:, 0] if end <= position), default=None)
    if newest is None:
        return
    own = (patches.ids[0] == patches.ids[0, newest]).nonzero()[:, 0]
    unread = [int(t) for t in own if t >= first and strength[t] == 0]
    assert not unread, f"starved: logits at {position} do not depend on byte {unread[0]} of the newest complete patch"
    assert (strength[first : newest + 1] > 0).all(), f"starved: logits at {position} do not reach back to {first}"


def check_truncation(forward: Forward, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, length: int) -> None:
    """Law 2: a prefix alone gives the same logits as inside the whole."""
    alone = forward(byte_ids[:, :length], ends[:, :length])
    assert_close(alone, forward(byte_ids, ends)[:, :length], f"causality by truncation to {length} bytes")


def check_truncation_of_whole(whole: Whole, byte_ids: Int[Tensor, "B T"], *, length: int) -> None:
    """Law 2 through the patcher."""
    alone, inside = whole(byte_ids[:, :length]), whole(byte_ids)[:, :length]
    assert_close(alone, inside, f"causality, patches included, by truncation to {length} bytes")


def check_packed(
    forward: Forward, byte_ids: Int[Tensor, "1 T"], ends: Bool[Tensor, "1 T"], *, documents: Sequence[slice]
) -> None:
    """Law 4: documents packed in one row are the same documents alone."""
    packed = forward(byte_ids, ends)
    for number, part in enumerate(documents):
        alone = forward(byte_ids[:, part], ends[:, part])
        assert_close(packed[:, part], alone, f"document {number} of a packed row")


def check_packed_whole(whole: Whole, byte_ids: Int[Tensor, "1 T"], *, documents: Sequence[slice]) -> None:
    """Law 4 through the patcher."""
    packed = whole(byte_ids)
    for number, part in enumerate(documents):
        assert_close(packed[:, part], whole(byte_ids[:, part]), f"document {number} of a packed row, patches included")


def check_padding(
    forward: Forward, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, amount: int, padding_id: int = EOS_ID
) -> None:
    """Law 4: padding at the end of a row is inert, whether patches end in it or not."""
    expected = forward(byte_ids, ends)
    padded = nn.functional.pad(byte_ids, (0, amount), value=padding_id)
    for ends_there in (False, True):
        found = forward(padded, nn.functional.pad(ends, (0, amount), value=ends_there))
        assert_close(found[:, : byte_ids.shape[1]], expected, f"{amount} ids {padding_id} of padding")


def check_batch(forward: Forward, rows: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Law 4: a batch of n rows of unequal lengths is n singles."""
    longest = max(byte_ids.shape[1] for byte_ids, _ in rows)
    pad = nn.functional.pad
    ids = torch.cat([pad(byte_ids, (0, longest - byte_ids.shape[1]), value=EOS_ID) for byte_ids, _ in rows])
    ends = torch.cat([pad(row_ends, (0, longest - row_ends.shape[1]), value=True) for _, row_ends in rows])
    together = forward(ids, ends)
    for number, (byte_ids, row_ends) in enumerate(rows):
        alone = forward(byte_ids, row_ends)
        assert_close(together[number : number + 1, : byte_ids.shape[1]], alone, f"row {number} of a batch")


def check_batch_of_whole(whole: Whole, rows: Sequence[Tensor]) -> None:
    """Law 4 through the patcher."""
    longest = max(row.shape[1] for row in rows)
    ids = torch.cat([nn.functional.pad(row, (0, longest - row.shape[1]), value=EOS_ID) for row in rows])
    together = whole(ids)
    for number, row in enumerate(rows):
        assert_close(together[number : number + 1, : row.shape[1]], whole(row), f"row {number} of a batch, patched")


def check_parameter_count(module: nn.Module, *, expected: float, within: float = 0.01) -> None:
    """Law 6: a preset has as many parameters as it claims."""
    found = sum(parameter.numel() for parameter in module.parameters())
    assert abs(found / expected - 1) <= within, f"{found:,} parameters; {expected:,.0f} claimed"
