"""Training batches: windows of the id stream, in an order that is a pure function of seed and step.

No state is kept that a resumed run would need: `Windows.batch(step)` gives the same batch at any time, in any process.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blt.codec import EOS_ID
from blt.configuration import check
from blt.data.batch import Batch
from blt.data.entropies import EntropyStore
from blt.data.mixture import MixedSource, Mixture
from blt.data.order import KEYED, NUM_ROUNDS, TABLE, keyed_order, raw_bits, table_order
from blt.data.shards import Shards
from blt.errors import DataError


class Windows:
    """Cuts the id stream into windows and serves them in a new order each epoch.

    Every epoch cuts at another offset. The stream is taken as a ring: the last window goes on at the first document,
    so that every id is an input in every epoch. Of a stream shorter than one window, rows are all of it.

    In a mixture each source is such a ring, with epochs of its own, and rows come from the sources in turn.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        sequence_length: int,
        seed: int,
        entropies: EntropyStore | None = None,
        sources: Sequence[MixedSource] = (),
        order: int = KEYED,
    ) -> None:
        """Take a split and say how to cut it.

        Args:
            shards: the split.
            sequence_length: ids per row, or as many as there are.
            seed: chooses offsets and orders; 0 or more.
            entropies: stored entropies of the same split, to be served with the ids.
            sources: a mixture of slices of the split; none: the whole of it.
            order: version of the order of windows, `KEYED` or, for runs that began with it, `TABLE`.

        Raises:
            ConfigurationError: the sequence length is not positive, the seed is negative, a source of a mixture is
                shorter than a row, or there is no such order.
            DataError: the entropies are of another split.
        """
        check(sequence_length >= 1, f"sequence_length: expected at least 1 id, got {sequence_length}")
        check(seed >= 0, f"seed: expected 0 or more, got {seed}")
        check(order in (TABLE, KEYED), f"order: {order}; {TABLE} or {KEYED}")
        if entropies is not None and entropies.num_ids != shards.num_ids:
            raise DataError(f"entropies of {entropies.num_ids} ids do not fit shards of {shards.num_ids} ids")
        for source in sources:
            short = (
                f"sources: one of {len(source.ids):,} ids is shorter than a row, sequence_length {sequence_length:,}"
            )
            check(len(source.ids) >= sequence_length, f"{short}; leave it out, or make rows shorter")
            check(
                source.ids.start >= 0 and source.ids.stop <= shards.num_ids,
                f"sources: {source.ids} is not in the split",
            )
        self.sequence_length = min(sequence_length, shards.num_ids)
        slices = [source.ids for source in sources] or [range(shards.num_ids)]
        self._rings = [
            _Ring(ids, sequence_length=sequence_length, seed=seed, source=number, order=order)
            for number, ids in enumerate(slices)
        ]
        self.num_windows = sum(ring.num_windows for ring in self._rings)
        self._mixture = _mixture_of(sources, self._rings)
        self._is_short = shards.num_ids < sequence_length
        self._shards = shards
        self._entropies = entropies

    @property
    def num_rows(self) -> int | None:
        """Rows until every source of a mixture has been read as often as it may be; None: without end."""
        return None if self._mixture is None else self._mixture.num_rows

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
        spans = [self._spans(ring, start) for ring, start in self._places(numbers)]
        ids = torch.from_numpy(np.stack(self._ids_of_rows(spans)))  # B T+1
        lengths = torch.full((len(numbers),), self._shards.num_ids) if self._is_short else None
        entropies = None
        if self._entropies is not None:
            entropies = torch.from_numpy(np.stack([self._entropies_of(self._entropies, row) for row in spans]))  # B T
        return Batch.of(ids, lengths=lengths, numbers=torch.tensor(list(numbers)), entropies=entropies)

    def start_of(self, number: int) -> int:
        """Return where in the id stream the window with this running number starts, over all epochs."""
        ((ring, start),) = self._places([number])
        return ring.ids.start + start

    def epochs_of_sources(self, num_rows: int) -> list[float]:
        """Return how often the first rows read each source of a mixture, or the split that is none."""
        counts = [num_rows] if self._mixture is None else self._mixture.counts(num_rows)
        return [count / ring.num_windows for count, ring in zip(counts, self._rings, strict=True)]

    def source_of(self, number: int) -> int:
        """Return the number of the source that the window with this running number comes from; 0 without a mixture."""
        return 0 if self._mixture is None else self._mixture.locate(number)[0]

    def _places(self, numbers: Sequence[int]) -> list[tuple["_Ring", int]]:
        """Return the ring that each window lies in, and where in it the window starts."""
        located = [(0, number) if self._mixture is None else self._mixture.locate(number) for number in numbers]
        starts = np.empty(len(numbers), np.int64)
        for source, ring in enumerate(self._rings):
            chosen = [place for place, (of_row, _) in enumerate(located) if of_row == source]
            if chosen:
                starts[chosen] = ring.starts([located[place][1] for place in chosen])
        return [(self._rings[source], int(start)) for (source, _), start in zip(located, starts, strict=True)]

    def _spans(self, ring: "_Ring", start: int) -> list[tuple[int, int]]:
        """Return the slices of the id stream that a window and the id after it are made of."""
        if self._is_short:
            return [(0, self._shards.num_ids)]
        first, num_ids = ring.ids.start, len(ring.ids)
        stop = start + self.sequence_length + 1
        if stop <= num_ids:
            return [(first + start, first + stop)]
        return [(first + start, first + num_ids), (first, first + stop - num_ids)]

    def _ids_of_rows(self, rows: list[list[tuple[int, int]]]) -> list[NDArray[np.int64]]:
        """Return the ids of some windows; where each has to be waited for, they are read at the same time."""
        if self._shards.readers == 1 or len(rows) == 1:
            return [self._ids(row) for row in rows]
        with ThreadPoolExecutor(min(len(rows), self._shards.readers)) as pool:
            return list(pool.map(self._ids, rows))

    def _ids(self, spans: list[tuple[int, int]]) -> NDArray[np.int64]:
        """Return the ids of a window and the one after it."""
        pieces = [self._shards.ids(*span) for span in spans]
        if self._is_short:
            pieces.append(np.array([EOS_ID]))  # never predicted
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _entropies_of(self, entropies: EntropyStore, spans: list[tuple[int, int]]) -> NDArray[np.float32]:
        """Return the entropies of a window's ids."""
        return np.concatenate([entropies.read(*span) for span in spans])[: self.sequence_length]


