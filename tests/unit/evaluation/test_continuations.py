import math

import pytest
import torch

from blt.codec import encode
from blt.errors import ModelFolderError
from blt.evaluation.continuations import ByteScorer, score_continuations

TEXTS = [b"Tom had a red ball.", "Zoë saw 魚. ".encode() * 9, b"a", b"\xff\xfe\xe2\x82" * 3]
PAIRS = [(text[:cut], text[cut:]) for text in TEXTS for cut in (0, 1, len(text) // 2, len(text))]


@pytest.mark.parametrize("max_rows", [None, 1, 3])
def test_a_continuation_has_the_probability_of_its_bytes_after_the_prompt(tiny_lm, max_rows):
    found = ByteScorer(tiny_lm, max_rows=max_rows).logprobs(PAIRS)
    for (prompt, continuation), logprob in zip(PAIRS, found, strict=True):
        bits = tiny_lm.score(prompt + continuation).bits_by_byte[len(prompt) : -1]
        assert logprob == pytest.approx(-bits.sum() * math.log(2), abs=1e-4)


def test_an_empty_continuation_is_certain(tiny_lm):
    assert score_continuations(tiny_lm, [(b"Tom", b""), (b"", b"")]) == [(0.0, True), (0.0, True)]
    assert score_continuations(tiny_lm, []) == []


def test_what_is_written_is_greedy_and_ends_before_the_stop(tiny_lm):
    scorer, prompts = ByteScorer(tiny_lm), [b"Tom had a", b"\xffa", b""] * 12  # more than are written at once
    written = scorer.continuations(prompts, stop=b"<none>", max_bytes=9)
    assert written[:3] == written[3:6]
    assert all(scored.is_greedy for scored in score_continuations(tiny_lm, list(zip(prompts, written, strict=True))))
    stop = written[0][3:5]
    assert scorer.continuations(prompts[:1], stop=stop, max_bytes=9) == [written[0][: written[0].index(stop)]]


def test_the_likeliest_byte_is_written_whatever_it_is(tiny_lm):
    (written,) = ByteScorer(tiny_lm).continuations([b"Tom"], stop=b"<none>", max_bytes=1)
    logits = tiny_lm(encode(b"Tom", bos=True)[None])[0, -1]
    logits[[0, 1, 3]] = -math.inf
    best = int(logits.argmax())
    assert written == (bytes([best - 4]) if best >= 4 else b"")


def test_figures_that_are_no_numbers_are_no_result(tiny_lm):
    with torch.no_grad():
        tiny_lm.get_submodule("blt.local_decoder.norm").weight[0] = math.nan
    with pytest.raises(ModelFolderError):
        ByteScorer(tiny_lm).logprobs([(b"a", b"b")])
    with pytest.raises(ModelFolderError, match="cannot be continued"):
        ByteScorer(tiny_lm).continuations([b"a"], stop=b"b", max_bytes=2)
