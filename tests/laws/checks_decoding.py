"""Law 4 for decoding, as functions that raise AssertionError when it is broken: a cached step is the full forward."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from checks_model import TOLERANCE, assert_close

from blt.api import ByteLM
from blt.codec import BOS_ID, BYTE_OFFSET
from blt.lm import DecodingSession, StaticConfig
from blt.model import BLT, BLTState
from blt.patching import Patches
from blt.shapes import Bool, Int, Tensor

AHEAD = 5
NOT_COMPILED = StaticConfig(num_rows=3, max_patches=8, max_patch_bytes=4, backend=None)
"""Static steps with little room, so that it grows on the way."""
MakeState = Callable[..., Any]
"""Makes what reads bytes on given boundaries: a `BLTState`, or what stands for it."""


def check_cached_step(
    model: BLT,
    byte_ids: Int[Tensor, "B T"],
    ends: Bool[Tensor, "B T"],
    *,
    tolerance: float = TOLERANCE,
    make_state: MakeState = BLTState,
) -> None:
    """Byte by byte from the start of the rows, on any boundaries."""
    expected, rows = model(byte_ids, Patches(ends=ends)), np.arange(len(byte_ids))
    state = make_state(model, batch=len(byte_ids), max_rollback=AHEAD)
    for position in range(byte_ids.shape[1]):
        found = state.read(byte_ids[:, position, None], ends[:, position, None], rows)[:, 0]
        assert_close(found, expected[:, position], f"cached step at byte {position}", tolerance=tolerance)


def check_reading_ahead(
    model: BLT,
    byte_ids: Int[Tensor, "B T"],
    ends: Bool[Tensor, "B T"],
    *,
    seed: int = 0,
    make_state: MakeState = BLTState,
) -> None:
    """Several bytes at once, of which some are taken back and read again, each row another number of them.

    Rows hold a BOS at their start only, if at all.
    """
    expected, generator = model(byte_ids, Patches(ends=ends)), np.random.default_rng(seed)
    rows, length = np.arange(len(byte_ids)), byte_ids.shape[1]
    state, read = make_state(model, batch=len(byte_ids), max_rollback=AHEAD), np.zeros(len(byte_ids), dtype=np.int64)
    while True:
        going = rows[read < length]
        if not len(going):
            return
        num = int(min(generator.integers(1, AHEAD + 1), length - read[going].max()))
        at = torch.from_numpy(read[going, None] + np.arange(num))
        here = torch.from_numpy(going)[:, None]
        misleading = bool(generator.integers(2)) and not bool((read[going] == 0).any())
        ids = torch.full_like(at, BYTE_OFFSET) if misleading else byte_ids[here, at]
        found = state.read(ids, ends[here, at] ^ misleading, going)
        if misleading:
            state.rewind(taken_back=np.full(len(going), num))
            continue
        assert_close(found, expected[here, at], f"{num} bytes at once, from {read[going].tolist()}")
        taken_back = np.array([generator.integers(0, num) if read[row] else 0 for row in going])
        state.rewind(taken_back=taken_back)
        read[going] += num - taken_back


def check_step_after_parallel_pass(
    model: BLT,
    byte_ids: Int[Tensor, "B T"],
    ends: Bool[Tensor, "B T"],
    *,
    lengths: Int[Tensor, " B"],
    make_state: MakeState = BLTState,
) -> None:
    """A parallel pass over the first `lengths[b]` bytes of row b, then byte by byte, every row from where it stands."""
    expected = model(byte_ids, Patches(ends=ends))
    rows = torch.arange(len(byte_ids))
    state = make_state(model, batch=len(byte_ids), max_rollback=AHEAD)
    found = state.fill(rows.numpy(), byte_ids, ends, lengths=lengths)
    assert_close(found, expected[rows, lengths - 1], f"parallel pass over {lengths.tolist()} bytes")
    for step in range(int(byte_ids.shape[1] - lengths.max())):
        at = lengths + step
        found = state.read(byte_ids[rows, at][:, None], ends[rows, at][:, None], rows.numpy())[:, 0]
        assert_close(found, expected[rows, at], f"step {step} after a pass over {lengths.tolist()} bytes")


def check_session(lm: ByteLM, byte_ids: Int[Tensor, "B T"], *, at_once: int = 1) -> None:
    """Entropy model and patcher included: logits byte by byte, or so many at once; half of each read is read twice."""
    expected = lm(byte_ids)
    session = DecodingSession(lm, max_rollback=AHEAD)
    rows = session.start(len(byte_ids))
    for first in range(0, byte_ids.shape[1], at_once):
        part = byte_ids[:, first : first + at_once]
        has_bos = bool((part[:, 1:] == BOS_ID).any())
        step = session.step(rows)
        if has_bos:
            found = session.read(part, rows)
        else:
            step.advance_patcher(part)
            found = step.forward()
        where = f"cached step, patches included, at byte {first}"
        assert_close(found, expected[:, first : first + at_once], where)
        again = part.shape[1] // 2
        if again and not bool((part == BOS_ID).any()):
            step.rewind(np.full(len(rows), again))
            found = session.read(part[:, -again:], rows)
            assert_close(found, expected[:, first : first + at_once][:, -again:], f"{where}, taken back and read again")


def check_rows_come_and_go(lm: ByteLM, rows: Sequence[Int[Tensor, " _"]], *, every: int = 7) -> None:
    """Each row of a session is that row alone, while others join after a prompt of theirs and leave when they are over.

    Args:
        lm: the model.
        rows: of any lengths.
        every: after so many steps, the next row joins; its prompt is half of it.
    """
    alone = [lm(row[None])[0] for row in rows]
    session = DecodingSession(lm)
    places: dict[int, int] = {}  # number of a row → its place in the session
    read = [max(1, len(row) // 2) for row in rows]
    for step in range(every * len(rows) + max(len(row) for row in rows)):
        found: dict[int, Tensor] = {}
        going = [number for number in places if read[number] < len(rows[number])]
        for number in set(places) - set(going):
            session.remove(np.array([places.pop(number)]))
        if going:
            ids = torch.stack([rows[number][read[number]] for number in going])[:, None]
            logits = session.read(ids, np.array([places[number] for number in going]))[:, 0]
            found = dict(zip(going, logits, strict=True))
            for number in going:
                read[number] += 1
        if step % every == 0 and step // every < len(rows):
            joining = step // every
            joined, logits = session.add([rows[joining][: read[joining]]])
            places[joining], found[joining] = int(joined[0]), logits[0]
        for number, logits in found.items():
            what = f"row {number} beside {len(places) - 1} others, at byte {read[number] - 1}"
            assert_close(logits, alone[number][read[number] - 1], what)
    assert read == [len(row) for row in rows]


def check_batch_of_prompts(lm: ByteLM, rows: Sequence[Int[Tensor, " _"]]) -> None:
    """Prompts of unequal lengths, read together, are the prompts read alone."""
    _, together = DecodingSession(lm).add(rows)
    for number, row in enumerate(rows):
        _, alone = DecodingSession(lm).add([row])
        assert_close(together[number], alone[0], f"prompt {number} of {len(rows)}")
        assert_close(alone[0], lm(row[None])[0, -1], f"prompt {number} alone, and the full forward")


def check_static_step(lm: ByteLM, byte_ids: Int[Tensor, "B T"], *, config: StaticConfig = NOT_COMPILED) -> None:
    """Steps of fixed shapes, byte by byte from the start of the rows, patches included; each row sits out some."""
    expected, length = lm(byte_ids).cpu(), byte_ids.shape[1]
    session = DecodingSession(lm, static=config)
    rows = session.start(len(byte_ids))
    read, turn = np.zeros(len(byte_ids), dtype=np.int64), 0
    while (read < length).any():
        turn += 1
        going = np.flatnonzero((read < length) & (turn % (np.arange(len(byte_ids)) + 3) != 0))
        if len(going):
            found = session.read(byte_ids[going, read[going]][:, None], rows[going])
            assert_close(found[:, 0], expected[going, read[going]], f"static step of {going}, read {read}")
            read[going] += 1
