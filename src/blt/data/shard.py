"""One shard: the bytes of whole documents, and where each ends, read only where a document or a slice needs them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID
from blt.errors import DataError

_SEARCHED = 1024
"""Ends that are looked at together in a search."""


@runtime_checkable
class Text(Protocol):
    """Bytes that can be sliced: mapped into memory, held in it, or far away."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[np.uint8]: ...


@runtime_checkable
class Ends(Protocol):
    """Where documents end in a text, int64, that can be sliced: an array, or far away."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[np.int64]: ...


class StoredEnds:
    """The ends of documents in a text of their own: eight bytes each, little-endian."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __len__(self) -> int:
        return len(self._text) // 8

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        start, stop, _ = part.indices(len(self))
        return self._text[8 * start : 8 * stop].view("<i8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The documents of one shard, by number or as slices of its id stream; all numbers count from the shard's start."""

    text: Text
    """Its documents, nothing between them."""
    ends: Ends
    """Where each document ends in the text."""
    where: str = "documents in memory"
    """Names the ends in messages."""

    @property
    def num_ids(self) -> int:
        """Length of its id stream: every byte of text, and BOS and EOS of every document."""
        return len(self.text) + 2 * len(self.ends)

    def id_offset(self, number: int) -> int:
        """Return where a document's BOS stands in the id stream; the stream's length for the number of documents."""
        return int(self.ends[number - 1 : number][0]) + 2 * number if number else 0

    def id_offsets(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return where the BOS of the documents from `first` to `stop` stand: `stop - first + 1` numbers.

        Raises:
            DataError: no documents end there.
        """
        ends = np.empty(stop - first + 1, np.int64)
        ends[0] = 0
        ends[int(first == 0) :] = self.ends[max(first - 1, 0) : stop]
        if not (ends[0] >= 0 and ends[-1] <= len(self.text) and (ends[1:] > ends[:-1]).all()):
            raise self._misfit()
        return ends + np.arange(2 * first, 2 * stop + 1, 2)

    def document(self, number: int) -> NDArray[np.uint8]:
        """Return the bytes of one document; they are not copied where they are in memory.

        Raises:
            DataError: no document ends there.
        """
        offsets = self.id_offsets(number, number + 1)
        return self.text[int(offsets[0]) - 2 * number : int(offsets[1]) - 2 * (number + 1)]

    def ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return a slice of the id stream that is not empty and lies within it.

        Raises:
            DataError: the ends of its documents are none.
        """
        first, offsets = self._offsets_from(start)
        if offsets[-1] < stop:  # a document has at least 3 ids
            offsets = self.id_offsets(first, min(first + (stop - start) // 3 + 2, len(self.ends)))
        offsets = offsets[: int(offsets.searchsorted(stop)) + 1]
        if not offsets[0] <= start < stop <= offsets[-1]:
            raise self._misfit()
        bos, eos = offsets[:-1] - start, offsets[1:] - 1 - start
        bos = bos[int(bos[0] < 0) :]  # only the first may lie before the slice
        eos = eos[: len(eos) - int(eos[-1] >= stop - start)]  # only the last may lie after it
        is_text = np.ones(stop - start, np.bool_)
        is_text[bos] = is_text[eos] = False
        # Of the first document's ids before the slice, all but its BOS are bytes, or its EOS where the slice begins
        # with that.
        begun = int(offsets[0]) - 2 * first
        end = int(offsets[1]) - 2 * (first + 1)
        first_byte = min(begun + max(start - int(offsets[0]) - 1, 0), end)
        text = self.text[first_byte : first_byte + len(is_text) - len(bos) - len(eos)]
        ids = np.empty(stop - start, np.int64)
        ids[bos], ids[eos] = BOS_ID, EOS_ID
        ids[is_text] = np.add(text, BYTE_OFFSET, dtype=np.int64)
        return ids

    def _offsets_from(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """Return which document a position of the id stream lies in, and where that and some behind it have their BOS.

        Raises:
            DataError: the ends that were met are none.
        """
        # Documents are of about equal length in the mean, so that the place of a document among all is guessed from the
        # position (interpolation search), and the ends around it are read at once: they may be far away, and one or two
        # such parts nearly always suffice. Where lengths are so unequal that guesses miss, every second one halves what
        # is left.
        low, high = 0, len(self.ends)
        at_low, at_high = 0, self.num_ids
        is_guessed = True
        while low < high:
            share = (position - at_low) / (at_high - at_low) if is_guessed else 0.5
            first = max(low, min(low + int(share * (high - low)) - _SEARCHED // 2, high - _SEARCHED))
            stop = min(first + _SEARCHED, high)
            offsets = self.id_offsets(first, stop)
            if position < offsets[0]:
                high, at_high = first, int(offsets[0])
            elif position >= offsets[-1]:
                low, at_low = stop, int(offsets[-1])
            else:
                behind = int(offsets.searchsorted(position, side="right")) - 1
                return first + behind, offsets[behind:]
            is_guessed = not is_guessed
        raise self._misfit()

    def _misfit(self) -> DataError:
        return DataError(f"{self.where}: does not fit its shard; prepare again with --overwrite")
