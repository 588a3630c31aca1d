"""`Batch`: rows of ids and what is to be predicted, for training, evaluation and the entropies of a corpus."""

from dataclasses import dataclass, replace

import torch

from blt.loss import next_byte_targets
from blt.ops import to_device
from blt.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of ids and, for each position, the id that follows it."""

    byte_ids: Int[Tensor, "B T"]
    """Padded on the right with EOS."""
    targets: Int[Tensor, "B T"]
    """The next id; `NOT_PREDICTED` where that is a BOS or padding."""
    lengths: Int[Tensor, " B"]
    """Ids of each row that are no padding."""
    numbers: Int[Tensor, " B"]
    """Which document of the split, or which window of the stream, each row is."""
    entropies: Float[Tensor, "B T"] | None = None
    """In nats, of the next id; None if the patch rule needs none."""

    @classmethod
    def of(
        cls,
        ids: Int[Tensor, "B S"],
        *,
        lengths: Int[Tensor, " B"] | None = None,
        numbers: Int[Tensor, " B"] | None = None,
        entropies: Float[Tensor, "B T"] | None = None,
    ) -> "Batch":
        """Make a batch that reads all ids but the last of each row.

        Args:
            ids: consecutive ids, S = T + 1.
            lengths: ids of each row, padding left out; None means S for every row.
            numbers: of the rows; 0, 1, 2 and so on if not given.
            entropies: of the ids that are read.
        """
        byte_ids, targets = next_byte_targets(ids, lengths=lengths)
        num_rows, num_read = byte_ids.shape
        known = torch.full((num_rows,), num_read, device=ids.device) if lengths is None else lengths
        return cls(
            byte_ids=byte_ids,
            targets=targets,
            lengths=known.clamp(max=num_read),
            numbers=torch.arange(num_rows) if numbers is None else numbers,
            entropies=entropies,
        )

    @property
    def is_read(self) -> Bool[Tensor, "B T"]:
        """False where a row is padding."""
        return torch.arange(self.byte_ids.shape[1], device=self.byte_ids.device) < self.lengths[:, None]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; the numbers of the rows stay on the host."""
        entropies = None if self.entropies is None else to_device(self.entropies, device)
        byte_ids, targets, lengths = (to_device(part, device) for part in (self.byte_ids, self.targets, self.lengths))
        return replace(self, byte_ids=byte_ids, targets=targets, lengths=lengths, entropies=entropies)

    def rows(self, part: slice) -> "Batch":
        """Return some of the rows."""
        return Batch(
            byte_ids=self.byte_ids[part],
            targets=self.targets[part],
            lengths=self.lengths[part],
            numbers=self.numbers[part],
            entropies=None if self.entropies is None else self.entropies[part],
        )

    def first(self, num_ids: int) -> "Batch":
        """Return the first `num_ids` ids of every row."""
        return replace(
            self,
            byte_ids=self.byte_ids[:, :num_ids],
            targets=self.targets[:, :num_ids],
            lengths=self.lengths.clamp(max=num_ids),
            entropies=None if self.entropies is None else self.entropies[:, :num_ids],
        )
