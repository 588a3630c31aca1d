"""Files that are whole or absent: JSON, and weights as safetensors in one file or in shards. No pickle, ever.

In: tensors, or a path. Out: files, or tensors. Next: `blt.lm.folder`, `blt.training.checkpoints`.
"""

from blt.checkpoint.files import load_json, recover_folder, write_file, write_folder, write_json
from blt.checkpoint.header import TensorHeader, read_header
from blt.checkpoint.tensors import (
    MAX_SHARD_BYTES,
    PICKLE_SUFFIXES,
    index_of,
    load_headers,
    load_tensors,
    load_weights,
    refuse_pickle,
    save_shards,
    save_tensors,
)

__all__ = [
    "MAX_SHARD_BYTES",
    "PICKLE_SUFFIXES",
    "TensorHeader",
    "index_of",
    "load_headers",
    "load_json",
    "load_tensors",
    "load_weights",
    "read_header",
    "recover_folder",
    "refuse_pickle",
    "save_shards",
    "save_tensors",
    "write_file",
    "write_folder",
    "write_json",
]
