"""Documents on their way into shards, with notes of how far that is."""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from blt.data.index import SPLITS
from blt.data.kinds import EmptyInputError
from blt.data.output_folder import PROGRESS_FILE
from blt.data.prepare_config import PrepareConfig
from blt.data.prepare_progress import read_progress, write_progress
from blt.data.shard_writer import ShardWriter, SplitState
from blt.data.sources import Source
from blt.data.splits import is_for_validation
from blt.errors import DataError

_LOGGER = logging.getLogger("blt.data")


@dataclass(frozen=True, kw_only=True)
class PrepareProgress:
    """How far a run is."""

    stage: str
    """`checking` while inputs are hashed, then `writing`."""
    num_bytes: int
    """Bytes of the inputs read in this stage."""
    total_bytes: int | None
    """Bytes of all inputs; None where that is not known yet."""
    num_documents: int
    """Documents written."""


Report = Callable[[PrepareProgress], None]


@runtime_checkable
class Workplace(Protocol):
    """Where shards are written."""

    @property
    def out(self) -> Path:
        """Names the folder in messages."""

    @property
    def unfinished(self) -> Path:
        """Where they are written."""

    def start_over(self) -> None:
        """Delete what an interrupted run left."""


class Meter:
    """Adds up what was read, and reports it."""

    def __init__(self, report: Report, stage: str, total_bytes: int | None) -> None:
        self._report = report
        self._stage = stage
        self._total_bytes = total_bytes
        self._num_bytes = 0
        self.num_documents = 0

    def __call__(self, num_bytes: int) -> None:
        """Count bytes that were read."""
        self._num_bytes += num_bytes
        self._report(
            PrepareProgress(
                stage=self._stage,
                num_bytes=self._num_bytes,
                total_bytes=self._total_bytes,
                num_documents=self.num_documents,
            )
        )


class PrepareRun:
    """Documents on their way into the shards of both splits, with notes of how far that is."""

    def __init__(self, config: PrepareConfig, folder: Workplace, plan: dict[str, Any]) -> None:
        """Start, or go on where an interrupted run noted that it was.

        Args:
            config: how documents are divided.
            folder: where shards are written.
            plan: everything that the result depends on; what was written by another plan is dropped.
        """
        self._config = config
        self._folder = folder
        self._plan = plan
        self.source = 0
        self.documents = 0
        self._writers: dict[str, ShardWriter] = {}
        self.empty: EmptyInputError | None = None
        try:
            self._go_on(read_progress(folder.unfinished / PROGRESS_FILE))
        except DataError as error:
            _LOGGER.warning(
                "%s: an interrupted run cannot be gone on with (%s); preparing from the start", folder.out, error
            )
            self._start_over()

    def _go_on(self, progress: dict[str, Any] | None) -> None:
        """Open the files where an interrupted run noted that they end.

        Raises:
            DataError: they are not what was noted, or were made of something else.
        """
        if progress is None:
            self._start_over()
            return
        if progress["plan"] != self._plan:
            raise DataError("it had other inputs or settings")
        self.source, self.documents = progress["source"], progress["documents"]
        self._open_writers({split: SplitState(**progress["splits"][split]) for split in SPLITS})

    def _start_over(self) -> None:
        self.close()
        self._folder.start_over()
        self.source = self.documents = 0
        self._open_writers({})

    def write(self, sources: list[Source], meter: Meter) -> None:
        """Write every document that is not in the shards yet."""
        meter.num_documents = sum(writer.num_documents for writer in self._writers.values())
        for source in sources[: self.source]:
            meter(source.num_bytes)
        for source in sources[self.source :]:
            try:
                for document in itertools.islice(source.read(meter), self.documents, None):
                    self._append(document)
                    meter.num_documents += 1
            except EmptyInputError as error:
                self.empty = error
                if len(sources) > 1:
                    _LOGGER.warning("%s; passed over", error)
            self.source, self.documents = self.source + 1, 0
            self._note()

    def finish(self) -> dict[str, dict[str, Any]]:
        """Close the shards, and return what `index.json` says of each split but for the checksum of its documents."""
        return {split: writer.finish() for split, writer in self._writers.items()}

    def close(self) -> None:
        """Close the files as they are, even if the disk is full."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def _open_writers(self, states: dict[str, SplitState]) -> None:
        for split in SPLITS:
            self._writers[split] = ShardWriter(
                self._folder.unfinished, split, shard_bytes=self._config.shard_bytes, state=states.get(split)
            )

    def _append(self, document: bytes) -> None:
        split = "train"
        if is_for_validation(document, fraction=self._config.validation, seed=self._config.seed):
            split = "validation"
        writer = self._writers[split]
        if writer.is_full_for(document):
            writer.close_shard()
            self._note()
        writer.append(document)
        self.documents += 1

    def _note(self) -> None:
        """Make everything so far durable, then note it."""
        splits = {split: dataclasses.asdict(writer.sync()) for split, writer in self._writers.items()}
        progress = {"plan": self._plan, "source": self.source, "documents": self.documents, "splits": splits}
        write_progress(self._folder.unfinished / PROGRESS_FILE, progress)
