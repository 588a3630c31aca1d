"""`ByteLM`: entropy model, patch rule and BLT as one thing, in one folder."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blt.checkpoint import MAX_SHARD_BYTES, read_whole
from blt.codec import encode
from blt.configuration import check
from blt.entropy import EntropyModel
from blt.errors import ModelFolderError
from blt.lm.card import CardFigure, write_card
from blt.lm.folder import LMConfig, count_tensors, download, read_card, read_config, read_weights, write_lm
from blt.lm.hub import upload
from blt.lm.score import Score
from blt.lm.shown_patch import ShownPatch, show_patches
from blt.model import BLT
from blt.nn import QuantizedLinear, quantize_weights_
from blt.patching import Patches, PatchRule, patch
from blt.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from typing import Unpack

    from blt.generation import Generation, GenerationOptions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Types that weights are stored in."""
LOADED_AS = (*DTYPES, "int8")
"""Types that weights are loaded as."""


class ByteLM(nn.Module):
    """A language model over raw bytes."""

    def __init__(
        self, blt: BLT, *, patch_rule: PatchRule, entropy_model: EntropyModel | None = None, card: str = ""
    ) -> None:
        """Join the parts.

        Args:
            blt: the model proper.
            patch_rule: where patches end; it may be changed at any time.
            entropy_model: frozen; needed by rules that look at entropies.
            card: text of the model card, Markdown.

        Raises:
            ConfigurationError: the rule needs entropies and there is no entropy model.
        """
        super().__init__()
        check(
            entropy_model is not None or not patch_rule.needs_entropies,
            f"patch_rule: {type(patch_rule).__name__} needs an entropy model, and there is none",
        )
        self.blt = blt
        self.entropy_model = entropy_model
        self.patch_rule = patch_rule
        self.card = card
        if entropy_model is not None:
            entropy_model.requires_grad_(False)

    @classmethod
    def new(cls, config: LMConfig) -> "ByteLM":
        """Make a model with new weights."""
        entropy_model = None if config.entropy_model is None else EntropyModel(config.entropy_model)
        return cls(BLT(config.blt), patch_rule=config.patch_rule, entropy_model=entropy_model)

    @classmethod
    def without_weights(cls, config: LMConfig, *, path: Path, num_tensors: int) -> "ByteLM":
        """Make a model on the meta device, from a file that may claim anything.

        Args:
            config: what the file says.
            path: of the file, for messages.
            num_tensors: how many the folder holds.

        Raises:
            ModelFolderError: more layers than tensors, or a size that no tensor can have.
        """
        if config.num_layers > num_tensors:
            raise ModelFolderError(
                f"{path}: speaks of {config.num_layers:,} layers; the files hold fewer tensors, {num_tensors:,}"
            )
        try:
            with torch.device("meta"):
                return cls.new(config)
        except (RuntimeError, TypeError, OverflowError) as reason:
            raise ModelFolderError(f"{path}: sizes that no tensor can have ({reason})") from None

    @property
    def config(self) -> LMConfig:
        """What `config.json` holds."""
        entropy = None if self.entropy_model is None else self.entropy_model.config
        return LMConfig(blt=self.blt.config, entropy_model=entropy, patch_rule=self.patch_rule)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.blt.hash_embedding.bytes.weight.device

    @classmethod
    def from_pretrained(
        cls, name: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu", **hub: Any
    ) -> "ByteLM":
        """Load a model, ready to use.

        Args:
            name: a folder, a name in a clone's `checkpoints`, or one on the Hub; without it, the bundled model.
            dtype: `float32`, `bfloat16` or `int8`, whatever the files hold; see `to_type`.
            device: as PyTorch names it.
            hub: passed to `huggingface_hub.snapshot_download`, for instance `revision`, `token`, `cache_dir`.

        Raises:
            ModelFolderError: nothing of that name, or a folder that is broken or of another format.
        """
        _check_loaded_as(dtype)
        lm = read_whole(download(name, **hub), cls._read)
        return lm.eval().to_type(dtype).to(device)

    @classmethod
    def _read(cls, folder: Path) -> "ByteLM":
        config = read_config(folder)
        lm = cls.without_weights(config, path=folder / "config.json", num_tensors=count_tensors(folder))
        read_weights(folder, blt=lm.blt, entropy_model=lm.entropy_model)
        lm.card = read_card(folder)
        return lm

    def to_type(self, dtype: str) -> "ByteLM":
        """Change the type of the weights, in place.

        Args:
            dtype: `float32`; `bfloat16`; or `int8`, with one scale per output, for the matrices of the BLT: embeddings,
                norms and the entropy model stay as they are, so that patches do not change. `int8` is for use only:
                such a model is neither trained nor saved.
        """
        _check_loaded_as(dtype)
        if dtype == "int8":
            quantize_weights_(self.blt, stored_as="int8")
            return self
        return self.to(DTYPES[dtype])

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> None:
        """Write the model folder, whole or not at all: `config.json`, weights as safetensors, model card.

        Args:
            folder: replaced if it is a model folder of blt and holds nothing else.
            dtype: of the stored weights; by default the one they have.
            max_shard_bytes: the most that one file's tensors may have; more are divided into shards with an index.

        Raises:
            ModelFolderError: something else is there, or the folder is the one that this process runs in.
            OutputError: it cannot be written.
        """
        if not str(folder).strip():
            raise ModelFolderError(f"{folder!r}: no name of a folder; give the one to write")
        self._write(Path(folder), card=self.card, dtype=dtype, max_shard_bytes=max_shard_bytes)

    def _write(self, folder: Path, *, card: str, dtype: str | None, max_shard_bytes: int) -> None:
        check(dtype is None or dtype in DTYPES, f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
        is_whole = not any(isinstance(part, QuantizedLinear) for part in self.blt.modules())
        check(is_whole, "dtype: a model that was loaded as int8 has lost its weights; save the one it was loaded from")
        check(max_shard_bytes >= 1, f"max_shard_bytes: {max_shard_bytes}; at least 1")
        write_lm(
            folder,
            self.config,
            blt=self.blt,
            entropy_model=self.entropy_model,
            card=card,
            dtype=None if dtype is None else DTYPES[dtype],
            max_shard_bytes=max_shard_bytes,
        )

    def push_to_hub(
        self,
        name: str,
        *,
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
            name: owner/model; made if it is not there.
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
            ModelFolderError: not allowed, or no way to the Hub.
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
                message=commit_message,
                private=private,
                token=token,
                revision=revision,
                endpoint=endpoint,
            )

    @torch.no_grad()
    def entropies(self, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"] | None:
        """Return the uncertainty about the next byte, in nats; None where the rule needs none."""
        if self.entropy_model is None or not self.patch_rule.needs_entropies:
            return None
        return self.entropy_model.entropies(byte_ids)

    def patches(self, byte_ids: Int[Tensor, "B T"]) -> Patches:
        """Divide rows of ids into patches."""
        return patch(byte_ids, self.patch_rule, entropies=self.entropies(byte_ids))

    def forward(self, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Return the logits of the next byte after every byte, float32."""
        return self.blt(byte_ids, self.patches(byte_ids))

    @torch.inference_mode()
    def score(self, text: str | bytes) -> Score:
        """Measure how well the model foresees a text, as one document: every byte, then the end."""
        byte_ids = encode(text, bos=True, eos=True).to(self.device)[None]
        log_probabilities = self(byte_ids)[:, :-1].log_softmax(-1)
        nats = -log_probabilities.gather(2, byte_ids[:, 1:, None])[0, :, 0]
        return Score.from_nats(nats)

    @torch.inference_mode()
    def patch(self, text: str | bytes) -> list[ShownPatch]:
        """Return the patches of a text, with their bytes and entropies."""
        byte_ids = encode(text, bos=True).to(self.device)[None]
        entropies = None if self.entropy_model is None else self.entropy_model.entropies(byte_ids)
        patches = patch(byte_ids, self.patch_rule, entropies=entropies)
        return show_patches(byte_ids[0], patches.ends[0], None if entropies is None else entropies[0])

    def generate(self, prompt: str | bytes = "", **options: "Unpack[GenerationOptions]") -> "Generation":
        """Continue a prompt; see `blt.generation.generate` for the options."""
        from blt.generation import generate

        return generate(self, prompt, **options)

    def stream(self, prompt: str | bytes = "", **options: "Unpack[GenerationOptions]") -> Iterator[str]:
        """Continue a prompt piece by piece, never splitting a character; see `blt.generation.stream`."""
        from blt.generation import stream

        return stream(self, prompt, **options)

    def fingerprint_of_entropies(self) -> str:
        """Name the entropy model by its weights, so that stored entropies are never taken for another model's."""
        assert self.entropy_model is not None
        return fingerprint(self.entropy_model)


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(weight.numel() for weight in module.parameters())


def _check_loaded_as(dtype: str) -> None:
    check(dtype in LOADED_AS, f"dtype: {dtype!r} is none of {', '.join(LOADED_AS)}")


def fingerprint(module: nn.Module) -> str:
    """Return a short name for a module's weights: equal weights, equal names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


__all__ = ["ByteLM", "LMConfig", "fingerprint"]
