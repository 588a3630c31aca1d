import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import EOS_ID, encode
from blt.data import Shards, document_batches


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_every_document_comes_once_and_whole(documents, max_ids_per_batch):
    check(documents, max_ids_per_batch)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20), st.integers(1, 100), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_so_it_is_where_only_some_documents_are_sorted_at_a_time(documents, max_ids_per_batch, max_sorted):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules[document_batches.__module__], "MAX_SORTED", max_sorted)
        check(documents, max_ids_per_batch)


def check(documents, max_ids_per_batch):
    seen = {}
    for batch in document_batches(Shards.from_documents(documents), max_ids_per_batch=max_ids_per_batch):
        assert batch.byte_ids.numel() <= max_ids_per_batch or len(batch.byte_ids) == 1
        assert batch.byte_ids.shape[1] == batch.lengths.max()
        for ids, length, number in zip(batch.byte_ids, batch.lengths, batch.numbers, strict=True):
            assert int(number) not in seen
            seen[int(number)] = ids[:length]
            assert (ids[length:] == EOS_ID).all()
    assert set(seen) == set(range(len(documents)))
    for number, ids in seen.items():
        assert torch.equal(ids, encode(documents[number], bos=True, eos=True))
