import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import encode
from blt.data import Shards
from blt.errors import DataError

corpora = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=12)


def stream_of(documents):
    return np.concatenate([encode(document, bos=True, eos=True).numpy() for document in documents])


@given(corpora, st.data())
@settings(max_examples=100, deadline=None)
def test_any_slice_of_the_id_stream_is_bos_bytes_eos_of_every_document(documents, data):
    shards = Shards.from_documents(documents)
    stream = stream_of(documents)
    assert shards.num_ids == len(stream)
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    assert shards.ids(start, stop).tolist() == stream[start:stop].tolist()
    assert shards.ids(start, stop).dtype == np.int64


@given(corpora)
@settings(max_examples=50, deadline=None)
def test_documents_come_back_and_their_bos_stands_at_their_offset(documents):
    shards = Shards.from_documents(documents)
    assert [shards.document(i).tobytes() for i in range(shards.num_documents)] == documents
    assert all(shards.ids(int(at), int(at) + 1) == [1] for at in shards.document_id_offsets[:-1])
    assert shards.document_id_offsets[-1] == shards.num_ids


@given(corpora, st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_cutting_into_shards_changes_nothing_that_is_read(documents, per_shard):
    whole = Shards.from_documents(documents)
    groups = [b"".join(documents[i : i + per_shard]) for i in range(0, len(documents), per_shard)]
    ends = np.cumsum([len(document) for document in documents])
    cut = Shards([np.frombuffer(group, np.uint8) for group in groups], ends)
    assert cut.ids(0, cut.num_ids).tolist() == whole.ids(0, whole.num_ids).tolist()
    assert cut.checksum == whole.checksum
    assert [cut.document(i).tobytes() for i in range(cut.num_documents)] == documents


def test_the_checksum_tells_boundaries_and_order_apart():
    corpora = ([b"ab", b"c"], [b"a", b"bc"], [b"c", b"ab"], [b"abc"])
    assert len({Shards.from_documents(documents).checksum for documents in corpora}) == 4


def test_empty_documents_are_dropped_and_nothing_else_is_refused():
    assert Shards.from_documents([b"", b"a", b""]).num_documents == 1
    with pytest.raises(DataError, match="no documents"):
        Shards.from_documents([b""])


@pytest.mark.parametrize("bad", [(-1, 2), (0, 5), (3, 2)])
def test_slices_outside_the_stream_are_refused(bad):
    with pytest.raises(IndexError, match="reach outside the stream of 4 ids"):
        Shards.from_documents([b"ab"]).ids(*bad)


@pytest.mark.parametrize("bad", [-1, 1])
def test_documents_that_are_not_there_are_refused(bad):
    with pytest.raises(IndexError, match="is none of the 1 documents"):
        Shards.from_documents([b"ab"]).document(bad)


def test_a_folder_that_is_missing_foreign_or_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Shards.open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no index\.json"):
        Shards.open(tmp_path)
    file = tmp_path / "index.json"
    file.write_text("{")
    with pytest.raises(DataError, match="is a file"):
        Shards.open(file)
    with pytest.raises(DataError, match="is not JSON"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(DataError, match="is no index of blt-shards"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"format": "blt-shards", "version": 99}))
    with pytest.raises(DataError, match="has version 99, this blt reads 1"):
        Shards.open(tmp_path)
    file.write_text(json.dumps({"format": "blt-shards", "version": 1, "splits": {"train": {"num_documents": 3}}}))
    with pytest.raises(DataError, match="is damaged"):
        Shards.open(tmp_path)
