"""Which optimiser moves which weights."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from blt.configuration import check, check_range, check_rate, variant
from blt.model.hash_embedding import HashEmbedding
from blt.nn import Transformer
from blt.ops import is_waited_for
from blt.shapes import Float, Tensor
from blt.training.muon import Muon
from blt.training.parts import PartsConfig, learning_rate_factors
from blt.training.row_adam import RowAdam


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
        check_rate("learning_rate", self.learning_rate)
        check_range("epsilon", self.epsilon, 0, 1)
        check_range("weight_decay", self.weight_decay, 0, sys.float_info.max)
        check(len(self.betas) == 2, f"betas: {self.betas}; expected two numbers")
        check(all(0 <= beta < 1 for beta in self.betas), f"betas: {self.betas}; each from 0 to below 1")


@variant("muon")
@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon (Jordan et al. 2024) for the hidden matrices, those inside layers and between parts; AdamW for the rest."""

    learning_rate: float = 0.02
    """Peak learning rate of the hidden matrices; those taller than wide get it times √(rows / columns)."""
    momentum: float = 0.95
    """Decay of the momentum."""
    num_iterations: int = 5
    """Iterations of orthogonalisation; the polynomials are made for 5."""
    weight_decay: float = 0.0
    """Decoupled weight decay of hidden matrices."""
    adamw: AdamWConfig = field(default_factory=lambda: AdamWConfig(learning_rate=3e-3, weight_decay=0.0))
    """For embeddings, norms and an output matrix that is not tied."""

    def __post_init__(self) -> None:
        check_rate("learning_rate", self.learning_rate)
        check_range("weight_decay", self.weight_decay, 0, sys.float_info.max)
        check(0 <= self.momentum < 1, f"momentum: {self.momentum}; from 0 to below 1")
        check(1 <= self.num_iterations < 100, f"num_iterations: {self.num_iterations}; from 1 to 99")


OptimizerConfig = AdamWConfig | MuonConfig


def build_optimizers(
    module: nn.Module, config: OptimizerConfig, *, parts: PartsConfig | None = None
) -> list[Optimizer]:
    """Return the optimisers; each group remembers its peak rate as `base_lr`, which the schedule scales.

    Args:
        module: all of whose weights they hold, so that their places stay the same whatever is frozen when. Tables
            with sparse gradients are moved by `RowAdam`, at AdamW's rate.
        config: which optimiser.
        parts: factors of the learning rates, for a BLT.
    """
    factors = learning_rate_factors(module, parts)
    sparse = sparse_tables(module)
    weights = [weight for weight in module.parameters() if all(weight is not table for table in sparse)]
    if isinstance(config, AdamWConfig):
        optimizers: list[Optimizer] = [_adamw(weights, module, config, factors)]
    else:
        hidden = hidden_matrices(module)
        taken = {id(weight) for weight in hidden}
        muon = _kind_of_muon(hidden)(
            [{"params": group, "factor": factor} for factor, group in _by_factor(hidden, factors)],
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            num_iterations=config.num_iterations,
        )
        rest = [weight for weight in weights if id(weight) not in taken]
        optimizers = [muon, _adamw(rest, module, config.adamw, factors)]
    if sparse:
        adamw = config if isinstance(config, AdamWConfig) else config.adamw
        groups = [{"params": tables, "factor": factor} for factor, tables in _by_factor(sparse, factors)]
        betas = (adamw.betas[0], adamw.betas[1])
        optimizers.append(RowAdam(groups, lr=adamw.learning_rate, betas=betas, eps=adamw.epsilon))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"] * group["factor"]
    return optimizers


def _kind_of_muon(matrices: Sequence[Tensor]) -> type[Muon]:
    """Return the Muon for whole matrices, or for those that are divided over ranks (DTensors, slow to import)."""
    if not any(hasattr(matrix, "device_mesh") for matrix in matrices):
        return Muon
    from blt.training.sharded_muon import ShardedMuon

    return ShardedMuon


def shapes_of_state(optimizer: Optimizer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of what an optimiser keeps of a weight of that shape, which it has moved."""
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": shape}
    moments: dict[str, tuple[int, ...]] = {"exp_avg": shape, "exp_avg_sq": shape}
    if isinstance(optimizer, RowAdam):
        return moments | {"row_steps": shape[:1]}
    assert isinstance(optimizer, torch.optim.AdamW), f"no names are known of {type(optimizer).__name__}"
    return moments | {"step": ()}


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """List the matrices of all linear maps but the output: what Muon moves."""
    parts = module.named_modules()
    found: list[Tensor] = [part.weight for name, part in parts if isinstance(part, nn.Linear) and name != "output"]
    assert found or not any(isinstance(part, Transformer) for part in module.modules())
    return found


def sparse_tables(module: nn.Module) -> list[Tensor]:
    """List the n-gram tables with sparse gradients."""
    embeddings = [part for part in module.modules() if isinstance(part, HashEmbedding)]
    return [part.ngrams.weight for part in embeddings if part.sparse_gradients and part.ngrams is not None]


def _adamw(
    weights: Sequence[Tensor], module: nn.Module, config: AdamWConfig, factors: Mapping[int, float]
) -> Optimizer:
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    groups = []
    for decay, some in (
        (config.weight_decay, [w for w in weights if id(w) in linear]),
        (0.0, [w for w in weights if id(w) not in linear]),
    ):
        groups += [
            {"params": group, "weight_decay": decay, "factor": factor} for factor, group in _by_factor(some, factors)
        ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        eps=config.epsilon,
        fused=True,
    )


def _by_factor(weights: Sequence[Tensor], factors: Mapping[int, float]) -> list[tuple[float, list[Tensor]]]:
    """Divide weights by the factors of their learning rates; all in one group, in their order, where all are alike."""
    groups: dict[float, list[Tensor]] = {}
    for weight in weights:
        groups.setdefault(factors[id(weight)], []).append(weight)
    return list(groups.items())


@torch.no_grad()
def clip_gradients(weights: Iterable[Tensor], *, max_norm: float) -> Float[Tensor, ""]:
    """Clip the gradients, dense and sparse, by their global norm; weights without a gradient are left out.

    Returns:
        The norm before.
    """
    gradients = gradients_of(weights)
    norm = nn.utils.get_total_norm(gradients)
    scale_down(gradients, norm, max_norm=max_norm)
    return norm


def gradients_of(weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the numbers of the gradients that weights have; those of a sparse one once per row."""
    numbers = []
    for weight in weights:
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()  # entries of the same row add up
            numbers.append(weight.grad.values())
        elif weight.grad is not None:
            numbers.append(weight.grad)
    return numbers


def scale_down(gradients: list[Tensor], norm: Float[Tensor, ""], *, max_norm: float) -> None:
    """Scale gradients of a larger norm, or of none that is a number, to `max_norm`."""
    if is_waited_for(norm.device):  # a pass over all gradients costs less than to wait for the norm
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    elif not norm + 1e-6 <= max_norm:  # seldom: a pass over all gradients
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
