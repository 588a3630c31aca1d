"""Data: corpora on disk and the batches made of them.

In: text, JSONL, Parquet or a data set by name. Out: `Shards` on disk, and from them training batches (`Windows`) and
whole documents (`document_batches`), with stored entropies where there are any. Next: `blt.training`,
`blt.evaluation`.
"""

from blt.data.batch import Batch
from blt.data.document_batches import document_batches
from blt.data.documents import read_documents
from blt.data.entropies import EntropyStore, EntropyWriter, entropies_path
from blt.data.kinds import Format
from blt.data.named_datasets import read_dataset
from blt.data.prepare import PrepareProgress, PrepareSummary, prepare
from blt.data.prepare_config import PrepareConfig
from blt.data.shards import Shards
from blt.data.windows import Windows

__all__ = [
    "Batch",
    "EntropyStore",
    "EntropyWriter",
    "Format",
    "PrepareConfig",
    "PrepareProgress",
    "PrepareSummary",
    "Shards",
    "Windows",
    "document_batches",
    "entropies_path",
    "prepare",
    "read_dataset",
    "read_documents",
]
