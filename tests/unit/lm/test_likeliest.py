import numpy as np
import pytest

from blt.codec import BYTE_OFFSET, EOS_ID, VOCABULARY_SIZE
from blt.lm import likeliest_bytes


def test_the_likeliest_come_first_and_special_ids_never():
    logprobs = np.full((2, VOCABULARY_SIZE), -50.0)
    logprobs[:, [0, 1, 3]] = 9.0  # no text has them
    logprobs[0, [BYTE_OFFSET + 65, EOS_ID, BYTE_OFFSET]] = -1.0, -2.0, -3.0
    first, second = likeliest_bytes(logprobs, 4)
    assert first == [(65, -1.0), (None, -2.0), (0, -3.0), (1, -50.0)]
    assert second == [(None, -50.0), (0, -50.0), (1, -50.0), (2, -50.0)]  # equals in the order of ids


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (257, 257), (1000, 257)])
def test_as_many_as_there_are(count, expected):
    assert [len(likeliest) for likeliest in likeliest_bytes(np.zeros((3, VOCABULARY_SIZE)), count)] == [expected] * 3
