"""Training batches: windows of the id stream, in an order that is a pure function of seed and step.

No state is kept that a resumed run would need: `Windows.batch(step)` gives the same batch at any time, in any process.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import EOS_ID
from blt.configuration import check
from blt.data.batch import Batch
from blt.data.entropies import EntropyStore
from blt.data.shards import Shards
from blt.errors import DataError


class Windows:
    """Cuts the id stream into windows and serves them in a new order each epoch.

    Every epoch cuts at another offset. The stream is taken as a ring: the last window goes on at the first document,
    so that every id is an input in every epoch. Of a stream shorter than one window, rows are all of it.
    """

    def __init__(
        self, shards: Shards, *, sequence_length: int, seed: int, entropies: EntropyStore | None = None
    ) -> None:
        """Take a split and say how to cut it.

        Args:
            shards: the split.
            sequence_length: ids per row, or as many as there are.
            seed: chooses offsets and orders; 0 or more.
            entropies: stored entropies of the same split, to be served with the ids.

        Raises:
            ConfigurationError: the sequence length is not positive, or the seed is negative.
            DataError: the entropies are of another split.
        """
        check(sequence_length >= 1, f"sequence_length: expected at least 1 id, got {sequence_length}")
        check(seed >= 0, f"seed: expected 0 or more, got {seed}")
        if entropies is not None and entropies.num_ids != shards.num_ids:
            raise DataError(f"entropies of {entropies.num_ids} ids do not fit shards of {shards.num_ids} ids")
        self.sequence_length = min(sequence_length, shards.num_ids)
        self.num_windows = -(-shards.num_ids // sequence_length)
        self._is_short = shards.num_ids < sequence_length
        self._shards = shards
        self._seed = seed
        self._entropies = entropies
        self._starts_of_epochs: dict[int, NDArray[np.int64]] = {}

    def batch(self, step: int, *, rows: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return the batch of one step: the same for the same arguments, always.

        Args:
            step: number of the step, from 0; epochs follow each other without a gap.
            rows: rows for each rank.
            rank: which part of the step's rows to give.
            world_size: number of ranks; together they get what one rank with rows x world_size would.

        Raises:
            ConfigurationError: a number is out of its range.
        """
        check(step >= 0 and rows >= 1, f"expected step of 0 or more and rows of 1 or more, got {step} and {rows}")
        check(0 <= rank < world_size, f"rank: expected 0 to {world_size - 1}, got {rank}")
        first = (step * world_size + rank) * rows
        return self.rows(range(first, first + rows))

    def rows(self, numbers: Sequence[int]) -> Batch:
        """Return the windows with these running numbers, over all epochs; step s has those from s × batch size on."""
        starts = [self.start_of(number) for number in numbers]
        ids = torch.from_numpy(np.stack([self._ids(start) for start in starts]))  # B T+1
        lengths = torch.full((len(numbers),), self._shards.num_ids) if self._is_short else None
        entropies = None
        if self._entropies is not None:
            entropies = torch.from_numpy(np.stack([self._entropies_from(start) for start in starts]))  # B T
        return Batch.of(ids, lengths=lengths, numbers=torch.tensor(list(numbers)), entropies=entropies)

    def start_of(self, number: int) -> int:
        """Return where in the id stream the window with this running number starts, over all epochs."""
        epoch, place = divmod(number, self.num_windows)
        if epoch not in self._starts_of_epochs:
            while len(self._starts_of_epochs) > 1:  # a batch may lie on the boundary of two epochs
                self._starts_of_epochs.pop(min(self._starts_of_epochs))
            self._starts_of_epochs[epoch] = self._starts(epoch)
        return int(self._starts_of_epochs[epoch][place])

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Draw an epoch's offset and order from the raw bits of Philox, which no version of numpy may change."""
        # An epoch is a permutation of windows, and an offset below the sequence length that moves all of them.
        # Sorting random keys gives the permutation: argsort is stable and Philox's raw output is fixed, whereas the
        # algorithm of `Generator.permutation` may change between versions of NumPy, and a resumed run would then read
        # other windows.
        if self._is_short:
            return np.zeros(1, np.int64)
        bits = np.random.Philox(np.random.SeedSequence([self._seed, epoch])).random_raw(self.num_windows + 1)
        order = np.argsort(bits[1:], kind="stable")
        return (order * self.sequence_length + int(bits[0]) % self.sequence_length) % self._shards.num_ids

    def _ids(self, start: int) -> NDArray[np.int64]:
        """Return the ids of a window and the one after it."""
        if self._is_short:
            return np.append(self._shards.ids(0, self._shards.num_ids), EOS_ID)  # the EOS is never predicted
        stop = min(start + self.sequence_length + 1, self._shards.num_ids)
        ids = self._shards.ids(start, stop)
        rest = self.sequence_length + 1 - len(ids)
        return np.concatenate([ids, self._shards.ids(0, rest)]) if rest else ids

    def _entropies_from(self, start: int) -> NDArray[np.float32]:
        """Return the entropies of a window's ids."""
        assert self._entropies is not None, "only called with a store"
        if self._is_short:
            return self._entropies.read(0, self._shards.num_ids)
        values = self._entropies.read(start, min(start + self.sequence_length, self._shards.num_ids))
        rest = self.sequence_length - len(values)
        return np.concatenate([values, self._entropies.read(0, rest)]) if rest else values
