"""A prepared corpus: documents one after another, in files that are mapped into memory rather than read.

    folder/index.json                    what is there: splits, shards, checksums, sources, settings
    folder/train/shard-00000.bin         the bytes of whole documents, nothing between them
    folder/train/shard-00000.ends        int64, little-endian: where each document of the shard ends
    folder/validation/...                the same

The *id stream* of a split is every document in order, each as BOS, its bytes, EOS.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blt.codec import BOS_ID, BYTE_OFFSET, EOS_ID
from blt.data.checked_files import MappedFile, check_files
from blt.data.index import read_index
from blt.data.mapping import map_file
from blt.errors import DataError

_HASH_CHUNK = 1 << 22


class Shards:
    """The documents of one split, by number or as slices of the id stream."""

    def __init__(
        self,
        texts: Sequence[NDArray[np.uint8]],
        ends: NDArray[np.int64],
        *,
        folder: Path | None = None,
        entry: dict[str, Any] | None = None,
    ) -> None:
        """Wrap what `open` and `from_documents` have found.

        Args:
            texts: the bytes of each shard.
            ends: where each document ends, in bytes from the start of the split.
            folder: the folder that the texts are mapped from, if any.
            entry: the split's entry in `index.json`, if any.
        """
        self.folder = folder
        self._texts = list(texts)
        self._text_offsets = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
        self._byte_offsets = np.concatenate([np.zeros(1, np.int64), ends])
        self._entry = entry

    @classmethod
    def open(cls, folder: str | Path, *, split: str = "train", on_file: Callable[[], None] = lambda: None) -> "Shards":
        """Map a folder that `blt prepare` wrote, and compare its files with their sha256 unless they were before.

        Args:
            folder: the folder with `index.json`.
            split: `train` or `validation`.
            on_file: told after each file that was compared.

        Raises:
            DataError: the folder is missing, foreign, damaged, or has no document in that split.
        """
        folder = Path(folder)
        splits = read_index(folder)["splits"]
        if split not in splits:
            raise DataError(f"{folder}: has no split {split!r}; it has {', '.join(splits)}")
        entry = splits[split]
        if not entry["num_documents"]:
            raise DataError(f"{folder}: the split {split!r} has no documents; choose another --validation")
        files, shards = _map_shards(folder, entry)
        check_files(folder, files, on_file=on_file)
        return shards

    @classmethod
    def map_shards(cls, folder: Path, entry: dict[str, Any]) -> "Shards":
        """Map the shards that a split's entry in `index.json` lists; their sha256 are not looked at.

        Raises:
            DataError: a file is missing, has another size or impossible ends of documents.
        """
        return _map_shards(folder, entry)[1]

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
        return cls([np.frombuffer(b"".join(kept), np.uint8)], ends)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self._byte_offsets) - 1

    @property
    def num_bytes(self) -> int:
        """Bytes of text, without BOS and EOS."""
        return int(self._byte_offsets[-1])

    @property
    def num_ids(self) -> int:
        """Length of the id stream: every byte of text, and BOS and EOS of every document."""
        return self.num_bytes + 2 * self.num_documents

    @cached_property
    def document_id_offsets(self) -> NDArray[np.int64]:
        """Where each document's BOS stands in the id stream, and the stream's length: num_documents + 1 numbers."""
        return self._byte_offsets + 2 * np.arange(self.num_documents + 1)

    def document(self, number: int) -> NDArray[np.uint8]:
        """Return the bytes of one document, without BOS and EOS; they are not copied and cannot be written.

        Raises:
            IndexError: there is no such document.
        """
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} is none of the {self.num_documents} documents")
        return self._bytes(int(self._byte_offsets[number]), int(self._byte_offsets[number + 1]))

    def ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return a slice of the id stream, across documents and shards.

        Raises:
            IndexError: the slice reaches outside the stream.
        """
        if not 0 <= start <= stop <= self.num_ids:
            raise IndexError(f"ids {start}..{stop} reach outside the stream of {self.num_ids} ids")
        first, last = np.searchsorted(self.document_id_offsets, [start, stop], side="right")
        offsets = self.document_id_offsets[max(first - 1, 0) : last + 1]
        bos, eos = offsets - start, offsets[1:] - 1 - start
        ids = np.zeros(stop - start, np.int64)
        ids[bos[(bos >= 0) & (bos < len(ids))]] = BOS_ID
        ids[eos[(eos >= 0) & (eos < len(ids))]] = EOS_ID
        is_text = ids == 0
        first_byte = self._bytes_before(start)
        ids[is_text] = self._bytes(first_byte, first_byte + int(is_text.sum()))
        ids[is_text] += BYTE_OFFSET
        return ids

    @cached_property
    def checksum(self) -> str:
        """One sha256 of the documents and their order; the same however they are cut into shards."""
        if self._entry is not None:
            return str(self._entry["checksum"])
        return self.compute_checksum()

    def compute_checksum(self) -> str:
        """Compute `checksum` from the bytes themselves."""
        text = hashlib.sha256()
        for start in range(0, self.num_bytes, _HASH_CHUNK):
            text.update(self._bytes(start, min(start + _HASH_CHUNK, self.num_bytes)).tobytes())
        return hashlib.sha256(text.digest() + self._byte_offsets[1:].astype("<i8").tobytes()).hexdigest()

    def verify(self) -> None:
        """Read every file once and compare it with its sha256 in the index; documents in memory need no such thing.

        Raises:
            DataError: a file has changed since it was prepared.
        """
        if self.folder is None or self._entry is None:
            return
        for shard in self._entry["shards"]:
            path = self.folder / shard["file"]
            for file, wanted in ((path, shard["sha256"]), (path.with_suffix(".ends"), shard["ends_sha256"])):
                found = sha256_of(file)
                if found != wanted:
                    raise DataError(f"{file}: has changed (sha256 {found[:12]}, was {wanted[:12]}); prepare it anew")
        if self.compute_checksum() != self._entry["checksum"]:
            raise DataError(f"{self.folder / 'index.json'}: the checksum is not that of the documents; prepare it anew")

    def _bytes_before(self, position: int) -> int:
        """Count the bytes of text before a position of the id stream."""
        starts, ends = self.document_id_offsets[:-1], self.document_id_offsets[1:]
        num_bos = np.searchsorted(starts, position, side="left")
        num_eos = np.searchsorted(ends, position, side="right")
        return position - int(num_bos) - int(num_eos)

    def _bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return a slice of the text, across shards."""
        shard = int(np.searchsorted(self._text_offsets, start, side="right")) - 1
        pieces = []
        while start < stop:
            offset, end = int(self._text_offsets[shard]), int(self._text_offsets[shard + 1])
            pieces.append(self._texts[shard][start - offset : min(stop, end) - offset])
            start, shard = end, shard + 1
        if not pieces:
            return np.zeros(0, np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map_shards(folder: Path, entry: dict[str, Any]) -> tuple[list[MappedFile], Shards]:
    files, texts, ends, start = [], [], [np.zeros(0, np.int64)], 0
    for shard in entry["shards"]:
        name = shard["file"]
        text = _map(folder, name, shard["num_bytes"], shard["sha256"])
        stored = _map(folder, f"{name.removesuffix('.bin')}.ends", 8 * shard["num_documents"], shard["ends_sha256"])
        local = stored.content.view("<i8").astype(np.int64)
        if not (len(local) and local[0] > 0 and (np.diff(local) > 0).all() and local[-1] == shard["num_bytes"]):
            raise DataError(f"{folder / stored.name}: does not fit {name}; prepare again with --overwrite")
        files += [text, stored]
        texts.append(text.content)
        ends.append(local + start)
        start += shard["num_bytes"]
    return files, Shards(texts, np.concatenate(ends), folder=folder, entry=entry)


def _map(folder: Path, name: str, size: int, sha256: str) -> MappedFile:
    """Map a file that must hold exactly `size` bytes.

    Raises:
        DataError: it is missing or has another size.
    """
    path = folder / name
    try:
        content, stat = map_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing, though index.json lists it; prepare again with --overwrite") from None
    if len(content) != size:
        raise DataError(f"{path}: has {len(content)} bytes, index.json says {size}; prepare again with --overwrite")
    return MappedFile(name=name, content=content, stat=stat, sha256=sha256)
