"""Entropy model, patch rule and BLT as one module; `blt.api.ByteLM` is what a user loads, saves and generates with."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from blt.codec import decode_bytes, encode
from blt.configuration import check
from blt.entropy import EntropyModel
from blt.errors import ModelFolderError
from blt.lm.folder import LMConfig
from blt.lm.initialisation import WithoutInitialisation
from blt.loss import next_byte_loss, next_byte_targets
from blt.model import BLT
from blt.nn import WeightType, quantize_weights_, requantize_weights_
from blt.patching import Patches, PatchRule, patch
from blt.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class ShownPatch:
    """One patch of a text."""

    data: bytes
    """Its bytes; empty for the patch that holds only BOS."""
    entropies: tuple[float, ...]
    """Uncertainty about the byte after each of its ids, in nats; empty without an entropy model."""
    is_complete: bool
    """Whether the patch ended; only the last can be open."""

    @property
    def text(self) -> str:
        """Its bytes as text, U+FFFD for bytes that are none."""
        return self.data.decode("utf-8", errors="replace")


def show_patches(
    byte_ids: Int[Tensor, " T"], ends: Bool[Tensor, " T"], entropies: Float[Tensor, " T"] | None
) -> list[ShownPatch]:
    """Cut one row of ids after every end."""
    shown = []
    stops = [*(ends.nonzero()[:, 0] + 1).tolist(), len(byte_ids)]
    start = 0
    for stop in stops:
        if stop > start:
            values = () if entropies is None else tuple(entropies[start:stop].tolist())
            data = decode_bytes(byte_ids[start:stop])
            shown.append(ShownPatch(data=data, entropies=values, is_complete=bool(ends[stop - 1])))
        start = stop
    return shown


@dataclass(frozen=True, eq=False)
class Score:
    """The bits that each byte of one document costs, the end of the document included."""

    bits_by_byte: npt.NDArray[np.float64]
    """One figure per byte, in order, then one for EOS."""

    @classmethod
    def from_nats(cls, nats: Float[Tensor, " T"]) -> "Score":
        """Build from nats per byte, EOS last."""
        return cls(bits_by_byte=nats.double().cpu().numpy() / np.log(2.0))

    @property
    def num_bytes(self) -> int:
        """Bytes of the text; EOS does not count."""
        return len(self.bits_by_byte) - 1

    @property
    def bits(self) -> float:
        """Bits of the whole document, EOS included."""
        return float(self.bits_by_byte.sum())

    @property
    def bits_per_byte(self) -> float:
        """Bits of bytes and EOS, divided by the bytes; infinite for the empty text, whose EOS costs bits too."""
        return self.bits / self.num_bytes if self.num_bytes else float("inf")


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Types that weights are stored in."""
WEIGHT_TYPES: dict[str, WeightType] = {"int8": "int8", "int4": "int4"}
"""Types of the matrices alone, which only scales turn into numbers."""
LOADED_AS = (*DTYPES, *WEIGHT_TYPES)
"""Types that a model is loaded or saved as."""


Model = TypeVar("Model", bound="LanguageModel")


class LanguageModel(nn.Module):
    """A language model over raw bytes: bytes and patches in; logits, scores and patches out."""

    def __init__(
        self, blt: BLT, *, patch_rule: PatchRule, entropy_model: EntropyModel | None = None, card: str = ""
    ) -> None:
        """Join the parts.

        Args:
            blt: the model proper.
            patch_rule: where patches end; it may be replaced, but not while a session or an engine uses the model.
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
    def new(cls: type[Model], config: LMConfig) -> Model:
        """Make a model with new weights."""
        entropy_model = None if config.entropy_model is None else EntropyModel(config.entropy_model)
        return cls(BLT(config.blt), patch_rule=config.patch_rule, entropy_model=entropy_model)

    @classmethod
    def without_weights(cls: type[Model], config: LMConfig, *, path: Path, num_tensors: int) -> Model:
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
            with torch.device("meta"), WithoutInitialisation():
                lm = cls.new(config)
                if config.stored_as is not None:
                    quantize_weights_(lm.blt, stored_as=config.stored_as)
                return lm
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

    def to_type(self: Model, dtype: str) -> Model:
        """Change the type of the weights, in place.

        Args:
            dtype: `float32`; `bfloat16`; `int8`, with one scale per output, or `int4`, with one per output and 32
                inputs, for the matrices of the BLT: embeddings, norms and the entropy model stay as they are, so that
                patches do not change. `int8` and `int4` are for use only: such a model is not trained. Any other type
                turns them back into floating-point numbers; what rounding took from them stays lost.
        """
        check_loaded_as(dtype)
        requantize_weights_(self.blt, stored_as=WEIGHT_TYPES.get(dtype))
        return self if dtype in WEIGHT_TYPES else self.to(DTYPES[dtype])

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
        """Measure how well the model predicts a text, as one document: every byte, then the end."""
        byte_ids, targets = next_byte_targets(encode(text, bos=True, eos=True).to(self.device)[None])
        return Score.from_nats(next_byte_loss(self(byte_ids), targets, reduction="none")[0])

    @torch.inference_mode()
    def patch(self, text: str | bytes) -> list[ShownPatch]:
        """Return the patches of a text, with their bytes and entropies."""
        byte_ids = encode(text, bos=True).to(self.device)[None]
        entropies = None if self.entropy_model is None else self.entropy_model.entropies(byte_ids)
        patches = patch(byte_ids, self.patch_rule, entropies=entropies)
        return show_patches(byte_ids[0], patches.ends[0], None if entropies is None else entropies[0])

    def fingerprint_of_entropies(self) -> str:
        """Name the entropy model by its weights, so that stored entropies are never taken for another model's."""
        assert self.entropy_model is not None
        return fingerprint(self.entropy_model)


def check_loaded_as(dtype: str) -> None:
    """Refuse a type that weights are not loaded as."""
    check(dtype in LOADED_AS, f"dtype: {dtype!r} is none of {', '.join(LOADED_AS)}")


def fingerprint(module: nn.Module) -> str:
    """Return a short name for a module's weights: equal weights, equal names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
