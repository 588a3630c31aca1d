"""Which optimiser moves which weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from blt.configuration import check, variant
from blt.nn import Transformer
from blt.shapes import Tensor


@variant("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019) for every weight; matrices decay, embeddings and norms do not."""

    learning_rate: float = 4e-4
    """Peak learning rate."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of the two moments."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices."""

    def __post_init__(self) -> None:
        _check_rate("learning_rate", self.learning_rate)
        check(len(self.betas) == 2, f"betas: {self.betas}; expected two numbers")
        check(all(0 <= beta < 1 for beta in self.betas), f"betas: {self.betas}; each from 0 to below 1")


@variant("muon")
@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon (Jordan et al. 2024) for the matrices inside layers, AdamW for everything else."""

    learning_rate: float = 0.02
    """Peak learning rate of the hidden matrices; wider than tall ones get it times √(rows / columns) at least 1."""
    momentum: float = 0.95
    """Decay of the momentum."""
    num_iterations: int = 5
    """Newton–Schulz iterations."""
    weight_decay: float = 0.0
    """Decoupled weight decay of hidden matrices."""
    adamw: AdamWConfig = field(default_factory=lambda: AdamWConfig(learning_rate=3e-3, weight_decay=0.0))
    """For embeddings, norms and the projections between the parts."""

    def __post_init__(self) -> None:
        _check_rate("learning_rate", self.learning_rate)
        check(0 <= self.momentum < 1, f"momentum: {self.momentum}; from 0 to below 1")
        check(1 <= self.num_iterations < 100, f"num_iterations: {self.num_iterations}; from 1 to 99")


OptimizerConfig = AdamWConfig | MuonConfig


def build_optimizers(module: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """Give the optimisers; each group remembers its peak rate as `peak`, which the schedule scales."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if isinstance(config, AdamWConfig):
        optimizers: list[Optimizer] = [_adamw(weights, module, config)]
    else:
        hidden = hidden_matrices(module)
        taken = {id(weight) for weight in hidden}
        muon = torch.optim.Muon(
            hidden,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            ns_steps=config.num_iterations,
        )
        rest = [weight for weight in weights if id(weight) not in taken]
        optimizers = [muon, _adamw(rest, module, config.adamw)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """List the matrices inside transformer layers and cross-attentions: what Muon moves."""
    found = []
    for name, part in module.named_modules():
        inside = ".layers." in f".{name}." or "cross_attention" in name
        if isinstance(part, nn.Linear) and inside and part.weight.requires_grad:
            found.append(part.weight)
    assert found or not any(isinstance(part, Transformer) for part in module.modules())
    return found


def _adamw(weights: Sequence[Tensor], module: nn.Module, config: AdamWConfig) -> Optimizer:
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    groups = [
        {"params": [w for w in weights if id(w) in linear], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if id(w) not in linear], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        eps=config.epsilon,
        fused=True,
    )


def _check_rate(name: str, rate: float) -> None:
    check(rate > 0, f"{name}: {rate}; above 0")
