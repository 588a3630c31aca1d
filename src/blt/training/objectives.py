"""What a stage minimises: the nats of a batch's targets."""

from typing import Any, Protocol, runtime_checkable

from torch import nn

from blt.data import Batch
from blt.entropy import EntropyModel
from blt.loss import next_byte_loss
from blt.model import BLT
from blt.patching import PatchRule, patch
from blt.shapes import Float, Tensor


@runtime_checkable
class Objective(Protocol):
    """A module to train and its loss."""

    module: Any
    """The module, whose weights are trained."""
    called: nn.Module
    """The module, or what several ranks wrap around it, for the forward pass."""

    def loss_sum(self, batch: Batch) -> Tensor:
        """Return the summed nats of the batch's targets."""

    def compile(self) -> None:
        """Compile the parts that pay."""


class EntropyObjective:
    """The entropy model predicts the next byte."""

    def __init__(self, module: EntropyModel) -> None:
        self.module = module
        self.called: nn.Module = module

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        return next_byte_loss(self.called(batch.byte_ids), batch.targets)

    def compile(self) -> None:
        """Compile the layers."""
        self.module.layers.compile(dynamic=False)


class BLTObjective:
    """The BLT predicts the next byte, with patches from stored entropies."""

    def __init__(self, module: BLT, *, rule: PatchRule, slots_multiple: int) -> None:
        self.module = module
        self.called: nn.Module = module
        self.rule = rule
        self.slots_multiple = slots_multiple

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        patches = patch(batch.byte_ids, self.rule, entropies=batch.entropies, slots_multiple=self.slots_multiple)
        return next_byte_loss(self.called(batch.byte_ids, patches), batch.targets)

    def compile(self) -> None:
        """Compile the three stages; patch structure and hashes stay outside."""
        for part in (self.module.local_encoder, self.module.global_transformer, self.module.local_decoder):
            part.compile(dynamic=False)
