"""Files that are whole or absent: JSON, and weights as safetensors in one file or in shards. No pickle, ever.

In: tensors, or a path. Out: files, or tensors. Next: `blt.lm.folder`, `blt.training.checkpoints`.
"""

from blt.checkpoint.expected import require_floating_point, require_names
from blt.checkpoint.files import (
    PICTURE,
    check_output,
    check_page,
    named_failures,
    sync,
    write_file,
    write_json,
    write_output,
    write_page,
)
from blt.checkpoint.folders import (
    FolderKind,
    beside,
    check_replaceable,
    put_in_place,
    read_whole,
    recover_folder,
    write_folder,
)
from blt.checkpoint.header import TensorHeader, read_header
from blt.checkpoint.locks import locked
from blt.checkpoint.reading import load_json, open_plain, read_plain
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
    "PICTURE",
    "FolderKind",
    "TensorHeader",
    "beside",
    "check_output",
    "check_page",
    "check_replaceable",
    "index_of",
    "load_headers",
    "load_json",
    "load_tensors",
    "load_weights",
    "locked",
    "named_failures",
    "open_plain",
    "put_in_place",
    "read_header",
    "read_plain",
    "read_whole",
    "recover_folder",
    "refuse_pickle",
    "require_floating_point",
    "require_names",
    "save_shards",
    "save_tensors",
    "sync",
    "write_file",
    "write_folder",
    "write_json",
    "write_output",
    "write_page",
]
