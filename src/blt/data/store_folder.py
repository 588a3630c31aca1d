"""The shards of one split in a prepared folder at an address.

The index and the table are read once, and the table is compared with its checksum. Shards are read by blocks, which
have none: a shard that has changed in the store is noticed where its size or the ends of its documents fit no more, and
by `blt prepare --check ADDRESS`, which reads every file in whole. Training does not notice a changed letter.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any

from blt.data.index import entry_of, parse_index, table_of_split
from blt.data.shard import Shard, StoredEnds
from blt.data.shard_table import ShardTable, ends_name, hex_of, shard_name
from blt.data.store import MissingFileError, Store
from blt.data.store_text import Blocks, StoreText
from blt.errors import DataError

LOOK_SECONDS = 60.0
"""How often, at most, the index is read again, to notice that the folder was replaced."""
READERS = 16
"""Rows of a batch that are read at the same time, since each waits for the store."""


class StoreFolder:
    """Opens shards by number."""

    folder = None
    """It lies in no folder of this machine."""
    is_checked = False
    """Files are never compared when a split is opened: that would read all of it."""
    readers = READERS
    """How many slices are read at the same time."""

    def __init__(self, store: Store, split: str, entry: dict[str, Any], *, index: bytes) -> None:
        """Read the table of a split; of the shards themselves, nothing.

        Args:
            store: the prepared folder.
            split: its name.
            entry: what the index says of it.
            index: the index itself.

        Raises:
            DataError: the table is missing, damaged, or cannot be read.
        """
        self.place = store.address
        self.entry = entry
        self.table: ShardTable = table_of_split(store.read, split, entry, where=store.address)
        self._store, self._split, self._index = store, split, index
        self._looked = time.monotonic()
        self._blocks = Blocks(store)

    @classmethod
    def find(cls, address: str, split: str) -> "StoreFolder":
        """Read the index of a finished folder, and the table of a split.

        Raises:
            DataError: the folder is missing, foreign, or damaged, has no document in that split, or cannot be read.
            MissingExtraError: fsspec is not installed.
        """
        store = Store(address)
        content, index = read_stored_index(store)
        return cls(store, split, entry_of(index, split, where=store.address), index=content)

    def shard(self, number: int) -> Shard:
        """Return a shard, of which nothing was read.

        Raises:
            DataError: the folder was prepared anew since it was opened.
        """
        self._look()
        row = self.table[number]
        text, ends = (
            StoreText(self._blocks, name(self._split, number), size=size)
            for name, size in ((shard_name, int(row["num_bytes"])), (ends_name, 8 * int(row["num_documents"])))
        )
        return Shard(text=text, ends=StoredEnds(ends), where=f"{self.place}/{ends_name(self._split, number)}")

    def whole_shard(self, number: int) -> Shard:
        """Return a shard that is to be read from end to end.

        Raises:
            DataError: as `shard` does.
        """
        return self.shard(number)

    def check(self, *, on_file: Callable[[], None]) -> None:
        """Do nothing: see `is_checked`."""

    def verify(self) -> None:
        """Read every file once and compare it with its checksum.

        Raises:
            DataError: a file has changed since it was prepared, or cannot be read.
        """
        for number, row in enumerate(self.table):
            for name, digest in (
                (shard_name(self._split, number), row["sha256"]),
                (ends_name(self._split, number), row["ends_sha256"]),
            ):
                found = hashlib.sha256()
                for part in self._store.parts(name):
                    found.update(part)
                if found.hexdigest() != hex_of(digest):
                    was = f"sha256 {found.hexdigest()[:12]}, was {hex_of(digest)[:12]}"
                    raise DataError(f"{self.place}/{name}: has changed ({was}); upload it again")

    def _look(self) -> None:
        """Refuse to go on in a folder that was replaced; looked at now and then.

        Raises:
            DataError: it was.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        try:
            is_same = self._store.read("index.json") == self._index
        except MissingFileError:
            is_same = False
        if not is_same:
            raise DataError(f"{self.place}: was prepared anew while it was read; start again")
        self._looked = time.monotonic()


def read_stored_index(store: Store) -> tuple[bytes, dict[str, Any]]:
    """Return the index of a prepared folder, as it is and as it is read.

    Raises:
        MissingFileError: there is none.
        DataError: it is no index, or cannot be read.
    """
    try:
        content = store.read("index.json")
    except MissingFileError:
        what = "has no index.json; expected a folder that `blt prepare` wrote"
        raise MissingFileError(f"{store.address}: {what}, and that was uploaded to the end") from None
    return content, parse_index(content, where=f"{store.address}/index.json")
