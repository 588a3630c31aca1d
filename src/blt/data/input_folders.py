"""Folders of documents: their files, in order."""

import logging
from collections import Counter
from pathlib import Path

from blt.data.index import FORMAT, read_index
from blt.data.kinds import is_document_file
from blt.errors import DataError

_LOGGER = logging.getLogger("blt.data")


def files_of(folder: Path, *, every: bool) -> list[Path]:
    """Return the files of documents in a folder and the folders in it, sorted; hidden ones are left out.

    Args:
        folder: where to look.
        every: take files of any name; otherwise those that end as text, JSONL or Parquet do, compressed or not.

    Raises:
        DataError: there is none, or the folder is one of another kind.
    """
    _check_is_plain(folder)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    taken = [path for path in files if every or is_document_file(path)]
    others = Counter(path.suffix or path.name for path in files if not (every or is_document_file(path)))
    told = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(5))
    if not taken:
        what = f"none that ends as text, JSONL or Parquet do, only {told}" if told else "none"
        raise DataError(f"{folder}: is a folder with no files to read ({what}); give files, or say --format")
    if told:
        _LOGGER.warning("%s: files of other endings are passed over: %s; name those that are wanted", folder, told)
    return taken


def _check_is_plain(folder: Path) -> None:
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        raise DataError(f"{folder}: is a data set that was saved by its library; give it as --dataset {folder}")
    try:
        read_index(folder)
    except DataError:
        return
    raise DataError(f"{folder}: is {FORMAT}, which `blt prepare` wrote; train on it, or give what it was made of")
