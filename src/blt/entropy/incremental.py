"""The entropy model, a few bytes of some rows at a time."""

import numpy as np
import torch

from blt.codec import BOS_ID
from blt.entropy.model import EntropyModel
from blt.nn import HostInts, RowInputs, StepInputs, dtype_of_states
from blt.ops import in_last_segment, run_positions, to_device, without_autocast
from blt.shapes import Float, Int, Tensor


class EntropyState:
    """What the entropy model must remember of each row: how far it has come, and the keys and values of a window.

    Args:
        model: the entropy model.
        batch: rows, all at their start.
        max_rollback: how many bytes can be read at once, and taken back.
    """

    def __init__(self, model: EntropyModel, *, batch: int, max_rollback: int) -> None:
        like = model.bytes.weight.detach().new_empty(0, dtype=dtype_of_states(model))
        self.model, self._device = model, like.device
        self.newest: HostInts = np.full(batch, -1)
        """Position of each row's newest byte; −1 where its document has none."""
        self.stack = model.layers.new_state(batch=batch, like=like, max_rollback=max_rollback)

    @torch.inference_mode()
    @without_autocast
    def read(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Read bytes of some rows; a BOS may only be the first of them.

        Args:
            byte_ids: the bytes; on the host, they need not be waited for.
            rows: which rows.

        Returns:
            Logits of the byte that follows each, float32.
        """
        num_bytes = byte_ids.shape[1]
        before = np.where(byte_ids[:, 0].cpu().numpy() == BOS_ID, -1, self.newest[rows])
        self.newest[rows] = newest = before + num_bytes
        positions = before[:, None] + np.arange(1, num_bytes + 1)
        inputs = StepInputs.of(rows.repeat(num_bytes), positions.ravel(), newest.repeat(num_bytes), device=self._device)
        return self.model(to_device(byte_ids, self._device).reshape(-1, 1), inputs, self.stack).view(
            *byte_ids.shape, -1
        )

    def restart(self, rows: HostInts) -> None:
        """Put some rows back at their start."""
        self.newest[rows] = -1

    def rewind(self, rows: HostInts, *, taken_back: HostInts) -> None:
        """Roll back the last `taken_back[r]` bytes of each row."""
        self.newest[rows] -= taken_back

    @torch.inference_mode()
    @without_autocast
    def fill(
        self, rows: HostInts, byte_ids: Int[Tensor, "R T"], *, lengths: Int[Tensor, " R"]
    ) -> Float[Tensor, "R T V"]:
        """Prefill some rows with the first `lengths[r]` bytes of each, in one parallel pass.

        Returns:
            Logits of the byte that follows each, float32.
        """
        documents = (byte_ids == BOS_ID).long().cumsum(1)
        positions = run_positions(documents)
        there = to_device(torch.from_numpy(rows), self._device)
        kept = in_last_segment(documents, lengths=lengths)
        logits: Tensor = self.model(byte_ids, RowInputs(documents, positions, there, kept), self.stack)
        self.newest[rows] = positions.gather(1, lengths[:, None] - 1)[:, 0].cpu().numpy()
        return logits

    def add_rows(self, count: int) -> None:
        """Make room for more rows, all at their start."""
        self.newest = np.concatenate([self.newest, np.full(count, -1)])
        self.stack.add_rows(count)

    def num_bytes(self) -> int:
        """Return the memory that it takes."""
        return self.stack.nbytes()
