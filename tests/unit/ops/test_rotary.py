import numpy as np
import torch

from blt.nn import LocalConfig, StepInputs, Transformer
from blt.ops import rotary_table

SHAPES = ((64, 500000.0), (128, 10000.0), (48, 777.0))
ROUNDING = 1e-6
"""Of cosines; the last bit of a frequency moves an angle at position 4,000 by a hundred times as much."""


def angles_of_transformers(position, head_dim, theta):
    """The form in which transformers and the published code compute them."""
    return position * (1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)))


def test_angles_are_those_of_transformers_at_position_4000():
    for head_dim, theta in SHAPES:
        table = rotary_table(torch.tensor([[1, 3999]]), head_dim=head_dim, theta=theta)
        for index, position in enumerate((1.0, 3999.0)):
            wanted = angles_of_transformers(position, head_dim, theta)
            assert float((table.cos[0, index, 0] - wanted.cos()).abs().max()) < ROUNDING
            assert float((table.sin[0, index, 0] - wanted.sin()).abs().max()) < ROUNDING


def test_a_stack_that_steps_turns_by_the_same_angles():
    for head_dim, theta in SHAPES:
        stack = Transformer(LocalConfig(dim=head_dim, num_layers=1, num_heads=1, window=8), theta=theta)
        for position in (3999, 1):  # the second by frequencies that are kept
            one = np.array([0]), np.array([position]), np.array([position])
            table = stack.rotary_table(StepInputs.of(*one, device=torch.device("cpu")))
            wanted = angles_of_transformers(float(position), head_dim, theta).cos()
            assert float((table.cos[0, 0, 0] - wanted).abs().max()) < ROUNDING
