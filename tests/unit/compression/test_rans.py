import numpy as np
import pytest

from blt.compression import rans
from blt.compression.frequencies import TOTAL, frequencies, shares
from blt.errors import ModelFolderError


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def coded(generator, lengths, *, sharpness):
    """Streams of symbols drawn at random, and the frequencies that they were coded with."""
    shape = len(lengths), max(lengths)
    logits = generator.normal(size=(shape[0] * shape[1], 260)).astype(np.float32) * sharpness
    found = frequencies(logits, with_end=True).reshape(*shape, 257)
    symbols = generator.integers(257, size=shape)
    counts = np.take_along_axis(found, symbols[:, :, None], 2)[:, :, 0]
    lows = np.take_along_axis(found.cumsum(2), symbols[:, :, None], 2)[:, :, 0] - counts
    checks = generator.integers(1 << 31, size=len(lengths)).tolist()
    return found, symbols, rans.encode(lows, counts, lengths, checks), checks


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 12.0])
def test_streams_of_any_length_are_decoded_to_what_was_encoded(generator, sharpness):
    lengths = [40, 1, 17, 40, 0]
    found, symbols, streams, checks = coded(generator, lengths, sharpness=sharpness)
    decoder = rans.Decoder(streams)
    for step in range(40):
        rows = np.flatnonzero(np.array(lengths) > step)
        assert (decoder.next(found[rows, step], rows) == symbols[rows, step]).all()
    assert decoder.are_whole(checks).all()
    assert not decoder.are_whole([check ^ 1 for check in checks]).any()


def test_a_stream_takes_the_bits_that_its_symbols_have(generator):
    found, symbols, streams, _ = coded(generator, [3000], sharpness=3.0)
    counts = np.take_along_axis(found, symbols[:, :, None], 2)
    bits = -np.log2(counts / TOTAL).sum()
    assert bits <= 8 * len(streams[0]) <= bits + 64


def test_every_symbol_has_a_frequency_and_they_add_up(generator):
    logits = generator.normal(size=(50, 260)).astype(np.float32) * 30
    for with_end, num_symbols in [(False, 256), (True, 257)]:
        found = frequencies(logits, with_end=with_end)
        assert found.shape == (50, num_symbols)
        assert found.min() >= 1
        assert (found.sum(1) == TOTAL).all()


def test_frequencies_are_the_probabilities_of_the_logits(generator):
    logits = generator.normal(size=(50, 260)).astype(np.float32) * 3
    chosen = np.exp(logits[:, 4:].astype(np.float64))
    expected = chosen / chosen.sum(1, keepdims=True)
    found = frequencies(logits, with_end=False) / TOTAL
    lost = (expected * np.log2(expected / found)).sum(1)
    assert lost.max() < 1e-4


def test_logits_that_are_no_numbers_are_refused():
    logits = np.zeros((1, 260), np.float32)
    logits[0, 100] = np.nan
    with pytest.raises(ModelFolderError, match="not finite"):
        frequencies(logits, with_end=False)


def test_the_largest_weights_that_are_allowed_do_not_overflow():
    found = shares(np.full((1, 256), 2**38, np.int64))
    assert (found == TOTAL // 256).all()
