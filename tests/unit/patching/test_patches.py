import torch

from blt.patching import Patches

PATCHES = Patches(ends=torch.tensor([[True, False, True, False, False], [False, False, False, False, True]]))


def test_ids_count_patches_from_zero():
    assert PATCHES.ids.tolist() == [[0, 1, 1, 2, 2], [0, 0, 0, 0, 0]]


def test_the_byte_that_ends_a_patch_already_reads_it():
    assert PATCHES.readable.tolist() == [[0, 0, 1, 1, 1], [-1, -1, -1, -1, 0]]


def test_slots_hold_the_complete_patches_of_each_row():
    assert PATCHES.num_complete.tolist() == [2, 1]
    assert PATCHES.num_slots == 2
    assert PATCHES.is_complete.tolist() == [[True, True], [True, False]]
    assert PATCHES.end_positions.tolist() == [[0, 2], [4, 0]]
    assert PATCHES.lengths.tolist() == [[1, 2], [5, 0]]


def test_slots_are_rounded_up_to_a_multiple():
    rounded = Patches(ends=PATCHES.ends, slots_multiple=4)
    assert rounded.is_complete.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert rounded.lengths.tolist() == [[1, 2, 0, 0], [5, 0, 0, 0]]


def test_a_row_without_a_complete_patch_has_one_empty_slot():
    for length in (0, 3):
        patches = Patches(ends=torch.zeros(2, length, dtype=torch.bool))
        assert patches.num_slots == 1
        assert patches.lengths.tolist() == [[0], [0]]
        assert patches.readable.tolist() == [[-1] * length] * 2
