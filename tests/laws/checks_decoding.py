"""Law 4 for decoding, as functions that raise AssertionError when it is broken: a cached step is the full forward."""

from collections.abc import Sequence

import torch
from checks_model import TOLERANCE, assert_close
from torch.nn.utils.rnn import pad_sequence

from blt.codec import EOS_ID
from blt.lm import ByteLM, DecodingSession
from blt.model import BLT, BLTState
from blt.patching import Patches
from blt.shapes import Bool, Int, Tensor


def check_cached_step(
    model: BLT, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, tolerance: float = TOLERANCE
) -> None:
    """Byte by byte from the start of the rows, on any boundaries."""
    expected = model(byte_ids, Patches(ends=ends))
    state = BLTState(model, batch=len(byte_ids))
    for position in range(byte_ids.shape[1]):
        found = state.step(byte_ids[:, position], ends[:, position])
        assert_close(found, expected[:, position], f"cached step at byte {position}", tolerance=tolerance)


def check_step_after_parallel_pass(
    model: BLT, byte_ids: Int[Tensor, "B T"], ends: Bool[Tensor, "B T"], *, lengths: Int[Tensor, " B"]
) -> None:
    """A parallel pass over the first `lengths[b]` bytes of row b, then byte by byte, every row from where it stands."""
    expected = model(byte_ids, Patches(ends=ends))
    rows = torch.arange(len(byte_ids))
    state, found = BLTState.after(model, byte_ids, ends, lengths=lengths)
    assert_close(found, expected[rows, lengths - 1], f"parallel pass over {lengths.tolist()} bytes")
    for step in range(int(byte_ids.shape[1] - lengths.max())):
        positions = lengths + step
        found = state.step(byte_ids[rows, positions], ends[rows, positions])
        assert_close(found, expected[rows, positions], f"step {step} after a pass over {lengths.tolist()} bytes")


def check_session(lm: ByteLM, byte_ids: Int[Tensor, "B T"]) -> None:
    """Entropy model and patcher included: logits and patch ends, byte by byte."""
    expected, ends = lm(byte_ids), lm.patches(byte_ids).ends
    session = DecodingSession(lm, batch=len(byte_ids))
    for position in range(byte_ids.shape[1]):
        found = session.step(byte_ids[:, position])
        assert torch.equal(session.ends, ends[:, position]), f"online patches differ at byte {position}"
        assert_close(found, expected[:, position], f"cached step, patches included, at byte {position}")


def check_rows_come_and_go(lm: ByteLM, rows: Sequence[Int[Tensor, " _"]], *, every: int = 7) -> None:
    """Each row of a batch is that row alone, while others join after a prompt of theirs and leave when they are over.

    Args:
        lm: the model.
        rows: of any lengths.
        every: after so many steps, the next row joins; its prompt is half of it.
    """
    alone = [lm(row[None])[0] for row in rows]
    session: DecodingSession | None = None
    numbers: list[int] = []  # of the rows that are in the session now
    read = [max(1, len(row) // 2) for row in rows]
    step = 0
    while step == 0 or numbers or step <= every * (len(rows) - 1):
        if step % every == 0 and step // every < len(rows):
            joining = step // every
            joined = DecodingSession.after(lm, [rows[joining][: read[joining]]])
            session = _join(session, joined)
            numbers.append(joining)
        assert session is not None
        for place, number in enumerate(numbers):
            what = f"row {number} beside {len(numbers) - 1} others, at byte {read[number] - 1}"
            assert_close(session.logits[place], alone[number][read[number] - 1], what)
        staying = [place for place, number in enumerate(numbers) if read[number] < len(rows[number])]
        session.select(torch.tensor(staying, dtype=torch.long))
        numbers = [numbers[place] for place in staying]
        if numbers:
            session.step(torch.stack([rows[number][read[number]] for number in numbers]))
        for number in numbers:
            read[number] += 1
        step += 1


def check_batch_of_prompts(lm: ByteLM, rows: Sequence[Int[Tensor, " _"]]) -> None:
    """Prompts of unequal lengths, read together, are the prompts read alone."""
    together = DecodingSession.after(lm, rows)
    padded = pad_sequence(list(rows), batch_first=True, padding_value=EOS_ID)
    for number, row in enumerate(rows):
        alone = DecodingSession.after(lm, [row])
        assert_close(together.logits[number], alone.logits[0], f"prompt {number} of {tuple(padded.shape)}")
        assert bool(together.ends[number]) == bool(alone.ends[0]), f"prompt {number}: another patch end than alone"
        assert_close(alone.logits[0], lm(row[None])[0, -1], f"prompt {number} alone, and the full forward")


def _join(session: DecodingSession | None, joined: DecodingSession) -> DecodingSession:
    if session is None:
        return joined
    session.append(joined)
    return session
