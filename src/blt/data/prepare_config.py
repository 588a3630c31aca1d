"""The configuration of `blt.data.prepare`."""

from dataclasses import dataclass

from blt.configuration import check
from blt.data.documents import Format


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how."""

    inputs: tuple[str, ...] = ()
    """Files of text, JSONL or Parquet, also compressed, in this order; - is standard input."""
    out: str
    """Folder to write."""
    dataset: str | None = None
    """A data set on the Hugging Face Hub, or a folder of one; comes after the files."""
    dataset_config: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Split of the data set to read."""
    format: Format = "auto"
    """What the files hold: auto goes by their names."""
    text_field: str = "text"
    """Field of a JSON object, or column, that holds the document."""
    validation: float = 0.01
    """Fraction of the documents that goes to the validation split, chosen by a hash of the document."""
    seed: int = 0
    """Chooses which documents go to the validation split."""
    shard_bytes: int = 256_000_000
    """A shard holds at most so many bytes, unless a single document is longer."""
    overwrite: bool = False
    """Replace a folder that was prepared before."""

    def __post_init__(self) -> None:
        check(bool(self.inputs or self.dataset), "inputs: expected at least one file, or - or a data set")
        check(self.inputs.count("-") <= 1, "inputs: - can be given only once")
        check(0 <= self.validation < 1, f"validation: expected 0 or more and less than 1, got {self.validation}")
        check(0 <= self.seed < 1 << 64, f"seed: expected 0 or more and less than 2^64, got {self.seed}")
        check(self.shard_bytes >= 1, f"shard_bytes: expected at least 1, got {self.shard_bytes}")
