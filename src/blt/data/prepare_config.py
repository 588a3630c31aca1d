"""The configuration of `blt.data.prepare`."""

from dataclasses import dataclass

from blt.configuration import check
from blt.data.document_limit import MAX_DOCUMENT_BYTES
from blt.data.kinds import Format


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how."""

    inputs: tuple[str, ...] = ()
    """Files of text, JSONL or Parquet, also compressed and at addresses, or folders of them, in this order; - is
    standard input."""
    out: str
    """Folder to write, or an address in an object store to upload it to."""
    dataset: str | None = None
    """A data set on the Hugging Face Hub, or a folder of one; comes after the files."""
    dataset_config: str | None = None
    """Configuration of the data set, where it has several."""
    split: str | None = None
    """Split of the data set to read; train if not given."""
    format: Format = "auto"
    """What the files hold: auto goes by their names."""
    text_field: str | None = None
    """Field of a JSON object, or column, that holds the document; text if not given."""
    skip_bad: bool = False
    """Skip lines and rows that hold no document, such as nulls; report how many, and the first."""
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """Refuse a longer document; one is held in memory at a time."""
    validation: float = 0.01
    """Fraction of the documents that goes to the validation split, chosen by a hash of the document."""
    seed: int = 0
    """Chooses which documents go to the validation split."""
    shard_bytes: int = 256_000_000
    """Most bytes in a shard, unless a single document is longer."""
    overwrite: bool = False
    """Replace a folder that was prepared before."""

    def __post_init__(self) -> None:
        check(bool(self.inputs or self.dataset), "inputs: expected at least one file, or - or a data set")
        no_dataset = "means nothing without a data set; leave it out, or give --dataset"
        check(self.dataset is not None or self.split is None, f"split: {no_dataset}")
        check(self.dataset is not None or self.dataset_config is None, f"dataset_config: {no_dataset}")
        no_files = f"format: {self.format} means nothing for a data set; leave it out"
        check(bool(self.inputs) or self.format == "auto", no_files)
        check(self.inputs.count("-") <= 1, "inputs: - can be given only once")
        check(0 <= self.validation < 1, f"validation: expected 0 or more and less than 1, got {self.validation}")
        check(0 <= self.seed < 1 << 64, f"seed: expected 0 or more and less than 2^64, got {self.seed}")
        check(self.shard_bytes >= 1, f"shard_bytes: expected at least 1, got {self.shard_bytes}")
        limit = self.max_document_bytes
        check(limit >= 1, f"max_document_bytes: expected at least 1, got {limit}")
