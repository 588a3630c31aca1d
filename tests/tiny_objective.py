"""A small objective, its loss on made-up rows, and a loop."""

import torch

from blt.data import Batch
from blt.model import BLT
from blt.patching import EntropyRule
from blt.training.objectives import BLTObjective
from blt.training.recipe import LoopConfig
from tiny_config import TINY_CONFIG


def new_objective(*, sparse=False):
    torch.manual_seed(0)
    blt = BLT(TINY_CONFIG.blt)
    blt.hash_embedding.sparse_gradients = sparse
    return BLTObjective(blt, rule=EntropyRule(threshold=1.0), slots_multiple=1)


def loss_of(objective, *, rows=2):
    torch.manual_seed(1)
    ids = torch.randint(4, 260, (rows, 24))
    batch = Batch.of(ids, entropies=torch.rand(rows, 23) * 2)
    return objective.loss_sum(batch) / 100


def loop(**fields):
    return LoopConfig(**{"num_steps": 1, "precision": "float32"} | fields)
