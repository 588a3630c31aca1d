"""Law: rows that the native decoder continues by itself write what the host would choose, drafted or not."""

import numpy as np
import pytest
import torch
from tiny_models import RULES, tiny_lm

from blt import ByteLM
from blt.codec import encode
from blt.decoder import GenerationRow
from blt.errors import ModelFolderError
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.generation.sampling import Sampler, SamplingConfig
from blt.lm import DecodingSession

pytestmark = pytest.mark.skipif(not DecodingSession(tiny_lm()).is_native, reason="needs the native decoder")

PROMPTS = (b"", b"Tom had a red ball.", "Zoë € 😀".encode(), "€".encode()[:2], b"\xff\x00")
SAMPLING = (
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 2.5, "top_k": 7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 1.0, "min_p": 0.3},
    {"temperature": 1e-300},
)


GREEDY = GenerationConfig(temperature=0, valid_utf8=False, max_new_bytes=40)
OPTIONS = (
    {},
    {"logprobs": 1},
    {"regex": "[a-z]{30}"},
    {},
    {"repetition_penalty": 1.2},
    {"presence_penalty": 1.0},
    {"logit_bias": {70: 5.0}},
)


def continued(lm, requests, *, draft=None):
    engine = Engine(lm, drafter=None if draft is None else Drafter(draft))
    engine.add(requests)
    while engine.step():
        pass
    return [request.generation() for request in requests]


def requests_of(*, num=5, valid_utf8=None, **options):
    options = {"max_new_bytes": 40} | options
    return [
        Request(PROMPTS[seed % len(PROMPTS)], GenerationConfig(seed=seed, valid_utf8=valid_utf8, **options))
        for seed in range(num)
    ]


@pytest.fixture
def host_chooses(monkeypatch):
    """Let the host choose every byte."""

    def install():
        monkeypatch.setattr(Request, "plain_sampling", lambda self: None)

    return install


@pytest.mark.parametrize("options", SAMPLING, ids=str)
@pytest.mark.parametrize("valid_utf8", [True, False])
@pytest.mark.parametrize("draft", [None, DraftConfig(by="entropy", max_draft=5, min_probability=0.0)], ids=str)
def test_what_is_written_is_what_the_host_chooses(options, valid_utf8, draft, host_chooses):
    lm = tiny_lm()
    written = continued(lm, requests_of(valid_utf8=valid_utf8, num=15, **options), draft=draft)
    host_chooses()
    assert written == continued(lm, requests_of(valid_utf8=valid_utf8, num=15, **options))


@pytest.mark.parametrize("rule", RULES)
def test_under_every_rule(rule, host_chooses):
    lm = tiny_lm(rule)
    written = continued(lm, requests_of(temperature=1.0, valid_utf8=False))
    host_chooses()
    assert written == continued(lm, requests_of(temperature=1.0, valid_utf8=False))


@pytest.mark.parametrize("max_new_bytes", [1, 2, 15, 16, 17, 33])
def test_lengths_are_kept(max_new_bytes):
    for one in continued(tiny_lm(), requests_of(temperature=1.0, valid_utf8=False, max_new_bytes=max_new_bytes)):
        assert len(one.new_bytes) == max_new_bytes if one.stopped_by == "length" else one.stopped_by == "eos"


def test_a_stop_string_ends_a_text_in_the_middle_of_a_step(host_chooses):
    lm = tiny_lm()
    text = continued(lm, requests_of(num=1, temperature=0, valid_utf8=False))[0].new_bytes
    options = {"num": 2, "temperature": 0, "valid_utf8": False, "stop": text[5:7]}
    written = continued(lm, requests_of(**options))
    assert written[0].stopped_by == "stop"
    assert written[0].new_bytes == text[: text.index(text[5:7])]
    host_chooses()
    assert written == continued(lm, requests_of(**options))


def test_requests_that_need_the_host_stand_beside_those_that_do_not():
    lm = tiny_lm()

    def mixed():
        return [
            Request(
                b"Tom", GenerationConfig(seed=number, max_new_bytes=24, temperature=1.0, valid_utf8=False, **options)
            )
            for number, options in enumerate(
                [{}, {"logprobs": 1}, {"regex": "[a-z]{30}"}, {}, {"repetition_penalty": 1.2}]
            )
        ]

    together = continued(lm, mixed())
    assert together == [continued(lm, [request])[0] for request in mixed()]


