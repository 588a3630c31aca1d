"""Tensors in safetensors files, one or several shards with their index. No pickle, ever."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from blt.checkpoint.expected import require_floating_point, require_names
from blt.checkpoint.files import write_file, write_json
from blt.checkpoint.header import TensorHeader, read_header
from blt.checkpoint.reading import load_json
from blt.errors import BLTError, ModelFolderError
from blt.shapes import Tensor

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MAX_SHARD_BYTES = 5 * 10**9
"""The largest file that is written unless asked otherwise; the Hub's usual limit."""
QUANTIZED = {torch.int8: "I8", torch.uint8: "U8"}
"""Types of quantised weights, with safetensors' names."""
MAX_NAME_BYTES = 255
"""The longest name that file systems have."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors; whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(path, safetensors.torch.save(plain, metadata=dict(metadata or {}) | {"format": "pt"}))


def save_shards(path: Path, tensors: Mapping[str, Tensor], *, max_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write tensors into a new folder: as one file, or as shards with an index where that would be too large.

    Args:
        path: of the one file, `model.safetensors`; shards are `model-00001-of-00003.safetensors` and so on, the index
            is `model.safetensors.index.json`.
        tensors: by name.
        max_bytes: the most that one file's tensors may have; a tensor that is larger gets a file of its own.
    """
    from huggingface_hub import split_state_dict_into_shards_factory  # seldom needed, and slow to import

    files = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern=f"{path.stem}{{suffix}}.safetensors",
        max_shard_size=max_bytes,
    )
    if len(files.filename_to_tensors) <= 1:
        save_tensors(path, tensors)
        return
    for file, names in files.filename_to_tensors.items():
        save_tensors(path.with_name(file), {name: tensors[name] for name in names})
    write_json(index_of(path), {"metadata": files.metadata, "weight_map": files.tensor_to_filename})


def index_of(path: Path) -> Path:
    """Return the index that stands in place of a file that is divided into shards."""
    return path.with_name(f"{path.name}.index.json")


def load_headers(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, TensorHeader]:
    """Read what a safetensors file, or the shards in its place, say that they hold; no weights are read.

    Raises:
        ModelFolderError: (or the given class) as `load_tensors`.
    """
    headers: dict[str, TensorHeader] = {}
    for held in _files_of(path, error=error).values():
        headers |= held
    return headers


def load_tensors(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, Tensor]:
    """Read a safetensors file, or the shards that the index in its place names.

    Raises:
        ModelFolderError: (or the given class) missing, truncated, a pickle, or no safetensors; or shards that are not
            what the index says.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files_of(path, error=error):
        try:
            tensors |= safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as reason:
            raise error(f"{file}: not a whole safetensors file ({reason}); copy or download it again") from None
    return tensors


def load_weights(module: torch.nn.Module, path: Path, *, error: type[BLTError] = ModelFolderError) -> None:
    """Fill a module's weights from a safetensors file or its shards, in the module's own dtype.

    A module on the meta device gets memory once its names and shapes are known to be those of the file.

    Raises:
        ModelFolderError: (or the given class) as `load_tensors`, or names, shapes or kinds of numbers differ.
    """
    headers, wanted = load_headers(path, error=error), module.state_dict()
    require_names(headers, wanted, where=path, error=error)
    for name, tensor in wanted.items():
        found, expected = headers[name].shape, tuple(tensor.shape)
        if found != expected:
            raise error(f"{path}: {name} has shape {found}, config.json says {expected}")
        if tensor.is_floating_point():
            require_floating_point(headers[name].dtype, name, where=path, error=error)
        elif headers[name].dtype != QUANTIZED.get(tensor.dtype):
            raise error(f"{path}: {name} holds {headers[name].dtype}, config.json says {QUANTIZED.get(tensor.dtype)}")
    tensors = load_tensors(path, error=error)
    if any(tensor.is_meta for tensor in wanted.values()):  # copies, since what was read may be a map of the file
        tensors = {name: tensor.to(wanted[name].dtype, copy=True) for name, tensor in tensors.items()}
        module.load_state_dict(tensors, assign=True)
    else:
        module.load_state_dict(tensors)


def refuse_pickle(path: Path, *, error: type[BLTError] = ModelFolderError) -> None:
    """Refuse a name that pickled weights have.

    Raises:
        ModelFolderError: (or the given class) with the way out.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES and not path.is_dir():
        raise error(
            f"{path}: pickled weights are never loaded, since they can run code; where you trust them, load them with "
            "the software that wrote them and save them as safetensors, or ask for that where you have them from"
        )


def _files_of(path: Path, *, error: type[BLTError]) -> dict[Path, dict[str, TensorHeader]]:
    """Find the files that hold the tensors, with their headers, and check them against the index if there is one."""
    refuse_pickle(path, error=error)
    if path.is_file():
        return {path: read_header(path, error=error)}
    index = index_of(path)
    if not index.is_file():
        for file in sorted(path.parent.glob("*")):
            refuse_pickle(file, error=error)
        raise error(f"{path}: no such file")
    placement = load_json(index, error=error).get("weight_map")
    if not isinstance(placement, dict) or not all(isinstance(file, str) for file in placement.values()):
        raise error(f"{index}: expected a table 'weight_map' of tensor names and files")
    files = {file: _shard(path.parent, file, index, error=error) for file in sorted(set(placement.values()))}
    for name, file in placement.items():
        if name not in files[file]:
            raise error(f"{index}: {name} is not in {file}; copy or download the files again")
    for file, headers in files.items():
        _check_placed(headers, placement, file, index, error=error)
    return {path.with_name(file): headers for file, headers in files.items()}


def _shard(folder: Path, file: str, index: Path, *, error: type[BLTError]) -> dict[str, TensorHeader]:
    is_name = file.isprintable() and Path(file).name == file and len(file.encode()) <= MAX_NAME_BYTES
    if not is_name or not file.endswith(".safetensors"):
        raise error(f"{index}: {file!r} is not the name of a safetensors file in this folder")
    if not (folder / file).is_file():
        raise error(f"{folder / file}: no such file, though {index.name} names it; copy or download it again")
    return read_header(folder / file, error=error)


def _check_placed(
    names: Iterable[str], placement: Mapping[str, str], file: str, index: Path, *, error: type[BLTError]
) -> None:
    for name in names:
        if placement.get(name) != file:
            raise error(f"{index}: {file} holds {name}, of which the index does not know")
