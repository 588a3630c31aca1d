"""The model folder: `config.json`, `model.safetensors`, `entropy.safetensors`, `README.md`."""

import dataclasses
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from blt.checkpoint import (
    MAX_SHARD_BYTES,
    FolderKind,
    index_of,
    load_headers,
    load_json,
    load_weights,
    read_plain,
    recover_folder,
    refuse_pickle,
    save_shards,
    write_file,
    write_folder,
    write_json,
)
from blt.configuration import check, from_dict, to_dict
from blt.entropy import EntropyConfig
from blt.errors import ConfigurationError, ModelFolderError
from blt.lm.hub import check_options, fetch, is_hub_name
from blt.model import BLTConfig
from blt.nn import quantized_as
from blt.patching import PatchRule

FORMAT = "blt-1"
MODEL, ENTROPY, CARD = "model.safetensors", "entropy.safetensors", "README.md"
BUNDLED = Path(__file__).parent.parent / "bundled"
BUNDLED_NAME = "tiny"
"""The bundled model's name, unless a folder in reach has it."""
MAX_CARD_BYTES = 2**20
"""The largest model card that is read; those on the Hub have some thousand bytes."""


def _is_own(folder: Path) -> bool:
    try:
        return load_json(folder / "config.json").get("format") == FORMAT
    except ModelFolderError:
        return False


MODEL_FOLDER = FolderKind(
    noun="model folder of blt",
    files=re.compile(
        r"config\.json|README\.md|(model|entropy)(-\d{5}-of-\d{5})?\.safetensors|(model|entropy)\.safetensors\.index\.json"
    ),
    is_own=_is_own,
)
"""What `write_lm` writes, and may replace."""


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """What `config.json` holds, beside the name of its format."""

    blt: BLTConfig
    """Shape of the model proper."""
    patch_rule: PatchRule
    """Where patches end."""
    entropy_model: EntropyConfig | None = None
    """Shape of the entropy model, if there is one."""
    stored_as: Literal["int8", "int4"] | None = None
    """How the matrices of the BLT are stored, where they are quantised; embeddings are then bfloat16."""

    def __post_init__(self) -> None:
        is_served = self.entropy_model is not None or not self.patch_rule.needs_entropies
        check(is_served, f"patch_rule: {type(self.patch_rule).__name__} needs an entropy model, and there is none")

    @property
    def num_layers(self) -> int:
        """Layers of all stacks."""
        blt = self.blt
        stacks = (blt.local_encoder, blt.global_transformer, blt.local_decoder, self.entropy_model)
        return sum(stack.num_layers for stack in stacks if stack is not None)


def download(name: str | Path | None, **hub: Any) -> Path:
    """Return the local folder of a model: the bundled one, a folder, one of a clone's `checkpoints`, or from the Hub.

    Raises:
        ModelFolderError: no such folder, and no such model on the Hub or no way to it.
    """
    if hub:
        check_options(hub)
    if name is None:
        check("revision" not in hub, "revision: the bundled model has none; name a model on the Hub")
        return BUNDLED
    if not str(name).strip() or "\0" in str(name):
        raise ModelFolderError(
            f"{str(name)!r}: no name of a folder; leave it out for the bundled model, or give . for this"
        )
    folder = Path(name)
    recover_folder(folder)
    if folder.is_dir():
        check("revision" not in hub, f"revision: {name} is a folder and has none; leave it out")
        return folder
    refuse_pickle(folder)
    if folder.exists():
        raise ModelFolderError(f"{name}: a file; a model is a folder with config.json and model.safetensors")
    if Path(name).name == str(name):  # no way to another folder in it
        for place in shipped_places():
            recover_folder(place / name)
            if (place / name).is_dir():
                return place / name
    if str(name) == BUNDLED_NAME:
        return BUNDLED
    if not is_hub_name(str(name)):
        raise ModelFolderError(
            f"{name}: no such folder; give a model folder, a name in checkpoints/, or a name on the Hub such as me/tiny"
        )
    return fetch(str(name), **hub)


def shipped_places() -> list[Path]:
    """Name the folders of models that a clone of the repository has: where one works, and where the package lies."""
    clones = [Path(), *Path(__file__).parents[3:4]]
    return [clone / "checkpoints" for clone in clones]


def read_config(folder: Path) -> LMConfig:
    """Read `config.json`.

    Raises:
        ModelFolderError: missing, broken, or of another format.
    """
    path = folder / "config.json"
    values = load_json(path)
    found = values.pop("format", None)
    if found != FORMAT:
        theirs = values.get("model_type", found)
        raise ModelFolderError(f"{path}: format {theirs!r} is not {FORMAT!r}; this is not a folder written by blt")
    try:
        config: LMConfig = from_dict(LMConfig, values)
    except ConfigurationError as error:
        raise ModelFolderError(f"{path}: {error}") from None
    return config


def read_card(folder: Path) -> str:
    """Return the text of the model card; a model whose card cannot be read goes without one, which is warned of."""
    path = folder / CARD
    if not (path.exists() or path.is_symlink()):
        return ""
    try:
        return read_plain(path, max_bytes=MAX_CARD_BYTES).decode("utf-8", errors="replace")
    except ModelFolderError as error:
        warnings.warn(f"{error}; the model goes without its card", stacklevel=2)
        return ""


def count_tensors(folder: Path) -> int:
    """Count the tensors that the folder's files hold.

    Raises:
        ModelFolderError: there are none, or their files are broken.
    """
    entropy = folder / ENTROPY
    paths = [folder / MODEL] + [entropy] * (entropy.is_file() or index_of(entropy).is_file())
    return sum(len(load_headers(path)) for path in paths)


def read_weights(folder: Path, *, blt: nn.Module, entropy_model: nn.Module | None) -> None:
    """Fill the modules from the folder's weights.

    Raises:
        ModelFolderError: missing, broken, pickled, or of another shape than the modules.
    """
    load_weights(blt, folder / MODEL)
    if entropy_model is not None:
        load_weights(entropy_model, folder / ENTROPY)


def write_lm(
    folder: Path,
    config: LMConfig,
    *,
    blt: nn.Module,
    entropy_model: nn.Module | None,
    card: str,
    dtype: torch.dtype | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    sources: Iterable[str | Path] = (),
) -> None:
    """Write a model folder, whole or not at all; a card that is there stays where the model has none.

    Raises:
        ModelFolderError: what is there may not be replaced; see `check_replaceable`.
        OutputError: it cannot be written.
    """
    found = quantized_as(blt)
    stored_as = None if found == "bfloat16" else found  # that is no code, and needs no scale

    def fill(unfinished: Path) -> None:
        plain = to_dict(dataclasses.replace(config, stored_as=stored_as))
        write_json(unfinished / "config.json", {"format": FORMAT} | plain)
        for name, module in ((MODEL, blt), (ENTROPY, entropy_model)):
            if module is not None:
                save_shards(unfinished / name, _stored(module, dtype), max_bytes=max_shard_bytes)
        write_card_file(unfinished, card, before=folder)

    write_folder(folder, fill, kind=MODEL_FOLDER, sources=sources)


def _stored(module: nn.Module, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Return a module's tensors as they are stored; quantised matrices and their scales keep their types."""
    tensors = module.state_dict()
    if quantized_as(module) is None:
        return {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}
    tables = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    return {name: tensor.to(torch.bfloat16) if name in tables else tensor for name, tensor in tensors.items()}


def write_card_file(unfinished: Path, card: str, *, before: Path) -> None:
    """Write the card into a new model folder: the model's, or else the one of the folder that is replaced."""
    if content := card or read_card(before):
        write_file(unfinished / CARD, content.encode())
