"""The entropy model: windowed causal self-attention over bytes, and nothing else."""

from dataclasses import dataclass

import torch
from torch import nn

from blt.codec import BOS_ID, VOCABULARY_SIZE
from blt.configuration import check_range
from blt.nn import Linear, LocalConfig, RowInputs, StackInputs, StackState, Transformer, initialise
from blt.nn.configuration import MAX_ROPE_THETA
from blt.nn.transformer import RMSNorm
from blt.ops import run_positions
from blt.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class EntropyConfig(LocalConfig):
    """Shape of the entropy model."""

    rope_theta: float = 500000.0
    """Base of RoPE."""
    tie_embeddings: bool = True
    """Use the byte embedding as output matrix too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("rope_theta", self.rope_theta, 1, MAX_ROPE_THETA)


class EntropyModel(nn.Module):
    """Byte ids → logits of the next byte."""

    def __init__(self, config: EntropyConfig) -> None:
        super().__init__()
        self.config = config
        self.bytes = nn.Embedding(VOCABULARY_SIZE, config.dim)
        self.layers = Transformer(config, theta=config.rope_theta)
        self.norm = RMSNorm(config.dim, epsilon=config.norm_epsilon)
        self.output = None if config.tie_embeddings else Linear(config.dim, VOCABULARY_SIZE)
        initialise(self)
        nn.init.normal_(self.bytes.weight, std=config.dim**-0.5)

    def forward(
        self, byte_ids: Int[Tensor, "B T"], inputs: StackInputs | None = None, state: StackState | None = None
    ) -> Float[Tensor, "B T V"]:
        """Predict, after every byte, the byte that follows it (logits, float32).

        Args:
            byte_ids: the bytes; `N 1` in a step.
            inputs: positions of their documents; by default those of whole rows, where a BOS starts a document.
            state: what the rows have read before, which takes in what they read now; None: nothing is kept.
        """
        if inputs is None:
            documents = (byte_ids == BOS_ID).long().cumsum(1)
            inputs = RowInputs(documents, run_positions(documents))
        return self.logits(self.layers(self.bytes(byte_ids), inputs, state))

    def logits(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Turn the last layer's states into logits, in float32."""
        weight = self.bytes.weight if self.output is None else self.output.weight
        return nn.functional.linear(self.norm(states), weight).float()

    @torch.no_grad()
    def entropies(self, byte_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Return the uncertainty about the next byte after every byte, in nats."""
        return entropy_of(self(byte_ids))


def entropy_of(logits: Float[Tensor, "*lead V"]) -> Float[Tensor, "*lead"]:
    """Return the entropy of the distribution that the logits describe, in nats."""
    log_probabilities = logits.log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)
