"""One shard: the bytes of whole documents, and where each ends, read only where a document or a slice needs them."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID
from blt.errors import DataError


@runtime_checkable
class Text(Protocol):
    """Bytes that can be sliced: mapped into memory, held in it, or far away."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The documents of one shard, by number or as slices of its id stream; all numbers count from the shard's start."""

    text: Text
    """Its documents, nothing between them."""
    ends: NDArray[np.int64]
    """Where each document ends in the text."""
    where: str = "documents in memory"
    """Names the ends in messages."""

    @property
    def num_ids(self) -> int:
        """Length of its id stream: every byte of text, and BOS and EOS of every document."""
        return len(self.text) + 2 * len(self.ends)

    def end(self, number: int) -> int:
        """Return where a document ends in the text; document −1 ends at its start."""
        return int(self.ends[number]) if number >= 0 else 0

    def id_offset(self, number: int) -> int:
        """Return where a document's BOS stands in the id stream; the stream's length for the number of documents."""
        return self.end(number - 1) + 2 * number

    def id_offsets(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return where the BOS of the documents from `first` to `stop` stand: `stop - first + 1` numbers.

        Raises:
            DataError: no documents end there.
        """
        ends = np.empty(stop - first + 1, np.int64)
        ends[0] = self.end(first - 1)
        ends[1:] = self.ends[first:stop]
        if not (ends[0] >= 0 and ends[-1] <= len(self.text) and (ends[1:] > ends[:-1]).all()):
            raise DataError(f"{self.where}: does not fit its shard; prepare again with --overwrite")
        return ends + 2 * np.arange(first, stop + 1)

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
        first = self._document_at(start, range(len(self.ends)))
        at_most = min(first + (stop - start) // 3 + 2, len(self.ends))  # a document has at least 3 ids
        last = self._document_at(stop - 1, range(first, at_most))
        offsets = self.id_offsets(first, last + 1)
        if not offsets[0] <= start < stop <= offsets[-1]:  # ends that are out of order mislead a binary search
            raise DataError(f"{self.where}: does not fit its shard; prepare again with --overwrite")
        bos, eos = offsets[:-1] - start, offsets[1:] - 1 - start
        ids = np.zeros(stop - start, np.int64)
        ids[bos[bos >= 0]] = BOS_ID  # only the first may lie before the slice
        ids[eos[eos < len(ids)]] = EOS_ID  # only the last may lie after it
        is_text = ids == 0
        # Of the first document's ids before the slice, all but its BOS are bytes, or its EOS where the slice begins
        # with that.
        begun = int(offsets[0]) - 2 * first
        end = int(offsets[1]) - 2 * (first + 1)
        first_byte = min(begun + max(start - int(offsets[0]) - 1, 0), end)
        ids[is_text] = self.text[first_byte : first_byte + int(is_text.sum())]
        ids[is_text] += BYTE_OFFSET
        return ids

    def _document_at(self, position: int, documents: range) -> int:
        """Return which of some documents a position of the id stream lies in, by a binary search over the ends."""
        return documents.start + max(bisect_right(documents, position, key=self.id_offset) - 1, 0)
