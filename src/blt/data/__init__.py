"""A bank of the river: corpora on disk and the batches made of them.

In: text, JSONL, Parquet or a data set by name. Out: `Shards` on disk, and from them training batches (`Windows`) and
whole documents (`document_batches`), with stored entropies where there are any. Next: `blt.training`,
`blt.evaluation`.
"""

from blt.data.document_batches import DocumentBatch, document_batches
from blt.data.entropies import EntropyStore, EntropyWriter
from blt.data.shards import Shards
from blt.data.windows import NOT_PREDICTED, Batch, Windows

__all__ = [
    "NOT_PREDICTED",
    "Batch",
    "DocumentBatch",
    "EntropyStore",
    "EntropyWriter",
    "Shards",
    "Windows",
    "document_batches",
]
