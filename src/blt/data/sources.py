"""What a preparation reads: every input with the sha256 of what it holds, found before anything is written."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blt.data.documents import format_of, read_documents
from blt.data.named_datasets import read_dataset
from blt.data.prepare_config import PrepareConfig
from blt.data.streams import open_stream, read_errors

_CHUNK = 1 << 20

OnRead = Callable[[int], None]


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
    """Gives the documents, and tells how many bytes of the input were read."""


def find_sources(config: PrepareConfig, stdin_copy: Path, on_read: OnRead) -> list[Source]:
    """Look at every input: refuse what plainly cannot be read, and hash the rest.

    Args:
        config: names the inputs.
        stdin_copy: where to put what standard input gives.
        on_read: told how many bytes were read.

    Raises:
        DataError: an input cannot be read.
    """
    sources = [_file_source(config, path, stdin_copy, on_read) for path in config.inputs]
    if config.dataset is not None:
        sources.append(_dataset_source(config, config.dataset, on_read))
    return sources


def _file_source(config: PrepareConfig, given: str, stdin_copy: Path, on_read: OnRead) -> Source:
    if given == "-":
        name, label, path = "-", "standard input", stdin_copy
        with stdin_copy.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy, _CHUNK)
    else:
        name, label, path = Path(given).name, given, Path(given)
    format = format_of(path) if config.format == "auto" else config.format
    with open_stream(path, name=label, holds="Parquet" if format == "parquet" else "text"):
        pass  # a wrong name in a long list is told before an hour of work, not after
    num_bytes, sha256 = 0, hashlib.sha256()
    with read_errors(label), path.open("rb") as file:
        while data := file.read(_CHUNK):
            sha256.update(data)
            num_bytes += len(data)
            on_read(len(data))

    def read(on_read: OnRead) -> Iterator[bytes]:
        return read_documents(path, text_field=config.text_field, format=format, name=label, on_read=on_read)

    return Source(name=name, num_bytes=num_bytes, sha256=sha256.hexdigest(), read=read)


def _dataset_source(config: PrepareConfig, dataset: str, on_read: OnRead) -> Source:
    def read(on_read: OnRead) -> Iterator[bytes]:
        documents = read_dataset(
            dataset, split=config.split, text_field=config.text_field, config=config.dataset_config
        )
        for document in documents:
            on_read(len(document))
            yield document

    num_bytes, sha256 = 0, hashlib.sha256()
    for document in read(on_read):
        sha256.update(len(document).to_bytes(8, "little") + document)
        num_bytes += len(document)
    title = Path(dataset).name if Path(dataset).exists() else dataset
    name = "/".join(part for part in (title, config.dataset_config, config.split) if part)
    return Source(name=name, num_bytes=num_bytes, sha256=sha256.hexdigest(), read=read)
