"""What a stage minimises: the nats of a batch's targets."""

from functools import cache
from typing import Any, Protocol, runtime_checkable

from torch import nn

from blt.data import Batch
from blt.entropy import EntropyModel
from blt.loss import next_byte_loss
from blt.model import BLT
from blt.model.cost import cost_of
from blt.ops import to_device
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
        """Return the summed nats of the batch's targets, on the module's device; the batch may be on the host."""

    def costs(self, batch: Batch) -> list[float] | None:
        """Return what each row will cost, in FLOPs; None if all cost the same."""

    def compile(self) -> None:
        """Compile the parts that pay."""


class EntropyObjective:
    """The entropy model predicts the next byte."""

    def __init__(self, module: EntropyModel) -> None:
        self.module = module
        self.called: nn.Module = module

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        device = self.module.bytes.weight.device
        byte_ids, targets = to_device(batch.byte_ids, device), to_device(batch.targets, device)
        return next_byte_loss(self.called(byte_ids), targets)

    def costs(self, batch: Batch) -> None:
        """Return None: all rows cost the same."""

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
        self._cost = cache(self._cost_of_row)

    def loss_sum(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the summed nats of the batch's targets."""
        # Patches are found on the host, where the batch is: the sizes of tensors depend on how many there are.
        patches = patch(batch.byte_ids, self.rule, entropies=batch.entropies, slots_multiple=self.slots_multiple)
        device = self.module.hash_embedding.bytes.weight.device
        byte_ids, targets = to_device(batch.byte_ids, device), to_device(batch.targets, device)
        return next_byte_loss(self.called(byte_ids, patches.to(device)), targets)

    def costs(self, batch: Batch) -> list[float]:
        """Return what each row will cost by its patches, in FLOPs of the forward pass."""
        patches = patch(batch.byte_ids, self.rule, entropies=batch.entropies)
        num_bytes = batch.byte_ids.shape[1]
        return [self._cost(num_bytes, count) for count in patches.ends.sum(1).tolist()]

    def _cost_of_row(self, num_bytes: int, num_patches: int) -> float:
        mean = num_bytes / max(1, num_patches)
        return num_bytes * cost_of(self.module.config, mean_patch_bytes=mean, context_bytes=num_bytes).flops

    def compile(self) -> None:
        """Compile the three stages; patch structure and hashes stay outside."""
        for part in (self.module.local_encoder, self.module.global_transformer, self.module.local_decoder):
            part.compile(dynamic=False)
