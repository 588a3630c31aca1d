"""Copies to a device that the host does not wait for."""

import torch

from blt.shapes import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the host to a GPU without waiting for the GPU."""
    # A plain `.to("cuda")` waits until the GPU has done all that it was given. From page-locked memory the copy takes
    # its turn instead; that memory is a copy of the tensor's, and PyTorch keeps it until the GPU has read it.
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
