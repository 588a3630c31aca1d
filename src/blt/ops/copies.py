"""What the host waits for, where a device works beside it, and how copies to it and graphs of it spare waits."""

import torch

from blt.shapes import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the host to a GPU without waiting for the GPU."""
    # A plain `.to("cuda")` waits until the GPU has done all that it was given. From page-locked memory the copy takes
    # its turn instead; that memory is a copy of the tensor's, and PyTorch keeps it until the GPU has read it.
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_waited_for(device: torch.device) -> bool:
    """Whether looking at a result of this device makes the host wait for all that it was given: all but the CPU."""
    return device.type != "cpu"


def compile_mode(device: torch.device, *, backend: str) -> str | None:
    """Return the mode of `torch.compile` that records graphs of a device, which are run as one: CUDA's; else None."""
    return "reduce-overhead" if backend == "inductor" and device.type == "cuda" else None
