import torch

from blt.codec import BOS_ID, EOS_ID
from blt.data import Batch
from blt.loss import NOT_PREDICTED

IDS = torch.tensor([[BOS_ID, 100, 101, EOS_ID, EOS_ID], [BOS_ID, 102, EOS_ID, EOS_ID, EOS_ID]])


def batch():
    return Batch.of(IDS, lengths=torch.tensor([4, 3]), numbers=torch.tensor([7, 5]), entropies=torch.rand(2, 4))


def test_a_batch_reads_all_ids_but_the_last():
    assert batch().byte_ids.tolist() == IDS[:, :-1].tolist()
    assert batch().targets.tolist() == [[100, 101, EOS_ID, NOT_PREDICTED], [102, EOS_ID, NOT_PREDICTED, NOT_PREDICTED]]


def test_padding_is_not_read():
    assert batch().is_read.tolist() == [[True] * 4, [True, True, True, False]]


def test_without_lengths_every_id_is_read():
    assert Batch.of(IDS).lengths.tolist() == [4, 4]
    assert Batch.of(IDS).numbers.tolist() == [0, 1]


def test_a_part_of_the_rows_keeps_all_that_belongs_to_them():
    whole, part = batch(), batch().rows(slice(1, 2))
    assert part.numbers.tolist() == [5]
    assert part.lengths.tolist() == [3]
    assert part.byte_ids.tolist() == whole.byte_ids[1:].tolist()
    assert part.targets.tolist() == whole.targets[1:].tolist()
    assert part.entropies.shape == (1, 4)


def test_the_first_ids_of_rows_keep_their_targets():
    first = batch().first(3)
    assert first.byte_ids.tolist() == IDS[:, :3].tolist()
    assert first.targets.tolist() == [[100, 101, EOS_ID], [102, EOS_ID, NOT_PREDICTED]]
    assert first.lengths.tolist() == [3, 3]
    assert first.entropies.shape == (2, 3)
