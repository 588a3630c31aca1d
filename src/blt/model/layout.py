"""Which byte feeds which patch and reads which patch, computed once for a forward pass."""

from dataclasses import dataclass
from functools import cached_property

import torch

from blt.codec import BOS_ID
from blt.nn import run_positions
from blt.patching.patches import Patches
from blt.shapes import Int, Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """The structure of packed rows. Slot P, one past the last, means "no patch"."""

    documents: Int[Tensor, "B T"]
    """Number of each byte's document in its row: one more after every BOS."""
    positions: Int[Tensor, "B T"]
    """Of each byte in its document, from 0."""
    patch_documents: Int[Tensor, "B P"]
    """Number of each patch's document; −1 in the slots that hold none."""
    patch_positions: Int[Tensor, "B P"]
    """Of each patch in its document, from 0."""
    pooled_into: Int[Tensor, "B T"]
    """Slot of the complete patch that each byte feeds, or P."""
    read_from: Int[Tensor, "B T"]
    """Slot of the newest patch that is complete once the byte is read, in the same document, or P."""

    @property
    def num_slots(self) -> int:
        """P."""
        return self.patch_documents.shape[1]

    @cached_property
    def nonempty(self) -> Int[Tensor, " N"]:
        """Those of all rows' slots, B·P in all, that hold a patch."""
        return (self.patch_documents.flatten() >= 0).nonzero()[:, 0]

    @cached_property
    def nonempty_documents(self) -> Int[Tensor, " N"]:
        """Numbers of their documents, no two rows' alike."""
        rows = torch.arange(len(self.documents), device=self.documents.device)[:, None]
        return (self.patch_documents + rows * (self.documents.shape[1] + 1)).flatten()[self.nonempty]


def lay_out(byte_ids: Int[Tensor, "B T"], patches: Patches) -> Layout:
    """Work out who feeds and who reads whom.

    Documents in one row never meet, whatever the patches say: a patch that runs over a BOS is fed by its last
    document's bytes only, and nothing reads a patch of another document.
    """
    documents = (byte_ids == BOS_ID).long().cumsum(1)
    patch_documents = torch.where(patches.is_complete, documents.gather(1, patches.end_positions), -1)
    num_slots = patches.num_slots
    padded = torch.nn.functional.pad(patch_documents, (0, 1), value=-1)  # slot P belongs to no document
    own = torch.where(patches.ids < patches.num_complete[:, None], patches.ids, num_slots)
    newest = torch.where(patches.readable >= 0, patches.readable, num_slots)
    return Layout(
        documents=documents,
        positions=run_positions(documents),
        patch_documents=patch_documents,
        patch_positions=run_positions(patch_documents),
        pooled_into=torch.where(padded.gather(1, own) == documents, own, num_slots),
        read_from=torch.where(padded.gather(1, newest) == documents, newest, num_slots),
    )
