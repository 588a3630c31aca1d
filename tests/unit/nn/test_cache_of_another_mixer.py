"""Another mixer than attention in place of a stack's layers: what the interface of a state is for."""

import numpy as np
import pytest
import torch
from torch import nn

from blt.entropy import EntropyConfig, EntropyModel, EntropyState
from blt.nn import RowInputs, StepInputs

DECAY = 0.7


class Ring:
    """A recurrent mixer's state: its sums by position, one slot more than can be rolled back."""

    def __init__(self, *, batch, like, max_rollback, dim):
        self.sums = like.new_zeros(batch, max_rollback + 1, dim)

    def add_rows(self, count):
        self.sums = torch.cat([self.sums, self.sums.new_zeros(count, *self.sums.shape[1:])])

    def nbytes(self):
        return self.sums.nbytes


class Recurrence(nn.Module):
    """A stack whose output at each position is a decaying sum over its segment."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, states, inputs, state=None):
        if isinstance(inputs, RowInputs):
            return self.whole(states, inputs, state)
        assert isinstance(inputs, StepInputs)
        found, slots = torch.empty_like(states), state.sums.shape[1]
        for at, (row, position) in enumerate(zip(inputs.rows, inputs.positions[:, 0], strict=True)):
            before = state.sums[row, (position - 1) % slots] if position else torch.zeros(self.dim)
            found[at, 0] = state.sums[row, position % slots] = states[at, 0] + DECAY * before
        return found

    def whole(self, states, inputs, state):
        found, total = [], torch.zeros(len(states), self.dim)
        for at in range(states.shape[1]):
            total = states[:, at] + DECAY * total * (inputs.positions[:, at] > 0)[:, None]
            found.append(total)
            if state is not None:
                kept = inputs.kept[:, at].nonzero()[:, 0]
                slots = inputs.positions[kept, at] % state.sums.shape[1]
                state.sums[inputs.rows[kept], slots] = total[kept]
        return torch.stack(found, dim=1)

    def new_state(self, *, batch, like, max_rollback):
        return Ring(batch=batch, like=like, max_rollback=max_rollback, dim=self.dim)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = EntropyModel(EntropyConfig(dim=16, num_layers=1, num_heads=2, window=8)).eval()
    model.layers = Recurrence(16)
    return model


@torch.no_grad()
def test_a_recurrent_mixer_steps_prefills_and_rolls_back_as_attention_does(model):
    ids = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(1))
    wanted, rows = model(ids), np.arange(2)
    state = EntropyState(model, batch=2, max_rollback=4)
    found = state.fill(rows, ids, lengths=torch.tensor([3, 5]))
    torch.testing.assert_close(found[:, :3], wanted[:, :3])
    for row, first in enumerate((3, 5)):
        one = rows[row : row + 1]
        state.read(ids[row : row + 1, first : first + 4].flip(1), one)  # read in vain
        state.rewind(one, taken_back=np.array([4]))
        torch.testing.assert_close(
            state.read(ids[row : row + 1, first : first + 4], one)[0], wanted[row, first : first + 4]
        )
