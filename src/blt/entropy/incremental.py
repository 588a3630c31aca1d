"""The entropy model, one byte per row at a time."""

import torch

from blt.codec import BOS_ID
from blt.entropy.model import EntropyModel, entropy_of
from blt.nn import Recording, WindowCache, WindowPattern, in_last_segment, run_positions
from blt.shapes import Float, Int, Tensor


class EntropyState:
    """What the entropy model must remember of each row: the keys and values of a window.

    Args:
        model: the entropy model.
        batch: rows, all at their start.
    """

    def __init__(self, model: EntropyModel, *, batch: int) -> None:
        self.model = model
        self.cache = WindowCache(model.config, batch=batch, like=model.bytes.weight)

    @classmethod
    @torch.inference_mode()
    def after(
        cls, model: EntropyModel, byte_ids: Int[Tensor, "B T"], *, lengths: Int[Tensor, " B"]
    ) -> tuple["EntropyState", Float[Tensor, "B T"]]:
        """Read the first `lengths[b]` bytes of each row b in one parallel pass.

        Returns:
            The state after them, and the entropies at every byte, in nats.
        """
        state = cls(model, batch=len(byte_ids))
        documents = (byte_ids == BOS_ID).long().cumsum(1)
        positions = run_positions(documents)
        recording = Recording(WindowPattern(documents, window=model.config.window))
        logits = model.predict(byte_ids, positions, recording)
        belongs = in_last_segment(documents, lengths=lengths)
        state.cache.fill(recording.layers, positions=positions, belongs=belongs)
        return state, entropy_of(logits)

    @torch.inference_mode()
    def step(self, byte_ids: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Read one byte of every row; give the uncertainty about the next, in nats."""
        self.cache.restart(byte_ids == BOS_ID)
        place = self.cache.advance()
        logits = self.model.predict(byte_ids[:, None], place.positions, self.cache.attends(place))
        return entropy_of(logits)[:, 0]

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Keep only some rows, in the order given."""
        self.cache.select(rows)

    def append(self, other: "EntropyState") -> None:
        """Add the rows of another state of the same model after one's own."""
        self.cache.append(other.cache)
