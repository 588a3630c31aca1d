"""What a preparation reads: every input with the sha256 of what it holds, found before anything is written."""

import hashlib
import logging
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from blt.data.documents import check_options_of_text, read_documents
from blt.data.input_folders import files_of
from blt.data.kinds import EmptyInputError, Format, format_of
from blt.data.named_datasets import read_dataset
from blt.data.prepare_config import PrepareConfig
from blt.data.store import is_address
from blt.data.streams import BUFFER_BYTES, open_raw, open_stream, read_errors
from blt.errors import DataError

OnRead = Callable[[int], None]

_LOGGER = logging.getLogger("blt.data")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input."""

    name: str
    """File name without its folder, `-`, or the name of a data set with its configuration and split."""
    num_bytes: int
    """Size of the file; of the documents, for a data set."""
    sha256: str
    """Of the file; of the documents and their lengths, for a data set."""
    read: Callable[[OnRead], Iterator[bytes]]
    """Yields the documents, and reports how many bytes of the input were read."""


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """The hashing of one input."""

    num_bytes: int
    """About how much is read."""
    hash: Callable[[], tuple[int, str]]
    """Does it, and returns size and sha256."""


Share: TypeAlias = Callable[[list[Hashing]], list[tuple[int, str]]]


def find_sources(
    config: PrepareConfig, spool: Path | None, on_read: OnRead, stack: ExitStack, *, share: Share | None = None
) -> list[Source]:
    """Check every input: refuse what cannot be read, skip what is empty, and hash the rest.

    Args:
        config: names the inputs.
        spool: folder for copies of what is to be read only once, such as a pipe, or a file in a store; the system's
            own if None.
        on_read: told how many bytes were read.
        stack: closes, and so deletes, the copies.
        share: where several processes find the same sources: shares out the hashing, and returns what all have found.

    Raises:
        DataError: an input cannot be read, or all are empty.
    """
    on_read(0)  # the stage has begun
    files = [file for given in config.inputs for file in _files(given, config.format)]
    if config.dataset is None and all(file.format == "text" for file in files):
        check_options_of_text(files[0].label, text_field=config.text_field, skip_bad=config.skip_bad)
    _check_pipes_differ(files)
    for file in files:
        if file.is_regular:  # a wrong name in a long list is told before an hour of work, not after
            file.check(None)
    known = None if share is None else share(_hashing(config, files, on_read))
    sources: list[Source] = []
    empty: EmptyInputError | None = None
    for number, file in enumerate(files):
        try:
            found = None if known is None else known[number]
            sources.append(_file_source(config, file, spool, on_read, stack, known=found))
        except EmptyInputError as error:
            empty = error
            if len(files) > 1:
                _LOGGER.warning("%s; passed over", error)
    if config.dataset is not None:
        sources.append(_dataset_source(config, config.dataset, on_read, known=None if known is None else known[-1]))
    if empty is not None and not sources:
        raise empty
    return sources


@dataclass(frozen=True, kw_only=True)
class _File:
    """An input that is a file, a pipe or standard input."""

    name: str
    label: str
    path: Path
    format: Format
    is_format_given: bool

    @property
    def is_regular(self) -> bool:
        """Whether it can be read more than once; what is missing counts, so that it is told."""
        if str(self.path) == "-" or is_address(self.label):
            return False
        with read_errors(self.label):
            return not self.path.exists() or stat.S_ISREG(self.path.stat().st_mode) or self.path.is_dir()

    def check(self, copy: BinaryIO | None) -> None:
        """Refuse it if it plainly is not what it is taken for; an empty one passes."""
        holds = "Parquet" if self.format == "parquet" else "text"
        try:
            with open_stream(self.path, name=self.label, holds=holds, is_given=self.is_format_given, copy=copy):
                pass
        except EmptyInputError:
            if copy is not None:
                raise


def _files(given: str, format: Format) -> list[_File]:
    """Return the files that one input means: itself, or those in a folder."""
    if given == "-":
        found = [("-", "standard input", Path("-"))]
    elif (folder := Path(given)).is_dir():
        paths = files_of(folder, every=format != "auto")
        found = [(f"{folder.resolve().name}/{path.relative_to(folder)}", str(path), path) for path in paths]
    else:
        found = [(Path(given).name, given, Path(given))]
    return [
        _File(
            name=name,
            label=label,
            path=path,
            format=format_of(path) if format == "auto" else format,
            is_format_given=format != "auto",
        )
        for name, label, path in found
    ]


def _hashing(config: PrepareConfig, files: list[_File], on_read: OnRead) -> list[Hashing]:
    """Return how each input is hashed, the data set last; for several processes.

    Raises:
        DataError: an input can be read only once.
    """
    work = []
    for file in files:
        if not file.is_regular:
            raise DataError(
                f"{file.label}: can be read only once, and there are several processes; give files, or start one"
            )
        work.append(Hashing(num_bytes=file.path.stat().st_size, hash=partial(_hash, file, None, on_read)))
    if config.dataset is not None:
        work.append(Hashing(num_bytes=0, hash=partial(_hash_dataset, config, config.dataset, on_read)))
    return work


def _check_pipes_differ(files: list[_File]) -> None:
    """Refuse a pipe that is given twice, which would be waited for without end."""
    pipes = [file.path.resolve() for file in files if not (file.is_regular or is_address(file.label))]
    for pipe in pipes:
        if pipes.count(pipe) > 1:
            raise DataError(f"{pipe}: is a pipe, which can be read only once; give it once")


def _file_source(
    config: PrepareConfig,
    file: _File,
    spool: Path | None,
    on_read: OnRead,
    stack: ExitStack,
    *,
    known: tuple[int, str] | None,
) -> Source:
    is_regular = file.is_regular
    copy = None
    if not is_regular:
        copy = stack.enter_context(tempfile.TemporaryFile(dir=spool))  # noqa: SIM115 (the stack closes it)
    before = file.path.stat() if is_regular else None
    num_bytes, sha256 = known or _hash(file, copy, on_read)
    if not num_bytes:
        raise EmptyInputError(f"{file.label}: is empty; expected documents")
    if copy is not None:
        file.check(copy)
    has_rows = file.format != "text"

    def read(on_read: OnRead) -> Iterator[bytes]:
        yield from read_documents(
            file.path,
            text_field=config.text_field if has_rows else None,
            skip_bad=config.skip_bad and has_rows,
            format=config.format,
            max_document_bytes=config.max_document_bytes,
            name=file.label,
            copy=copy,
            on_read=on_read,
        )
        if before is not None:
            now = file.path.stat()
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{file.label}: changed while it was read; run the same command again")

    return Source(name=file.name, num_bytes=num_bytes, sha256=sha256, read=read)


def _hash(file: _File, copy: BinaryIO | None, on_read: OnRead) -> tuple[int, str]:
    """Read a file once, into its copy if it has one; return its size and sha256."""
    num_bytes, sha256 = 0, hashlib.sha256()
    with ExitStack() as stack, read_errors(file.label):
        raw = open_raw(file.path, file.label, stack)
        while data := raw.read(BUFFER_BYTES):
            sha256.update(data)
            num_bytes += len(data)
            if copy is not None:
                copy.write(data)
            on_read(len(data))
    return num_bytes, sha256.hexdigest()


def _dataset_source(config: PrepareConfig, dataset: str, on_read: OnRead, *, known: tuple[int, str] | None) -> Source:
    num_bytes, sha256 = known or _hash_dataset(config, dataset, on_read)
    title = Path(dataset).name if Path(dataset).exists() else dataset
    name = "/".join(part for part in (title, config.dataset_config, config.split or "train") if part)
    read = partial(_documents_of, config, dataset)
    return Source(name=name, num_bytes=num_bytes, sha256=sha256, read=read)


def _documents_of(config: PrepareConfig, dataset: str, on_read: OnRead) -> Iterator[bytes]:
    """Yield the documents of a data set."""
    documents = read_dataset(
        dataset,
        split=config.split or "train",
        text_field=config.text_field or "text",
        config=config.dataset_config,
        skip_bad=config.skip_bad,
    )
    for document in documents:
        on_read(len(document))
        yield document


def _hash_dataset(config: PrepareConfig, dataset: str, on_read: OnRead) -> tuple[int, str]:
    """Read a data set once; return the size and the sha256 of its documents."""
    num_bytes, sha256 = 0, hashlib.sha256()
    for document in _documents_of(config, dataset, on_read):
        sha256.update(len(document).to_bytes(8, "little") + document)
        num_bytes += len(document)
    return num_bytes, sha256.hexdigest()
