"""Weights that each rank draws for its part alone are those of one process."""

import json

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from blt.entropy import EntropyConfig, EntropyModel
from blt.model import BLT, BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import SpaceRule
from blt.training import new_weights
from blt.training.new_weights import NewWeights, Part, chunks
from blt.training.objectives import BLTObjective
from blt.training.parallelize import parallelize
from ranks import run_ranks
from tiny_objective import loop

CONFIG = BLTConfig(
    local_encoder=LocalConfig(dim=30, num_layers=1, num_heads=1, window=8),
    global_transformer=TransformerConfig(dim=42, num_layers=2, num_heads=3),
    local_decoder=LocalConfig(dim=30, num_layers=1, num_heads=1, window=8),
    hash_embedding=HashConfig(ngram_sizes=(3, 4), num_rows=501),
    queries_per_patch=2,
)
UNTIED = BLTConfig(**{**vars(CONFIG), "tie_embeddings": False})


def whole_parts(module):
    """One rank, which keeps all."""
    filled = {name: torch.full(tuple(weight.shape), torch.nan) for name, weight in module.named_parameters()}
    return filled, {name: Part(local=tensor, dim=0, start=0) for name, tensor in filled.items()}


@pytest.mark.parametrize("size", [2**6, 2**10, 2**22])
@pytest.mark.parametrize(
    "build",
    [
        lambda: BLT(CONFIG),
        lambda: BLT(UNTIED),
        lambda: EntropyModel(EntropyConfig(dim=30, num_layers=2, num_heads=1)),
        lambda: nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(5, 33, bias=False), nn.Embedding(17, 1)),
    ],
)
def test_weights_in_chunks_are_those_of_the_module_bit_for_bit(monkeypatch, build, size):
    monkeypatch.setattr(new_weights, "CHUNK", size)
    torch.manual_seed(5)
    wanted, after = build().state_dict(), torch.rand(3)
    torch.manual_seed(5)
    new = NewWeights(build)
    assert all(weight.is_meta for weight in new.module.parameters())
    filled, parts = whole_parts(new.module)
    new.draw(parts)
    assert torch.equal(torch.rand(3), after)  # what is drawn next is the same too
    assert filled.keys() == wanted.keys()
    assert [name for name, tensor in filled.items() if not torch.equal(tensor, wanted[name])] == []


@pytest.mark.parametrize("shape", [(1,), (15,), (1000,), (7, 3), (260, 1280), (100_000, 64), (4096, 10944), (3, 2**23)])
def test_chunks_cover_all_rows_once_in_whole_blocks(shape):
    found = list(chunks(shape))
    width = 1 if len(shape) == 1 else shape[1]
    assert [first for first, _ in found] == [sum(count for _, count in found[:number]) for number in range(len(found))]
    assert sum(count for _, count in found) == shape[0]
    assert all(count * width % 16 == 0 for _, count in found[:-1])
    assert len(found) == 1 or found[-1][1] * width >= 16


def test_where_a_checkpoint_replaces_them_nothing_is_drawn():
    new = NewWeights(lambda: BLT(CONFIG), is_needed=False)
    filled, parts = whole_parts(new.module)
    new.draw(parts)
    assert all(tensor.isnan().all() for tensor in filled.values())


class Largest(TorchDispatchMode):
    """Notes the largest tensor with memory that is made within it."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta and not isinstance(tensor, DTensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // 4)
        return made


@pytest.mark.parametrize(("size", "shards", "is_sparse"), [(4, None, False), (4, 2, True)])
def test_ranks_start_with_the_weights_of_one_process_and_none_makes_a_whole_one(
    tmp_path, monkeypatch, size, shards, is_sparse
):
    monkeypatch.setattr(new_weights, "CHUNK", 2**10)
    torch.manual_seed(3)
    wanted = BLT(CONFIG).state_dict()

    def work(world):
        torch.manual_seed(3)
        new = NewWeights(lambda: BLT(CONFIG))
        new.module.hash_embedding.sparse_gradients = is_sparse
        objective = BLTObjective(new.module, rule=SpaceRule(), slots_multiple=1)
        config = loop(parallel="fsdp", shards=shards)
        with Largest() as largest:
            sharing = parallelize(objective, config, world=world, device=torch.device("cpu"), new_weights=new)
        weights = sharing.weights()
        for name, weight in weights.items():
            assert weight.device.type == "cpu"
            assert torch.equal(weight.full_tensor(), wanted[name]), name
        if world.is_main:
            (tmp_path / "largest.json").write_text(json.dumps(largest.numel))

    run_ranks(size, work, tmp_path)
    table = wanted["hash_embedding.ngrams.weight"]
    assert json.loads((tmp_path / "largest.json").read_text()) < table.numel() / (shards or size) * 1.1
