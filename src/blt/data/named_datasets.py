"""Documents out of a data set of the Hugging Face Hub, or of a folder that its library wrote."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blt.codec import to_bytes
from blt.data.kinds import format_of, is_document_file
from blt.data.row_faults import RowFaults, check_value
from blt.errors import DataError, MissingExtraError

_ROWS_PER_BATCH = 1024


def read_dataset(
    name_or_path: str,
    *,
    split: str = "train",
    text_field: str = "text",
    config: str | None = None,
    streaming: bool = False,
    skip_bad: bool = False,
) -> Iterator[bytes]:
    """Return the documents of a data set one at a time; empty ones are dropped.

    Args:
        name_or_path: a name on the Hub, a folder of data files, or a folder written by `save_to_disk`.
        split: the data set's own split.
        text_field: the column that holds the documents.
        config: the configuration, of a data set that has several.
        streaming: read over the network as it goes, without keeping a copy.
        skip_bad: pass over rows that hold no document; how many these are is logged, with the first few.

    Raises:
        DataError: there is no such data set, configuration, split or column, or a row is not text.
        MissingExtraError: the package `datasets` is not installed.
    """
    what = f"data set {name_or_path!r}, split {split!r}"
    dataset = _load(name_or_path, split=split, config=config, streaming=streaming, what=what)
    faults = RowFaults(what, are_skipped=skip_bad)
    number = num_documents = 0
    for rows in dataset.iter(batch_size=_ROWS_PER_BATCH):
        if text_field not in rows:
            raise DataError(f"{what}: has no column {text_field!r}, only {', '.join(rows)}; choose with --text-field")
        for value in rows[text_field]:
            number += 1
            if text := check_value(value, f"row {number}", text_field, faults):
                num_documents += 1
                yield to_bytes(text)
    faults.report(num_documents)
    if not num_documents:
        raise DataError(f"{what}: has no documents; expected at least one that is not empty")


def _load(name_or_path: str, *, split: str, config: str | None, streaming: bool, what: str) -> Any:
    """Load with the `datasets` library, which raises nearly anything when it cannot."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="data", purpose="reading a data set by name") from None
    folder = Path(name_or_path)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    if files and all(is_document_file(path) and format_of(path) == "text" for path in files):
        way_out = "give it as an input, since --dataset would cut it by lines"
        raise DataError(f"{what}: is a folder of texts; {way_out}")
    try:
        if (folder / "dataset_dict.json").exists():
            return datasets.load_from_disk(name_or_path)[split]
        if (folder / "state.json").exists():
            return datasets.load_from_disk(name_or_path)
        return datasets.load_dataset(name_or_path, config, split=split, streaming=streaming)
    except Exception as error:  # noqa: BLE001 (the package, and what a data set runs, may raise anything)
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        hint = "check the name, the split and the network"
        raise DataError(f"{what}: cannot be loaded ({type(error).__name__}: {reason}); {hint}") from None
