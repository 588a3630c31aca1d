import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.codec import BOS_ID
from blt.data import EntropyStore, Shards, Windows
from blt.data.mixture import MixedSource
from blt.data.order import KEYED, TABLE
from blt.errors import ConfigurationError, DataError
from blt.loss import NOT_PREDICTED

corpora = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=12)


@given(corpora, st.integers(1, 20), st.integers(0, 3), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_serves_every_window_once_and_every_id_at_least_once(documents, window, seed, epoch):
    shards = Shards.from_documents(documents)
    windows = Windows(shards, sequence_length=window, seed=seed)
    starts = [windows.start_of(epoch * windows.num_windows + k) for k in range(windows.num_windows)]
    assert len(set(starts)) == windows.num_windows
    covered = {(start + t) % shards.num_ids for start in starts for t in range(window)}
    assert covered == set(range(shards.num_ids))


@given(corpora, st.integers(1, 20), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_ranks_together_get_what_one_rank_would(documents, window, rows, world_size, step):
    shards = Shards.from_documents(documents)
    parts = [
        Windows(shards, sequence_length=window, seed=1).batch(step, rows=rows, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    whole = Windows(shards, sequence_length=window, seed=1).batch(step, rows=rows * world_size)
    assert torch.equal(torch.cat([part.byte_ids for part in parts]), whole.byte_ids)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


@given(corpora, st.integers(1, 20), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_target_is_the_next_id_unless_it_is_a_bos_or_past_the_end(documents, window, step):
    shards = Shards.from_documents(documents)
    stream = shards.ids(0, shards.num_ids)
    windows = Windows(shards, sequence_length=window, seed=5)
    batch = windows.batch(step, rows=3)
    for row in range(3):
        start = windows.start_of(3 * step + row)
        for t in range(min(window, shards.num_ids)):
            assert batch.byte_ids[row, t] == stream[(start + t) % shards.num_ids]
            following = stream[(start + t + 1) % shards.num_ids]
            assert batch.targets[row, t] == (NOT_PREDICTED if following == BOS_ID else following)
    assert batch.byte_ids.shape == batch.targets.shape == (3, min(window, shards.num_ids))


def test_rows_are_no_longer_than_a_corpus_so_that_nothing_is_computed_for_padding():
    batch = Windows(Shards.from_documents([b"a"]), sequence_length=5, seed=0).batch(3, rows=2)
    assert batch.byte_ids.tolist() == [[1, 101, 2]] * 2
    assert batch.targets.tolist() == [[101, 2, -100]] * 2


def test_a_batch_does_not_depend_on_what_was_asked_before():
    shards = Shards.from_documents([bytes(range(200))] * 3)
    fresh = Windows(shards, sequence_length=7, seed=2).batch(90, rows=4)
    used = Windows(shards, sequence_length=7, seed=2)
    for step in (0, 200, 3, 90, 91):
        used.batch(step, rows=4)
    assert torch.equal(used.batch(90, rows=4).byte_ids, fresh.byte_ids)


def test_epochs_differ_in_order_and_offset_and_so_do_seeds():
    shards = Shards.from_documents([bytes(range(250))] * 4)

    def starts(seed, epoch):
        windows = Windows(shards, sequence_length=10, seed=seed)
        return [windows.start_of(epoch * windows.num_windows + k) for k in range(windows.num_windows)]

    assert len({tuple(starts(seed, epoch)) for seed in range(2) for epoch in range(4)}) == 8
    assert len({min(starts(0, epoch)) for epoch in range(20)}) > 3


@pytest.mark.parametrize("order", [TABLE, KEYED])
def test_the_order_of_windows_never_changes_between_versions(order):
    windows = Windows(Shards.from_documents([bytes(90)]), sequence_length=10, seed=1, order=order)
    assert [windows.start_of(k) for k in range(20)] == TWO_EPOCHS_OF_SEED_1[order]


TWO_EPOCHS_OF_SEED_1: dict[int, list[int]] = {
    TABLE: [18, 8, 38, 48, 58, 68, 78, 6, 28, 88, 4, 66, 6, 56, 86, 26, 46, 76, 16, 36],
    KEYED: [8, 68, 18, 78, 38, 58, 48, 88, 28, 6, 76, 56, 36, 26, 6, 4, 46, 66, 16, 86],
}


@given(corpora, st.integers(1, 20), st.integers(1, 3), st.integers(0, 9), st.sampled_from([TABLE, KEYED]))
@settings(max_examples=60, deadline=None)
def test_a_row_does_not_depend_on_the_batch_that_it_comes_in(documents, window, rows, step, order):
    windows = Windows(Shards.from_documents(documents), sequence_length=window, seed=1, order=order)
    batch = windows.batch(step, rows=rows)
    for row, number in enumerate(batch.numbers.tolist()):
        assert torch.equal(batch.byte_ids[row], windows.rows([number]).byte_ids[0])


@st.composite
def mixtures(draw):
    """Splits, weights and limits of a mixture, and a length that no split is shorter than."""
    splits = draw(st.lists(corpora, min_size=1, max_size=4))
    shortest = min(sum(len(document) + 2 for document in documents) for documents in splits)
    weights = draw(st.lists(st.floats(0.1, 10), min_size=len(splits), max_size=len(splits)))
    return splits, weights, draw(st.integers(1, shortest))


def mixed(splits, weights, length, *, epochs=None, **options):
    joined = Shards.join([Shards.from_documents(documents) for documents in splits])
    sources = [
        MixedSource(ids=part.ids, weight=weight, epochs=epochs)
        for part, weight in zip(joined.parts, weights, strict=True)
    ]
    return Windows(joined, sequence_length=length, seed=3, sources=sources, **options)


@given(mixtures(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_source_of_a_mixture_is_read_as_if_it_were_alone_and_never_into_another(mixture, epochs):
    splits, weights, length = mixture
    windows = mixed(splits, weights, length, epochs=float(epochs))
    rows = {source: [] for source in range(len(splits))}
    for number in range(windows.num_rows):
        rows[windows.source_of(number)].append(windows.rows([number]))
    for source, documents in enumerate(splits):
        alone = Windows(Shards.from_documents(documents), sequence_length=length, seed=3)
        assert len(rows[source]) == epochs * alone.num_windows
        for epoch in range(epochs):
            part = rows[source][epoch * alone.num_windows : (epoch + 1) * alone.num_windows]
            covered = torch.cat([row.byte_ids[0] for row in part])
            stream = torch.from_numpy(Shards.from_documents(documents).ids(0, alone._shards.num_ids))
            assert set(covered.tolist()) == set(stream.tolist())
            if source == 0:  # the first is read in the very order of a corpus that is no mixture
                wanted = alone.batch(epoch, rows=alone.num_windows)
                assert torch.equal(torch.cat([row.byte_ids for row in part]), wanted.byte_ids)
                assert torch.equal(torch.cat([row.targets for row in part]), wanted.targets)


@given(mixtures(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_ranks_together_get_what_one_rank_would_of_a_mixture_too(mixture, rows, world_size, step):
    parts = [mixed(*mixture).batch(step, rows=rows, rank=rank, world_size=world_size) for rank in range(world_size)]
    wanted = mixed(*mixture).batch(step, rows=rows * world_size)
    assert torch.equal(torch.cat([part.byte_ids for part in parts]), wanted.byte_ids)
    assert torch.equal(torch.cat([part.targets for part in parts]), wanted.targets)


def test_entropies_of_a_mixture_come_with_the_ids_they_belong_to():
    splits = [[b"abcdef", b"ghi"], [b"jklmnopq"]]
    joined = Shards.join([Shards.from_documents(documents) for documents in splits])
    store = EntropyStore(joined.ids(0, joined.num_ids).astype(np.float32))
    batch = mixed(splits, [1.0, 2.0], 6, entropies=store).batch(0, rows=12)
    assert torch.equal(batch.entropies, batch.byte_ids.float())


def test_a_source_shorter_than_a_row_is_refused():
    with pytest.raises(ConfigurationError, match="sources: one of 4 ids is shorter than a row, sequence_length 5"):
        mixed([[b"abcdef"], [b"ab"]], [1.0, 1.0], 5)
    with pytest.raises(ConfigurationError, match=r"epochs: 0\.0; above 0, and finite"):
        mixed([[b"abcdef"]], [1.0], 5, epochs=0.0)
    with pytest.raises(ConfigurationError, match="order: 3; 1 or 2"):
        mixed([[b"abcdef"]], [1.0], 5, order=3)


def test_entropies_come_with_the_ids_they_belong_to():
    shards = Shards.from_documents([b"abcdef", b"ghi", b"jklmnopq"])
    stream = shards.ids(0, shards.num_ids)
    store = EntropyStore(stream.astype(np.float32))
    batch = Windows(shards, sequence_length=6, seed=0, entropies=store).batch(0, rows=8)
    assert batch.entropies is not None
    assert torch.equal(batch.entropies, batch.byte_ids.float())


def test_entropies_of_a_corpus_shorter_than_a_window_are_as_long_as_it():
    shards = Shards.from_documents([b"ab"])
    batch = Windows(shards, sequence_length=6, seed=0, entropies=EntropyStore(np.ones(4, np.float32))).batch(0, rows=1)
    assert batch.entropies is not None
    assert batch.entropies.tolist() == [[1, 1, 1, 1]]


def test_entropies_of_another_split_are_refused():
    with pytest.raises(DataError, match="entropies of 3 ids do not fit shards of 4 ids"):
        Windows(
            Shards.from_documents([b"ab"]), sequence_length=6, seed=0, entropies=EntropyStore(np.ones(3, np.float32))
        )


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"sequence_length": 0}, "sequence_length: expected at least 1"), ({"seed": -1}, "seed: expected 0 or more")],
)
def test_impossible_windows_are_refused(bad, message):
    with pytest.raises(ConfigurationError, match=message):
        Windows(Shards.from_documents([b"ab"]), **{"sequence_length": 4, "seed": 0} | bad)


@pytest.mark.parametrize("bad", [{"rows": 0}, {"rank": 1}, {"rank": 2, "world_size": 2}, {"step": -1}])
def test_impossible_batches_are_refused(bad):
    windows = Windows(Shards.from_documents([b"ab"]), sequence_length=4, seed=0)
    with pytest.raises(ConfigurationError):
        windows.batch(**{"step": 0, "rows": 1} | bad)