def test_likely_drafts_save_passes():
    lm = ByteLM.from_pretrained()
    config = GenerationConfig(max_new_bytes=80, temperature=0)
    texts = []
    for drafter in (None, Drafter(DraftConfig(by="entropy"))):
        engine, request = Engine(lm, drafter=drafter), Request("Once upon a time", config)
        engine.add([request])
        while engine.step():
            pass
        texts.append(request.generation())
    assert texts[0] == texts[1]
    assert engine.num_passes < 80 / 1.5


def test_logits_that_are_no_numbers_end_a_request_alone():
    lm = tiny_lm()
    good, broken = requests_of(num=2, temperature=1.0, valid_utf8=False)
    engine = Engine(lm)
    engine.add([good, broken])
    (row,) = [one for one in engine._running.values() if one.request is broken]
    row.native_row.logits = np.full_like(row.native_row.logits, np.nan)
    while engine.step():
        pass
    assert isinstance(broken.error, ModelFolderError)
    assert good.error is None
    assert good.new_bytes


def native_rows(session, prompts, *, room=4000):
    """Rows that have read prompts, each with the logits that lead on."""
    rows, logits = session.add([encode(prompt, bos=True) for prompt in prompts])
    sampling = Sampler(SamplingConfig(temperature=0, valid_utf8=False)).plain(room=room)
    return [GenerationRow(row, scores, sampling) for row, scores in zip(rows.tolist(), logits.numpy(), strict=True)]


def test_rows_whose_patches_end_at_different_times_wait_for_each_other():
    lm, num_bytes = tiny_lm("static"), 24
    prompts = [b"Tom had a red ball."[:length] for length in range(1, 13)]
    session = DecodingSession(lm)
    rows, texts, waited, passes = native_rows(session, prompts), [b""] * len(prompts), 0, 0
    while min(map(len, texts)) < num_bytes:
        written, num_passes = session.generate(rows, max_bytes=1)
        texts = [text + data for text, data in zip(texts, written, strict=True)]
        passes, waited = passes + num_passes, waited + written.count(b"")
    assert 0 < waited < passes  # a few steps, and from then on all of their patches end together
    alone = continued(lm, [Request(prompt, GREEDY) for prompt in prompts])
    assert [text[:num_bytes] for text in texts] == [one.new_bytes[:num_bytes] for one in alone]


def test_no_row_waits_for_ever_for_patches_that_do_not_end():
    session = DecodingSession(tiny_lm("space"))
    rows = native_rows(session, [b"a", b"b", b"c", b"d"])
    counts = [0] * 4
    for _ in range(100):
        own = b" " if counts[0] % 2 else b"y"  # a patch ends every second byte
        written, _ = session.generate(rows, max_bytes=1, forced=[own, b"x", b"x", b"x"])
        counts = [count + len(data) for count, data in zip(counts, written, strict=True)]
    assert counts[1:] == [100] * 3
    assert 100 / 6 < counts[0] < 100 / 4  # one byte at once, the other after eight passes


@pytest.mark.parametrize("rule", ["static", "entropy"])
def test_a_row_that_waits_can_be_read_on_by_hand_or_leave(rule):
    lm, prompts = tiny_lm(rule), [b"Tom had"[:length] for length in range(1, 8)]
    session = DecodingSession(lm)
    rows = native_rows(session, prompts)
    texts, written = [b""] * len(rows), []
    while b"" not in written:
        written, _ = session.generate(rows, max_bytes=1)
        texts = [text + data for text, data in zip(texts, written, strict=True)]
    waiting = [number for number, data in enumerate(written) if not data]
    for number in waiting:  # its newest byte was chosen, and neither read nor lost
        row, more = np.array([rows[number].row]), b" a big red ball"
        found = session.read(encode(texts[number][-1:] + more)[None], row)[0, 0::5]
        expected = DecodingSession(lm)
        start = prompts[number] + texts[number][:-1]
        (same,), _ = expected.add([encode(start, bos=True)])
        assert torch.equal(found, expected.read(encode(texts[number][-1:] + more)[None], np.array([same]))[0, 0::5])
        assert session.ends.tolist() == expected.ends.tolist()
    session.remove(np.array([row.row for row in rows]))
    again = native_rows(session, prompts)
    texts = [session.generate([row], max_bytes=1)[0][0] for row in again]
    assert texts == [one.new_bytes[:1] for one in continued(lm, [Request(prompt, GREEDY) for prompt in prompts])]
