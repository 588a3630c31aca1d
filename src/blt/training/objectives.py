"""What a stage minimises: the nats of a batch's targets."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional as F

from blt.data import NOT_PREDICTED, Batch
from blt.entropy import EntropyModel
from blt.model import BLT
from blt.patching import PatchRule, patch
from blt.shapes import Float, Int, Tensor


@runtime_checkable
class Objective(Protocol):
    """A module to train and its loss."""

    @property
    def module(self) -> nn.Module:
        """The module."""

    def loss_sum(self, batch: Batch) -> Tensor:
        """Return the summed nats of the batch's targets."""

    def compile(self) -> None:
        """Compile the parts that pay."""


class EntropyObjective:
    """The entropy model predicts the next byte."""

    def __init__(self, module: EntropyModel) -> None:
        self.module = module

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        return summed_loss(self.module(batch.byte_ids), batch.targets)

    def compile(self) -> None:
        """Compile the layers."""
        self.module.layers.compile(dynamic=False)


class BLTObjective:
    """The BLT predicts the next byte, with patches from stored entropies."""

    def __init__(self, module: BLT, *, rule: PatchRule, slots_multiple: int) -> None:
        self.module = module
        self.rule = rule
        self.slots_multiple = slots_multiple

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        patches = patch(batch.byte_ids, self.rule, entropies=batch.entropies, slots_multiple=self.slots_multiple)
        return summed_loss(self.module(batch.byte_ids, patches), batch.targets)

    def compile(self) -> None:
        """Compile the three stages; patch structure and hashes stay outside."""
        for part in (self.module.local_encoder, self.module.global_transformer, self.module.local_decoder):
            part.compile(dynamic=False)


def summed_loss(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Add up the cross-entropy of all targets but those that are not predicted."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_PREDICTED, reduction="sum")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to where the module is."""
    entropies = None if batch.entropies is None else batch.entropies.to(device)
    return replace(batch, byte_ids=batch.byte_ids.to(device), targets=batch.targets.to(device), entropies=entropies)
