"""Turns inputs into shards, once: interrupted runs go on, finished ones are left alone."""

import dataclasses
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.checkpoint import write_file
from blt.data.index import FORMAT, SPLITS, VERSION
from blt.data.kinds import EmptyInputError
from blt.data.output_folder import PROGRESS_FILE, OutputFolder
from blt.data.prepare_config import PrepareConfig
from blt.data.prepare_progress import read_progress, write_progress
from blt.data.shard_folder import ShardFolder
from blt.data.shard_writer import ShardWriter, SplitState
from blt.data.shards import Shards
from blt.data.sources import Source, find_sources
from blt.errors import FULL, BLTError, DataError

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


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What is in a prepared folder."""

    out: str
    """The folder."""
    splits: dict[str, dict[str, Any]]
    """Each split's entry in `index.json`: num_shards, num_documents, num_bytes, checksum."""
    was_already_prepared: bool
    """Whether nothing had to be done."""


Report = Callable[[PrepareProgress], None]


def prepare(config: PrepareConfig, *, progress: Report | None = None) -> PrepareSummary:
    """Write the documents of all inputs as shards and an index, or go on with an interrupted run.

    Args:
        config: what and how.
        progress: told how far the run is, often.

    Raises:
        DataError: an input cannot be read, the folder holds something else, or the disk is full.
        MissingExtraError: an input needs a package that is not installed.
    """
    folder = OutputFolder(config.out, sources=_places(config))
    report = progress or (lambda _: None)
    is_writable = _is_writable(folder.out.parent)
    try:
        with folder.locked() if is_writable else nullcontext(), ExitStack() as copies:
            return _prepare(config, folder, report, copies, is_writable=is_writable)
    except OSError as error:
        if error.errno not in FULL:
            raise
        way_out = "make room and run the same command again: it goes on from here"
        raise DataError(f"{folder.out}: {os.strerror(error.errno)}; {way_out}") from None


def is_for_validation(document: bytes, *, fraction: float, seed: int) -> bool:
    """Choose a document's split by a hash of its bytes, so that duplicates stay together.

    Args:
        document: its bytes.
        fraction: share of documents that go to validation.
        seed: another one makes another choice.
    """
    digest = hashlib.blake2b(document, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < int(fraction * (1 << 64))


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made; not so on a mount that is read-only."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK)


def _prepare(
    config: PrepareConfig, folder: OutputFolder, report: Report, copies: ExitStack, *, is_writable: bool
) -> PrepareSummary:
    finished = folder.finished_index()
    if not is_writable and (finished is None or config.overwrite):
        raise DataError(f"{folder.out}: cannot be written, {folder.out.parent} is read-only; choose another --out")
    spool = folder.out.parent if is_writable else None
    sources = find_sources(config, spool, _Meter(report, "checking", None), copies)
    plan = _plan(config, sources)
    if finished is not None and not config.overwrite:
        if any(finished.get(key) != value for key, value in plan.items() if key != "version"):
            different = f"was prepared with other {_differences(finished, plan)}"
            raise DataError(f"{folder.out}: {different}; choose another --out, or replace it with --overwrite")
        for split, entry in finished["splits"].items():
            if entry["num_documents"]:
                Shards.open(folder.out, split=split)
        return PrepareSummary(out=str(config.out), splits=finished["splits"], was_already_prepared=True)
    folder.check_replaceable()
    run = _Run(config, folder, plan)
    try:
        run.write(sources, _Meter(report, "writing", sum(source.num_bytes for source in sources)))
        splits = run.finish()
    except BLTError:
        folder.start_over()  # the same inputs would fail again
        raise
    finally:
        run.close()
    folder.commit()
    return PrepareSummary(out=str(config.out), splits=splits, was_already_prepared=False)


def _places(config: PrepareConfig) -> list[str]:
    """Name the files and folders that are read."""
    return [name for name in (*config.inputs, config.dataset) if name not in (None, "-")]


def _plan(config: PrepareConfig, sources: list[Source]) -> dict[str, Any]:
    """Return everything that the result depends on, as it stands in the index."""
    names = ("format", "text_field", "validation", "seed", "shard_bytes")
    settings = {name: getattr(config, name) for name in names}
    settings["text_field"] = config.text_field or "text"
    if config.skip_bad:  # absent otherwise, as in folders from before it
        settings["skip_bad"] = True
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": settings,
        "sources": [
            {"name": source.name, "num_bytes": source.num_bytes, "sha256": source.sha256} for source in sources
        ],
    }


def _differences(finished: dict[str, Any], plan: dict[str, Any]) -> str:
    """Name the settings that differ, or else the inputs."""
    before, now = finished.get("settings") or {}, plan["settings"]
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} ({before.get(name)!r}, now {now.get(name)!r})" for name in names) or "inputs"


class _Meter:
    """Adds up what was read, and reports it."""

    def __init__(self, report: Report, stage: str, total_bytes: int | None) -> None:
        self._report = report
        self._stage = stage
        self._total_bytes = total_bytes
        self._num_bytes = 0
        self.num_documents = 0

    def __call__(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        self._report(
            PrepareProgress(
                stage=self._stage,
                num_bytes=self._num_bytes,
                total_bytes=self._total_bytes,
                num_documents=self.num_documents,
            )
        )


class _Run:
    """Documents on their way into the shards of both splits, with notes of how far that is."""

    def __init__(self, config: PrepareConfig, folder: OutputFolder, plan: dict[str, Any]) -> None:
        self._config = config
        self._folder = folder
        self._plan = plan
        self.source = 0
        self.documents = 0
        self._writers: dict[str, ShardWriter] = {}
        self._empty: EmptyInputError | None = None
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

    def write(self, sources: list[Source], meter: _Meter) -> None:
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
                self._empty = error
                if len(sources) > 1:
                    _LOGGER.warning("%s; passed over", error)
            self.source, self.documents = self.source + 1, 0
            self._note()

    def finish(self) -> dict[str, dict[str, Any]]:
        """Write the index, and give its entries for the splits."""
        splits = {}
        for split, writer in self._writers.items():
            entry = writer.finish()
            shards = Shards.of_folder(ShardFolder(self._folder.unfinished, split, entry))
            splits[split] = entry | {"checksum": shards.compute_checksum()}
        if self._empty is not None and not any(entry["num_documents"] for entry in splits.values()):
            raise self._empty
        if not splits["train"]["num_documents"]:
            raise DataError("every document fell to validation; give more, another --seed, or --validation 0")
        if self._config.validation and not splits["validation"]["num_documents"]:
            what = f"none of {splits['train']['num_documents']:,} documents fell to validation"
            _LOGGER.warning("%s: %s; give more, another --seed, or a larger --validation", self._folder.out, what)
        index = json.dumps({**self._plan, "splits": splits}, indent=1) + "\n"
        write_file(self._folder.unfinished / "index.json", index.encode())
        return splits

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
