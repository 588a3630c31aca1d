"""Files that are whole or absent: weights as safetensors, written under another name and renamed. No pickle, ever."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from blt.errors import BLTError, ModelFolderError
from blt.shapes import Tensor

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one, never a part."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write readable JSON; whole or not at all."""
    write_file(path, (json.dumps(values, indent=2) + "\n").encode())


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder so that a kill or a full disk leaves the old one or the new one.

    Args:
        folder: its final name. What is there already is replaced once the new one is whole; killed between the two
            renames, the old one is at `.NAME.replaced` and `recover_folder` puts it back.
        fill: writes the content into the folder that it is given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    replaced = _replaced(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        fill(unfinished)
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Put a folder back whose replacement was killed between two renames; else drop what such a kill left."""
    replaced = _replaced(folder)
    if replaced.exists():
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(folder)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors; whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(path, safetensors.torch.save(plain, metadata=dict(metadata or {}) | {"format": "pt"}))


def load_tensors(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelFolderError: (or the given class) the file is missing, truncated, or no safetensors.
    """
    if path.suffix in PICKLE_SUFFIXES:
        raise error(f"{path}: pickled weights are never loaded, since they can run code; convert them to safetensors")
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*") if file.suffix in PICKLE_SUFFIXES)
        hint = f"; {pickles[0]} is a pickle and is never loaded: convert it to safetensors" if pickles else ""
        raise error(f"{path}: no such file{hint}")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, OSError) as reason:
        raise error(f"{path}: not a whole safetensors file ({reason}); copy or download it again") from None


def load_json(path: Path, *, error: type[BLTError] = ModelFolderError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFolderError: (or the given class) the file is missing or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as reason:
        raise error(f"{path}: not readable as JSON ({reason})") from None
    if not isinstance(values, dict):
        raise error(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def load_weights(module: torch.nn.Module, path: Path, *, error: type[BLTError] = ModelFolderError) -> None:
    """Fill a module's weights from a safetensors file, in the module's own dtype.

    Raises:
        ModelFolderError: (or the given class) as `load_tensors`, or names or shapes differ.
    """
    tensors = load_tensors(path, error=error)
    wanted = module.state_dict()
    missing, surplus = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or surplus:
        what = f"lacks {missing[0]}" if missing else f"holds {surplus[0]}, which this model has not"
        count = len(missing) + len(surplus)
        raise error(f"{path}: {what} ({count} names differ); config.json describes another model")
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape:
            found, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise error(f"{path}: {name} has shape {found}, config.json says {expected}")
    module.load_state_dict(tensors)
