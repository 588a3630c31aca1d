"""`evaluate`: how well a model predicts documents, in bits per byte, with everything needed to repeat the figure."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from blt.api import ByteLM
from blt.codec import BYTE_OFFSET
from blt.configuration import check, to_dict
from blt.data import Batch, Shards
from blt.errors import DataError
from blt.evaluation.bootstrap import ratio
from blt.evaluation.rows import document_rows, num_windows, window_rows
from blt.lm import fingerprint, require_finite
from blt.loss import next_byte_loss
from blt.model.memory import memory_of
from blt.ops import attention_mask_bytes
from blt.patching import Patches, count_text_by_row, patch
from blt.progress import OnProgress
from blt.shapes import Float, Int, Tensor

Protocol = Literal["documents", "windows"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""What a model has read before it predicts a byte; `blt.evaluation.rows` defines both."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """One figure and what it was measured on. A unit is a document, or a window, as the protocol says."""

    protocol: Protocol
    """What the model had read before it predicted a byte."""
    bits_per_byte: float
    """Bits of every byte and every EOS, divided by the bytes of the text alone."""
    interval_low: float
    """Lower end of the 95% bootstrap interval of `bits_per_byte` over units; NaN without one."""
    interval_high: float
    """Upper end."""
    num_bytes: int
    """Bytes of the text."""
    num_documents: int
    """Documents, empty ones left out."""
    mean_patch_bytes: float
    """Mean patch length, as `blt.patching.mean_patch_bytes` defines it."""
    threshold: float | None
    """θ of the patch rule, in nats; None for a rule that has none."""
    patch_rule: dict[str, Any]
    """The patch rule, as `config.json` writes it."""
    model_fingerprint: str
    """Names the weights, the entropy model's included."""
    data_checksum: str
    """sha256 of the documents and their order (`blt.data.Shards.checksum`)."""
    seconds: float
    """Wall-clock time of the scoring, entropies included."""
    bits_by_unit: NDArray[np.float64]
    """Bits of each unit, in the order of the text."""
    bytes_by_unit: NDArray[np.int64]
    """Bytes of text that each unit predicts."""
    patches_by_unit: NDArray[np.int64]
    """Patches of each unit that hold any text."""

    @property
    def bytes_per_second(self) -> float:
        """Bytes of the text scored in a second."""
        return self.num_bytes / self.seconds

    def to_dict(self, *, units: bool = False) -> dict[str, Any]:
        """Return plain values for JSON; a missing interval is null.

        Args:
            units: with the bits, bytes and patches of every unit.
        """
        names = [name for name in self.__dataclass_fields__ if not name.endswith("_by_unit")]
        values = {name: getattr(self, name) for name in names} | {"bytes_per_second": self.bytes_per_second}
        values = {name: None if _is_nan(value) else value for name, value in values.items()}
        if units:
            values["bits_by_unit"] = self.bits_by_unit.tolist()
            values["bytes_by_unit"] = self.bytes_by_unit.tolist()
            values["patches_by_unit"] = self.patches_by_unit.tolist()
        return values


