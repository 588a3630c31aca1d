"""The byte ↔ patch index maps, computed once per forward pass: of whole rows, or of one decoding step."""

from dataclasses import dataclass

import torch

from blt.codec import BOS_ID
from blt.nn import HostInts, RowInputs, StepInputs
from blt.ops import run_positions
from blt.patching.patches import Patches
from blt.shapes import Bool, Int, Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Index maps of packed rows. Slot P, one past the last, is a sentinel for "no patch"."""

    documents: Int[Tensor, "B T"]
    """Document number of each byte in its row; every BOS starts a new one."""
    positions: Int[Tensor, "B T"]
    """Of each byte in its document, from 0."""
    patch_documents: Int[Tensor, "B P"]
    """Document number of each patch; −1 in padding slots."""
    patch_positions: Int[Tensor, "B P"]
    """Of each patch in its document, from 0."""
    pooled_into: Int[Tensor, "B T"]
    """Slot of the complete patch that each byte belongs to, or P."""
    read_from: Int[Tensor, "B T"]
    """Slot of the newest patch that is complete once the byte is read, in the same document, or P."""

    prefill: "Prefill | None" = None
    """What a decoding state keeps of these rows (prefill)."""

    @property
    def num_slots(self) -> int:
        """P."""
        return self.patch_documents.shape[1]

    @property
    def bytes(self) -> RowInputs:
        """The bytes, as positions of a stack."""
        kept = () if self.prefill is None else (self.prefill.rows, self.prefill.in_document)
        return RowInputs(self.documents, self.positions, *kept)

    @property
    def patches(self) -> RowInputs:
        """The patches, as positions of a stack."""
        kept = () if self.prefill is None else (self.prefill.rows, self.prefill.patch_in_document)
        return RowInputs(self.patch_documents, self.patch_positions, *kept)


@dataclass(frozen=True, eq=False)
class Prefill:
    """What a decoding state keeps of whole rows: the last document of each."""

    rows: Int[Tensor, " B"]
    """Rows of the state."""
    in_document: Bool[Tensor, "B T"]
    """Bytes of the document."""
    is_open: Bool[Tensor, "B T"]
    """Bytes of the patch that is open at its end."""
    patch_in_document: Bool[Tensor, "B P"]
    """Complete patches of the document."""
    readable: Int[Tensor, " B"]
    """Slot, of the decoder's state, of the patch that the last byte may read."""
    read_last: Int[Tensor, "B 1"]
    """The slot P of these rows that it lies in, or P."""


@dataclass(frozen=True, eq=False)
class StepLayout:
    """Index maps of one decoding step: N bytes of some rows, and the Q patches that they complete.

    Each byte and each patch is a row of its own in the tensors, of length 1.
    """

    bytes: StepInputs
    """The bytes, as positions of the local stacks."""
    patches: StepInputs
    """The completed patches, as positions of the global transformer."""
    first_bytes: HostInts | Int[Tensor, " Q"]
    """Position of each completed patch's first byte; on the device in a static step, which waits for none of it."""
    last_bytes: HostInts | Int[Tensor, " Q"]
    """Position of its last."""
    written: Int[Tensor, " Q"]
    """Slot, of the decoder's state, where each completed patch becomes readable."""
    read_from: Int[Tensor, " N"]
    """Slot of the patch that each byte may read."""


def lay_out(byte_ids: Int[Tensor, "B T"], patches: Patches) -> Layout:
    """Build the byte ↔ patch index maps.

    Documents of one row never attend to each other, whatever the patches are: a patch that spans a BOS pools the bytes
    of its last document only, and no byte reads a patch of another document.
    """
    # A patch belongs to the document of its last byte. Bytes and patches whose documents differ are separated by
    # pointing the byte to the sentinel P, both for pooling and for reading; so the layers need no document mask between
    # bytes and patches. Padding the documents with one −1 lets the sentinel be looked up like any slot: it matches
    # none.
    documents = (byte_ids == BOS_ID).long().cumsum(1)
    patch_documents = torch.where(patches.is_complete, documents.gather(1, patches.end_positions), -1)
    num_slots = patches.num_slots
    padded = torch.nn.functional.pad(patch_documents, (0, 1), value=-1)  # the sentinel P
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
