"""How likely each byte was."""

import math

import numpy as np
import pytest
import torch

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE, encode
from blt.errors import ConfigurationError
from blt.generation import GenerationConfig, generate, generate_batch
from blt.generation.logprobs import byte_logprob


def test_a_logprob_is_the_natural_logarithm_of_the_softmax_over_all_260_ids():
    logits = torch.randn(VOCABULARY_SIZE)
    expected = logits.double().log_softmax(-1)
    for byte in (0, 97, 255):
        found = byte_logprob(logits.numpy(), byte + BYTE_OFFSET, num_top=0)
        assert (found.byte, found.top) == (byte, ())
        assert found.logprob == pytest.approx(float(expected[byte + BYTE_OFFSET]), rel=1e-12)


def test_the_likeliest_come_first_the_end_as_none_and_no_other_special_id():
    logits = np.full(VOCABULARY_SIZE, -50.0, dtype=np.float32)
    logits[[BOS_ID, 7 + BYTE_OFFSET, EOS_ID, 3 + BYTE_OFFSET]] = [4.0, 3.0, 2.0, 1.0]
    top = byte_logprob(logits, 3 + BYTE_OFFSET, num_top=3).top
    assert [alternative.byte for alternative in top] == [7, None, 3]
    total = sum(math.exp(score) for score in (4, 3, 2, 1))
    assert [alternative.logprob for alternative in top] == pytest.approx(
        [math.log(math.exp(s) / total) for s in (3, 2, 1)]
    )


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"top_k": 3, "repetition_penalty": 1.5, "valid_utf8": True}]
)
def test_each_new_byte_has_what_the_model_alone_gives_whatever_the_sampling(tiny_lm, options):
    found = generate(tiny_lm, "Tom", max_new_bytes=12, seed=0, logprobs=4, **options)
    assert found.logprobs is not None
    assert bytes(entry.byte for entry in found.logprobs) == found.new_bytes
    with torch.inference_mode():
        scores = tiny_lm(encode(found.data, bos=True)[None])[0].double().log_softmax(-1)[len(b"Tom") :]
    for entry, row in zip(found.logprobs, scores, strict=False):
        assert entry.logprob == pytest.approx(float(row[entry.byte + BYTE_OFFSET]), abs=1e-4)
        best = [float(row[EOS_ID if other.byte is None else other.byte + BYTE_OFFSET]) for other in entry.top]
        assert len(best) == 4
        assert [other.logprob for other in entry.top] == pytest.approx(best, abs=1e-4)
        assert best == sorted(best, reverse=True)


def test_what_a_stop_string_swallows_has_no_entry(tiny_lm):
    stops = [bytes([byte]) for byte in range(128)]
    found = generate_batch(tiny_lm, ["Tom"] * 4, stop=stops, seed=0, max_new_bytes=40, logprobs=0, valid_utf8=False)
    assert any(result.stopped_by == "stop" and result.new_bytes for result in found)
    for result in found:
        assert result.logprobs is not None
        assert bytes(entry.byte for entry in result.logprobs) == result.new_bytes


def test_none_are_given_unless_they_are_asked_for(tiny_lm):
    assert generate(tiny_lm, "Tom", max_new_bytes=2).logprobs is None


@pytest.mark.parametrize("count", [-1, 258])
def test_a_count_that_cannot_be_is_refused(count):
    with pytest.raises(ConfigurationError, match=f"logprobs.*{count}"):
        GenerationConfig(logprobs=count)
