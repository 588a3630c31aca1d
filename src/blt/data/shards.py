"""A prepared corpus: documents one after another, in files of which only the parts that are asked for are read.

    folder/index.json                    what is there: splits, checksums, sources, settings
    folder/train/shards.table            bytes, documents and checksums of each shard
    folder/train/shard-00000.bin         the bytes of whole documents, nothing between them
    folder/train/shard-00000.ends        int64, little-endian: where each document of the shard ends
    folder/validation/...                the same

The *id stream* of a split is every document in order, each as BOS, its bytes, EOS.

What is held per split is a few numbers per shard, and nothing per document: a slice of the stream finds its shard by
binary search, and its documents by binary search in the ends of that shard.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blt.data.index import read_index
from blt.data.shard import Shard
from blt.data.shard_folder import ShardFolder
from blt.data.store import Store, is_address, local_path
from blt.data.store_folder import StoreFolder, read_stored_index
from blt.errors import DataError

_HASH_CHUNK = 1 << 22

Source: TypeAlias = ShardFolder | StoreFolder
"""A prepared folder, on this machine or at an address."""


class Part(NamedTuple):
    """Where a split lies in what it was joined to."""

    ids: range
    """Its slice of the id stream."""
    documents: range
    """Its documents."""


class Shards:
    """The documents of one split, by number or as slices of the id stream."""

    def __init__(
        self,
        num_bytes: NDArray[np.int64],
        num_documents: NDArray[np.int64],
        shard: Callable[[int], Shard],
        *,
        source: Source | None = None,
        parts: Sequence["Shards"] = (),
    ) -> None:
        """Wrap what `open`, `of` and `from_documents` have found.

        Args:
            num_bytes: bytes of text in each shard.
            num_documents: documents in each shard.
            shard: opens a shard by its number.
            source: the prepared folder that the shards lie in, if they lie in one.
            parts: what they were joined of, if they were.
        """
        self._byte_offsets = _offsets(num_bytes)
        self._document_offsets = _offsets(num_documents)
        self._id_offsets = self._byte_offsets + 2 * self._document_offsets
        self._shard = shard
        self._source = source
        self._parts = tuple(parts)

    @classmethod
    def open(cls, folder: str | Path, *, split: str = "train", on_file: Callable[[], None] = lambda: None) -> "Shards":
        """Open a folder that `blt prepare` wrote; shards are mapped, or read part by part, when they are first read.

        A split of at most `CHECKED_AT_OPENING` bytes on this machine is compared with its sha256, unless it was before.

        Args:
            folder: the folder with `index.json`: a path, or an address such as `s3://bucket/corpus`.
            split: `train` or `validation`.
            on_file: told after each file that was compared.

        Raises:
            DataError: the folder is missing, foreign, damaged, has no document in that split, or cannot be read.
            MissingExtraError: it is at an address, and fsspec is not installed.
        """
        source: Source = (
            StoreFolder.find(str(folder), split) if is_address(folder) else ShardFolder.find(local_path(folder), split)
        )
        source.check(on_file=on_file)
        return cls.of_folder(source)

    @classmethod
    def of_folder(cls, source: Source) -> "Shards":
        """Wrap the shards of a folder; their sha256 are not looked at."""
        return cls(source.table["num_bytes"], source.table["num_documents"], source.shard, source=source)

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "Shards":
        """Wrap shards that are in memory."""
        num_bytes, num_documents = zip(*((len(shard.text), len(shard.ends)) for shard in shards), strict=True)
        return cls(np.array(num_bytes), np.array(num_documents), shards.__getitem__)

    @classmethod
    def join(cls, parts: Sequence["Shards"]) -> "Shards":
        """Return splits one after another, as one; of one alone, itself."""
        if len(parts) == 1:
            return parts[0]
        firsts = _offsets(np.array([part.num_shards for part in parts]))

        def shard(number: int) -> Shard:
            ((part, inner, _),) = _spans(firsts, number, number + 1)
            return parts[part]._shard(inner)  # noqa: SLF001 (of the same class)

        num_bytes, num_documents = (
            np.concatenate([np.diff(getattr(part, name)) for part in parts])
            for name in ("_byte_offsets", "_document_offsets")
        )
        return cls(num_bytes, num_documents, shard, parts=parts)

    @classmethod
    def from_documents(cls, documents: Sequence[bytes]) -> "Shards":
        """Hold documents in memory, as for tests, examples and small data; empty ones are dropped.

        Raises:
            DataError: there is no document.
        """
        kept = [document for document in documents if document]
        if not kept:
            raise DataError("no documents: expected at least one that is not empty")
        ends = np.cumsum([len(document) for document in kept], dtype=np.int64)
        return cls.of([Shard(text=np.frombuffer(b"".join(kept), np.uint8), ends=ends)])

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that the shards lie in, if they lie in one."""
        return None if self._source is None else self._source.folder

    @property
    def place(self) -> str:
        """Names where the shards lie: a folder, an address, or several; empty if they are in memory."""
        return " + ".join(part.place for part in self._parts) if self._source is None else self._source.place

    @property
    def readers(self) -> int:
        """How many slices are best read at the same time."""
        readers = [part.readers for part in self._parts]
        return max([1 if self._source is None else self._source.readers, *readers])

    @property
    def is_checked(self) -> bool:
        """Whether the files were compared with their checksums, now or before, or there are none."""
        own = self._source is None or self._source.is_checked
        return own and all(part.is_checked for part in self._parts)

    @property
    def parts(self) -> list[Part]:
        """The splits that these were joined of, or the whole if they were not."""
        parts = self._parts or (self,)
        ids, documents = ([getattr(part, name) for part in parts] for name in ("num_ids", "num_documents"))
        return [Part(*ranges) for ranges in zip(_ranges(ids), _ranges(documents), strict=True)]

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self._id_offsets) - 1

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return int(self._document_offsets[-1])

    @property
    def num_bytes(self) -> int:
        """Bytes of text, without BOS and EOS."""
        return int(self._byte_offsets[-1])

    @property
    def num_ids(self) -> int:
        """Length of the id stream: every byte of text, and BOS and EOS of every document."""
        return int(self._id_offsets[-1])

    def id_offset(self, document: int) -> int:
        """Return where a document's BOS stands in the id stream; its length for the number of documents.

        Raises:
            IndexError: there is no such document.
        """
        if not 0 <= document <= self.num_documents:
            raise IndexError(f"document {document} is none of the {self.num_documents} documents")
        if document == self.num_documents:
            return self.num_ids
        ((number, inner, _),) = _spans(self._document_offsets, document, document + 1)
        return int(self._id_offsets[number]) + (self._shard(number).id_offset(inner) if inner else 0)

    def id_offsets(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return where the BOS of documents stand in the id stream.

        Args:
            first: number of a document.
            stop: number of the document after the last; the number of documents stands for the stream's end.

        Returns:
            The places of the documents from `first` to `stop`, both included: stop − first + 1 numbers.

        Raises:
            IndexError: there are no such documents.
            DataError: the ends of a shard's documents are damaged.
        """
        if not 0 <= first <= stop <= self.num_documents:
            raise IndexError(f"documents {first}..{stop} reach outside the {self.num_documents} documents")
        pieces = []
        for number, *span in _spans(self._document_offsets, first, stop):
            pieces.append(self._shard(number).id_offsets(*span)[:-1] + self._id_offsets[number])
        return np.concatenate([*pieces, [self.id_offset(stop)]])

    def document(self, number: int) -> NDArray[np.uint8]:
        """Return the bytes of one document, without BOS and EOS; they are not copied and cannot be written.

        Raises:
            IndexError: there is no such document.
            DataError: the ends of its shard's documents are damaged.
        """
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} is none of the {self.num_documents} documents")
        ((shard, inner, _),) = _spans(self._document_offsets, number, number + 1)
        return self._shard(shard).document(inner)

    def ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return a slice of the id stream, across documents and shards.

        Raises:
            IndexError: the slice reaches outside the stream.
            DataError: the ends of a shard's documents are damaged.
        """
        if not 0 <= start <= stop <= self.num_ids:
            raise IndexError(f"ids {start}..{stop} reach outside the stream of {self.num_ids} ids")
        pieces = [self._shard(number).ids(*span) for number, *span in _spans(self._id_offsets, start, stop)]
        if not pieces:
            return np.zeros(0, np.int64)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    @cached_property
    def checksum(self) -> str:
        """One sha256 of the documents and their order; the same however they are cut into shards.

        That of joined splits is made of theirs.
        """
        if self._parts:
            return hashlib.sha256("\n".join(part.checksum for part in self._parts).encode()).hexdigest()
        return self.compute_checksum() if self._source is None else str(self._source.entry["checksum"])

    def compute_checksum(self, *, on_shard: Callable[[], None] = lambda: None) -> str:
        """Compute `checksum` from the bytes themselves.

        Args:
            on_shard: told before each shard.
        """
        text = hashlib.sha256()
        for shard in self._every_shard():
            on_shard()
            for start in range(0, len(shard.text), _HASH_CHUNK):
                text.update(shard.text[start : start + _HASH_CHUNK].tobytes())
        whole = hashlib.sha256(text.digest())
        for number, shard in enumerate(self._every_shard()):
            on_shard()
            for first in range(0, len(shard.ends), _HASH_CHUNK):
                ends = shard.ends[first : first + _HASH_CHUNK] + self._byte_offsets[number]
                whole.update(ends.astype("<i8").tobytes())
        return whole.hexdigest()

    def verify(self) -> None:
        """Read every file once and compare it with its sha256; documents in memory need no such thing.

        Raises:
            DataError: a file has changed since it was prepared.
        """
        for part in self._parts:
            part.verify()
        if self._source is None:
            return
        self._source.verify()
        for shard in self._every_shard():
            shard.id_offsets(0, len(shard.ends))
        if self.compute_checksum() != self._source.entry["checksum"]:
            raise DataError(f"{self.place}/index.json: the checksum is not that of the documents; prepare it anew")

    def _every_shard(self) -> Iterator[Shard]:
        shard = self._shard if self._source is None else self._source.whole_shard
        return (shard(number) for number in range(self.num_shards))


def index_of(folder: str | Path) -> dict[str, Any]:
    """Read and check the index of a prepared folder, at a path or an address; as `read_index` does."""
    return read_stored_index(Store(str(folder)))[1] if is_address(folder) else read_index(local_path(folder))


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of the pieces that lie one after another starts, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _ranges(lengths: Sequence[int]) -> list[range]:
    """Return the numbers that each of the pieces has which lie one after another."""
    return [range(start, stop) for start, stop in itertools.pairwise(_offsets(np.array(lengths)).tolist())]


def _spans(offsets: NDArray[np.int64], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and stop within it of each piece that a slice reaches into."""
    number = int(np.searchsorted(offsets, start, side="right")) - 1
    while start < stop:
        begin, end = int(offsets[number]), int(offsets[number + 1])
        yield number, start - begin, min(stop, end) - begin
        start, number = end, number + 1