class _Ring:
    """A slice of the id stream that is cut into windows, epoch after epoch."""

    def __init__(self, ids: range, *, sequence_length: int, seed: int, source: int, order: int) -> None:
        self.ids = ids
        self.num_windows = -(-len(ids) // sequence_length)
        self._sequence_length = sequence_length
        self._seed, self._source, self._order = seed, source, order
        self._bits: dict[int, NDArray[Any]] = {}
        self._tables: dict[int, NDArray[Any]] = {}

    def starts(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """Return where the windows with these running numbers, over all epochs, start in the slice."""
        if len(self.ids) < self._sequence_length:
            return np.zeros(len(numbers), np.int64)
        starts = np.empty(len(numbers), np.int64)
        epochs, places = np.divmod(np.array(numbers, np.int64), self.num_windows)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            # An epoch is a permutation of windows, and an offset below the sequence length that moves all of them.
            offset = int(self._bits_of(epoch)[0]) % self._sequence_length
            ordered = self._ordered(places[chosen], epoch=epoch)
            starts[chosen] = (ordered * self._sequence_length + offset) % len(self.ids)
        return starts

    def _ordered(self, places: NDArray[np.int64], *, epoch: int) -> NDArray[np.int64]:
        bits = self._bits_of(epoch)[1:]
        if self._order == KEYED:
            return keyed_order(places, size=self.num_windows, keys=bits)
        table = self._tables.get(epoch)
        if table is None:
            table = table_order(self.num_windows, bits=bits)
            _keep(self._tables, epoch, table)
        return table[places]

    def _bits_of(self, epoch: int) -> NDArray[np.uint64]:
        bits = self._bits.get(epoch)
        if bits is None:
            count = NUM_ROUNDS if self._order == KEYED else self.num_windows
            bits = raw_bits(1 + count, seed=self._seed, epoch=epoch, source=self._source)
            _keep(self._bits, epoch, bits)
        return bits


def _keep(by_epoch: dict[int, NDArray[Any]], epoch: int, values: NDArray[Any]) -> None:
    """Keep what belongs to an epoch beside that of one other: a batch may lie on the boundary of two."""
    for oldest in sorted(by_epoch)[:-1]:
        by_epoch.pop(oldest, None)  # another thread may have done it
    by_epoch[epoch] = values


def _mixture_of(sources: Sequence[MixedSource], rings: Sequence[_Ring]) -> Mixture | None:
    """Return which source each row comes from; None without a mixture.

    Raises:
        ConfigurationError: a weight or a number of epochs cannot be.
    """
    if not sources:
        return None
    limits = []
    for source, ring in zip(sources, rings, strict=True):
        epochs = source.epochs
        check(epochs is None or 0 < epochs < math.inf, f"epochs: {epochs}; above 0, and finite")
        limits.append(None if epochs is None else math.ceil(epochs * ring.num_windows))
    return Mixture([source.weight for source in sources], limits=limits)
