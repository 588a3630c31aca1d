"""The order that a decoding step keeps; that its figures are right is a law of its own."""

import numpy as np
import pytest
import torch

import blt.lm.session
from blt.errors import ConfigurationError
from blt.lm import DecodingSession

BYTES = torch.tensor([[70, 71, 72]])


@pytest.fixture(params=["native", "PyTorch"])
def session(request, tiny_lm, monkeypatch):
    if request.param == "PyTorch":
        monkeypatch.setattr(blt.lm.session, "packed_model", lambda *_, **__: None)
    found = DecodingSession(tiny_lm, max_rollback=4)
    assert not found.is_native or request.param == "native"
    return found


def test_a_step_reads_at_once_what_its_patcher_has_read_and_takes_back(session):
    rows = session.start(1)
    step = session.step(rows)
    for at in range(3):
        step.advance_patcher(BYTES[:, at : at + 1])
    logits = step.forward()
    step.rewind(np.array([2]))
    torch.testing.assert_close(session.read(BYTES[:, 1:], rows), logits[:, 1:])


def test_a_draft_leaves_no_trace_whatever_follows(session):
    rows = session.start(2)
    alone = session.step(rows[:1])
    alone.advance_patcher(BYTES)
    wanted = alone.forward()
    drafted = session.step(rows[1:])
    drafted.draft(BYTES.flip(1))
    drafted.advance_patcher(BYTES)
    torch.testing.assert_close(drafted.forward(), wanted)
    session.step(rows[:1]).draft(BYTES)
    torch.testing.assert_close(session.read(BYTES, rows[:1]), session.read(BYTES, rows[1:]))


@pytest.mark.parametrize(
    ("verbs", "said"),
    [
        (["forward"], "forward: comes after advanced; this step is new"),
        (["rewind"], "rewind: comes after read; this step is new"),
        (["advance_patcher", "draft"], "draft: comes after new or drafted; this step is advanced"),
        (["advance_patcher", "rewind"], "this step is advanced"),
        (["draft", "forward"], "this step is drafted"),
        (["advance_patcher", "forward", "forward"], "this step is read"),
        (["advance_patcher", "forward", "advance_patcher"], "this step is read"),
        (["advance_patcher", "forward", "rewind", "rewind"], "this step is over"),
        (["end", "advance_patcher"], "this step is over"),
        (["advance_patcher", "end"], "call forward first"),
    ],
    ids=str,
)
def test_another_order_is_refused(session, verbs, said):
    step = session.step(session.start(1))
    arguments = {"draft": [BYTES], "advance_patcher": [BYTES], "rewind": [np.array([1])]}
    *before, last = verbs
    for verb in before:
        getattr(step, verb)(*arguments.get(verb, []))
    with pytest.raises(ConfigurationError, match=said):
        getattr(step, last)(*arguments.get(last, []))


def test_a_step_ends_where_another_begins_or_the_session_reads(session):
    rows = session.start(1)
    first = session.step(rows)
    session.step(rows)
    with pytest.raises(ConfigurationError, match="this step is over"):
        first.advance_patcher(BYTES)
    second = session.step(rows)
    session.read(BYTES, rows)
    with pytest.raises(ConfigurationError, match="this step is over"):
        second.advance_patcher(BYTES)
    session.step(rows).advance_patcher(BYTES)
    with pytest.raises(ConfigurationError, match="call forward first"):
        session.read(BYTES, rows)


@pytest.mark.parametrize("failing", ["advance_patcher", "forward"])
def test_a_step_that_fails_is_over_and_the_session_goes_on(session, failing, monkeypatch):
    rows = session.start(1)
    step = session.step(rows)
    arguments = {"advance_patcher": [BYTES]}
    if failing == "forward":
        step.advance_patcher(BYTES)

    def fail(*_):
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(session._decoding, failing, fail)
        with pytest.raises(MemoryError):
            getattr(step, failing)(*arguments.get(failing, []))
    with pytest.raises(ConfigurationError, match="this step is over"):
        step.forward()
    session.step(session.start(1))
