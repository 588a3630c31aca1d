import numpy as np
import pytest

from blt.data import EntropyStore, entropies_path
from blt.errors import DataError

KEY = {"num_ids": 9}


@pytest.fixture
def path(tmp_path):
    """Of the entropies of 9 ids."""
    path = entropies_path(tmp_path, split="train", fingerprint="1a2b")
    path.parent.mkdir()
    return path


def test_the_file_is_named_by_the_model_that_it_is_of(path, tmp_path):
    assert path == tmp_path / "train" / "entropies-1a2b.f32"


def test_entropies_written_in_any_order_are_read_back_once_finished(path):
    assert EntropyStore.open(path, **KEY) is None
    with EntropyStore.create(path, **KEY) as writer:
        writer.write(5, np.arange(5, 9, dtype=np.float32))
        writer.write(0, np.arange(5, dtype=np.float32))
        finished = writer.finish()
    store = EntropyStore.open(path, **KEY)
    assert store.num_ids == 9
    assert store.read(0, 9).tolist() == finished.read(0, 9).tolist() == list(range(9))
    assert store.read(3, 5).tolist() == [3, 4]
    assert path.stat().st_size == 36


def test_a_half_written_file_is_gone_on_with_and_never_taken_for_whole(path):
    with EntropyStore.create(path, **KEY) as writer:
        writer.write(2, np.zeros(3, np.float32))
    assert EntropyStore.open(path, **KEY) is None
    writer = EntropyStore.create(path, **KEY)
    assert writer.num_done == 3
    assert writer.is_done(2, 5)
    assert not writer.is_done(2, 6)
    assert not writer.is_done(1, 5)
    with pytest.raises(DataError, match="6 of 9 entropies are missing"):
        writer.finish()
    writer.write(0, np.ones(9, np.float32))
    writer.finish()
    assert EntropyStore.open(path, **KEY).read(0, 9).tolist() == [1] * 9


def test_a_file_whose_layout_was_interrupted_is_started_again(path):
    unfinished = path.with_name(".entropies-1a2b.f32.unfinished")
    unfinished.write_bytes(b"\0" * 8)
    assert EntropyStore.create(path, **KEY).num_done == 0


def test_entropies_of_another_model_are_not_found(path):
    with EntropyStore.create(path, **KEY) as writer:
        writer.write(0, np.ones(9, np.float32))
        writer.finish()
    other = entropies_path(path.parent.parent, split="train", fingerprint="other")
    assert EntropyStore.open(other, **KEY) is None


def test_bad_entropies_are_refused(path):
    writer = EntropyStore.create(path, **KEY)
    with pytest.raises(DataError, match="an entropy between ids 0 and 2 is not finite"):
        writer.write(0, np.array([1, np.nan], np.float32))
    with pytest.raises(IndexError, match="2 entropies from 8 on reach outside the 9 ids"):
        writer.write(8, np.ones(2, np.float32))
    with pytest.raises(IndexError, match="reach outside the stream of 9 ids"):
        EntropyStore(np.ones(9, np.float32)).read(0, 10)
    assert writer.num_done == 0


def test_a_file_that_does_not_fit_the_shards_or_has_an_impossible_name_is_refused(path):
    path.write_bytes(b"\0" * 8)
    with pytest.raises(DataError, match=r"has 8 bytes, its shards need 36; delete it"):
        EntropyStore.open(path, **KEY)
    with pytest.raises(DataError, match="cannot be part of a file name"):
        entropies_path(path.parent.parent, split="train", fingerprint="../x")


def test_a_file_with_a_value_that_no_entropy_has_is_refused(path):
    values = np.ones(9, np.float32)
    values[4] = np.inf
    values.tofile(path)
    store = EntropyStore.open(path, **KEY)
    assert store.read(0, 4).tolist() == [1] * 4
    with pytest.raises(DataError, match=r"entropies-1a2b\.f32: is damaged, a value is not finite; delete it"):
        store.read(3, 6)