def evaluate(
    lm: ByteLM,
    documents: Shards | Iterable[bytes],
    *,
    protocol: Protocol = "documents",
    seed: int = 0,
    bootstrap: int = 1000,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Measure bits per byte.

    Args:
        lm: the model.
        documents: raw bytes of each, or a split of a prepared folder; empty documents are left out.
        protocol: `documents` (each alone and whole) or `windows` (cuts of 512 ids); see `blt.evaluation.rows`.
        seed: of the bootstrap.
        bootstrap: how many times to resample for the interval; 0 for none.
        progress: told the bytes of text predicted so far, and their total.

    Raises:
        ConfigurationError: no such protocol, or a negative number of resamples.
        DataError: there is no document, or one is too long to be read whole on this machine.
        ModelFolderError: the model's figures are no numbers.
    """
    check(protocol in PROTOCOLS, f"protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}")
    check(bootstrap >= 0, f"bootstrap: expected 0 or more resamples, got {bootstrap}")
    shards = documents if isinstance(documents, Shards) else Shards.from_documents(list(documents))
    start = time.perf_counter()
    tally = _Tally(num_units=shards.num_documents if protocol == "documents" else num_windows(shards))
    rows_of = document_rows if protocol == "documents" else window_rows
    entropy_model = lm.entropy_model if lm.patch_rule.needs_entropies else None
    for rows in rows_of(shards, entropy_model=entropy_model, device=lm.device):
        tally.add(lm, rows)
        if progress is not None:
            progress(int(tally.num_bytes.sum()), shards.num_bytes)
    seconds = time.perf_counter() - start
    assert tally.num_bytes.sum() == shards.num_bytes, "every byte is predicted exactly once"
    figure = ratio(tally.bits, tally.num_bytes, resamples=bootstrap, seed=seed)
    return Evaluation(
        protocol=protocol,
        bits_per_byte=figure.value,
        interval_low=figure.low,
        interval_high=figure.high,
        num_bytes=shards.num_bytes,
        num_documents=shards.num_documents,
        mean_patch_bytes=tally.text_bytes / int(tally.num_patches.sum()),
        threshold=getattr(lm.patch_rule, "threshold", None),
        patch_rule=to_dict(lm.patch_rule),
        model_fingerprint=fingerprint(lm),
        data_checksum=shards.checksum,
        seconds=seconds,
        bits_by_unit=tally.bits,
        bytes_by_unit=tally.num_bytes,
        patches_by_unit=tally.num_patches,
    )


class _Tally:
    """What has been counted so far."""

    def __init__(self, *, num_units: int) -> None:
        self.bits = np.zeros(num_units, np.float64)
        self.num_bytes = np.zeros(num_units, np.int64)
        self.num_patches = np.zeros(num_units, np.int64)
        self.text_bytes = 0

    def add(self, lm: ByteLM, rows: Batch) -> None:
        """Score some rows."""
        if rows.entropies is not None:
            require_finite(rows.entropies, "entropies")
        ends = patch(rows.byte_ids, lm.patch_rule, entropies=rows.entropies).ends & rows.is_read
        patches = Patches(ends=ends)  # what fills a row up is one open patch, which nobody reads
        _check_memory(lm, patches)
        units = rows.numbers.numpy()
        nats = _nats(lm, rows.byte_ids, patches, rows.targets)
        require_finite(nats, "nats")
        self.bits[units] = nats.numpy() / math.log(2)
        self.num_bytes[units] = (rows.targets >= BYTE_OFFSET).sum(1).cpu().numpy()
        num_bytes, num_patches = count_text_by_row(patches, rows.byte_ids)
        self.text_bytes += int(num_bytes.sum())
        self.num_patches[units] = num_patches.cpu().numpy()


@torch.inference_mode()
def _nats(
    lm: ByteLM, byte_ids: Int[Tensor, "B T"], patches: Patches, targets: Int[Tensor, "B T"]
) -> Float[Tensor, " B"]:
    """Add up the nats of each row's targets, in float64."""
    logits = lm.blt(byte_ids, patches)  # B T V
    return next_byte_loss(logits, targets, reduction="none").cpu().double().sum(1)


def _check_memory(lm: ByteLM, patches: Patches) -> None:
    """Refuse a document whose patches, each seeing every earlier one, need a mask that memory has no room for.

    Where attention computes runs, no mask is made, and memory grows with the document alone.
    """
    weight, head_dim = lm.blt.hash_embedding.bytes.weight, lm.blt.config.global_transformer.head_dim
    needed = attention_mask_bytes(weight, rows=len(patches.ends), length=patches.num_slots, head_dim=head_dim)
    available = memory_of(weight.device)
    if available is not None and needed > available:
        raise DataError(
            f"a document of {patches.ends.shape[1]:,} ids has {patches.num_slots:,} patches, whose attention needs "
            f"{needed / 1e9:,.0f} GB at once; evaluate it by the protocol 'windows', or divide it into documents"
        )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
