"""The user's door to a model: load it, continue a text, save it, publish it.

In: a folder or a name, and prompts. Out: `Generation`, text piece by piece, or a model folder.
Next: `blt.evaluation`, `blt.training` and `blt.interop`, which measure and make such models.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from blt.checkpoint import MAX_SHARD_BYTES, read_whole
from blt.configuration import check
from blt.errors import ConfigurationError, ModelFolderError
from blt.generation import Generation, GenerationOptions, generate, stream
from blt.lm.card import CardFigure, write_card
from blt.lm.folder import MODEL_FOLDER, count_tensors, download, read_card, read_config, read_weights, write_lm
from blt.lm.hub import upload
from blt.lm.language_model import DTYPES, LOADED_AS, WEIGHT_TYPES, LanguageModel, check_loaded_as
from blt.lm.static_decoding import StaticConfig
from blt.nn import quantized_as, requantize_weights_


class ByteLM(LanguageModel):
    """A language model over raw bytes, as a user meets it.

    `generate` and `stream` continue a text; `score` and `patch`, of the base class, measure one.
    """

    @classmethod
    def from_pretrained(
        cls, name: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu", **hub: Any
    ) -> "ByteLM":
        """Load a model, ready to use.

        Args:
            name: a folder, a name in a clone's `checkpoints`, or one on the Hub; without it, the bundled model.
            dtype: `float32`, `bfloat16`, `int8` or `int4`, whatever the files hold; see `to_type`.
            device: as PyTorch names it.
            hub: passed to `huggingface_hub.snapshot_download`, for instance `revision`, `token`, `cache_dir`.

        Raises:
            ModelFolderError: nothing of that name, or a folder that is broken or of another format.
            ConfigurationError: another dtype, a device that cannot be used here, or an option that nothing reads.
        """
        check_loaded_as(dtype)
        _check_device(device)
        lm = read_whole(download(name, **hub), cls._read)
        return lm.eval().to_type(dtype).to(device)

    @classmethod
    def _read(cls, folder: Path) -> "ByteLM":
        config = read_config(folder)
        lm = cls.without_weights(config, path=folder / "config.json", num_tensors=count_tensors(folder))
        read_weights(folder, blt=lm.blt, entropy_model=lm.entropy_model)
        lm.card = read_card(folder)
        return lm

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> None:
        """Write the model folder, whole or not at all: `config.json`, weights as safetensors, model card.

        Args:
            folder: replaced if it is a model folder of blt and holds nothing else.
            dtype: of the stored weights, by default the one they have: `float32`, `bfloat16`, or `int8` or `int4` for
                the matrices of the BLT alone, whose embeddings are then bfloat16; see `to_type`.
            max_shard_bytes: the most that one file's tensors may have; more are divided into shards with an index.

        Raises:
            ModelFolderError: something else is there, or the folder is the one that this process runs in.
            OutputError: it cannot be written.
        """
        if not str(folder).strip():
            raise ModelFolderError(f"{folder!r}: no name of a folder; give the one to write")
        self._write(Path(folder), card=self.card, dtype=dtype, max_shard_bytes=max_shard_bytes)

    def _write(self, folder: Path, *, card: str, dtype: str | None, max_shard_bytes: int) -> None:
        check(dtype is None or dtype in LOADED_AS, f"dtype: {dtype!r} is none of {', '.join(LOADED_AS)}")
        given: object = max_shard_bytes  # callers are not held to the annotation
        is_count = isinstance(given, Integral) and not isinstance(given, bool)
        check(is_count, f"max_shard_bytes: expected a whole number, got {max_shard_bytes!r}")
        check(max_shard_bytes >= 1, f"max_shard_bytes: {max_shard_bytes}; at least 1")
        blt = self.blt
        if dtype is not None and (stored_as := WEIGHT_TYPES.get(dtype)) != quantized_as(blt):
            blt = copy.deepcopy(blt)
            requantize_weights_(blt, stored_as=stored_as)
        write_lm(
            folder,
            self.config,
            blt=blt,
            entropy_model=self.entropy_model,
            card=card,
            dtype=None if dtype is None else DTYPES.get(dtype),
            max_shard_bytes=int(max_shard_bytes),
        )

    def push_to_hub(
        self,
        name: str,
        *,
        replace: bool = False,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        dtype: str | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        license: str | None = None,
        figures: Sequence[CardFigure] = (),
        endpoint: str | None = None,
    ) -> str:
        """Upload the model folder to the Hugging Face Hub, in one commit.

        Args:
            name: owner/model; made if it is not there, replaced if it is a model of blt.
            replace: whether a model of other software, or other files, may be replaced too.
            private: only for a new model; by default as the owner's settings are.
            token: of the Hub; by default the one that is logged in.
            revision: branch, made if it is not there; by default the main one.
            commit_message: what the history says.
            dtype: of the stored weights; by default the one they have.
            max_shard_bytes: as in `save_pretrained`.
            license: for the card that is written where the model has none; as the Hub abbreviates it.
            figures: bits per byte for that card, where they are known.
            endpoint: address of the Hub; by default as `HF_ENDPOINT` says.

        Returns:
            The address of the commit.

        Raises:
            ModelFolderError: the name holds something else, not allowed, or no way to the Hub.
        """
        check(
            not self.card or (license is None and not figures),
            "license, figures: the model has a card of its own, which is uploaded as it is; edit `card` instead",
        )
        card = self.card or write_card(
            self.config,
            name=name,
            num_parameters=_count(self.blt),
            num_entropy_parameters=_count(self.entropy_model),
            license=license,
            figures=figures,
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            self._write(folder, card=card, dtype=dtype, max_shard_bytes=max_shard_bytes)
            return upload(
                folder,
                name,
                kind=MODEL_FOLDER,
                replace=replace,
                message=commit_message,
                private=private,
                token=token,
                revision=revision,
                endpoint=endpoint,
            )

    def generate(
        self, prompt: str | bytes = "", *, static: StaticConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> Generation:
        """Continue a prompt; see `blt.generation.generate` for the options."""
        return generate(self, prompt, static=static, **options)

    def stream(
        self, prompt: str | bytes = "", *, static: StaticConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> Iterator[str]:
        """Continue a prompt piece by piece, never splitting a character; see `blt.generation.stream`."""
        return stream(self, prompt, static=static, **options)


def _check_device(device: str) -> None:
    """Refuse a device that PyTorch does not know, that this machine lacks, or that holds no numbers (`meta`).

    Raises:
        ConfigurationError: with the device and PyTorch's reason.
    """
    check(isinstance(device, str | torch.device), f"device: expected a name such as 'cpu', got {device!r}")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f"device: {str(device)!r} cannot be used ({reason}); try 'cpu'") from None


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(weight.numel() for weight in module.parameters())
