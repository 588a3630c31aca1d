"""A `BLT` that the native decoder reads on given boundaries, as `BLTState` does."""

import numpy as np
import torch

from blt.decoder import NativeDecoding, PackedModel
from blt.decoder.library import library
from blt.model import BLT
from blt.patching import ByteRule
from blt.shapes import Bool, Float, Int, Tensor


class NativeState:
    """See `BLTState`."""

    def __init__(self, model: BLT, *, batch: int, max_rollback: int, num_threads: int = 1) -> None:
        packed = PackedModel(library(), model, None)
        self.decoding = NativeDecoding(packed, ByteRule(), max_rollback=max_rollback, num_threads=num_threads)
        self.decoding.start(batch)

    def read(self, byte_ids: Int[Tensor, "R M"], ends: Bool[Tensor, "R M"], rows: np.ndarray) -> Float[Tensor, "R M V"]:
        return self.decoding.read(byte_ids, rows, ends=ends)

    def rewind(self, *, taken_back: np.ndarray) -> None:
        self.decoding.rewind(taken_back)

    def fill(
        self, rows: np.ndarray, byte_ids: Int[Tensor, "R T"], ends: Bool[Tensor, "R T"], *, lengths: Int[Tensor, " R"]
    ) -> Float[Tensor, "R V"]:
        self.decoding.remove(rows)
        parts = [slice(int(length)) for length in lengths]
        prompts, boundaries = (
            [row[part] for row, part in zip(given, parts, strict=True)] for given in (byte_ids, ends)
        )
        joined, logits = self.decoding.add(prompts, ends=boundaries)
        assert joined.tolist() == rows.tolist()
        return torch.as_tensor(logits)
