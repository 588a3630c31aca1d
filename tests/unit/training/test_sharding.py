import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from blt.checkpoint import load_tensors, save_tensors
from blt.entropy import EntropyConfig, EntropyModel
from blt.errors import TrainingError
from blt.nn.transformer import Layer
from blt.training.objectives import EntropyObjective
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers, clip_gradients
from blt.training.parallelize import parallelize
from blt.training.sharded_muon import ShardedMuon
from blt.training.sharding import Sharded
from ranks import run_ranks
from tiny_objective import loop, loss_of, new_objective

CPU = torch.device("cpu")


def new_entropy_objective():
    torch.manual_seed(0)
    return EntropyObjective(EntropyModel(EntropyConfig(dim=20, num_layers=1, num_heads=2, window=8)))


def test_260_rows_on_8_ranks_are_divided_trained_and_gathered(tmp_path):
    def work(world):
        objective = new_entropy_objective()
        given = objective.module
        total = sum(weight.numel() for weight in given.parameters())
        sharing = parallelize(objective, loop(parallel="fsdp"), world=world, device=CPU)
        assert isinstance(sharing, Sharded)
        assert all(weight.is_meta for weight in given.parameters())
        assert all(isinstance(weight, DTensor) for weight in objective.module.parameters())
        assert world.sum(sum(weight.to_local().numel() for weight in objective.module.parameters())) == total
        (optimizer,) = build_optimizers(objective.module, AdamWConfig(learning_rate=1e-2))
        with sharing.part(is_last=True):
            loss_of(objective).backward()
        sharing.clip()
        optimizer.step()
        with sharing.whole_weights(given):
            if world.is_main:
                save_tensors(tmp_path / "gathered.safetensors", given.state_dict())
        assert all(weight.is_meta for weight in given.parameters())

    run_ranks(8, work, tmp_path)
    gathered, alone = load_tensors(tmp_path / "gathered.safetensors"), new_entropy_objective()
    (optimizer,) = build_optimizers(alone.module, AdamWConfig(learning_rate=1e-2))
    (8 * loss_of(alone)).backward()
    clip_gradients(alone.module.parameters(), max_norm=1.0)
    optimizer.step()
    for name, weight in alone.module.state_dict().items():
        torch.testing.assert_close(gathered[name], weight, rtol=1e-3, atol=1e-4)


def test_layers_and_tables_are_divided_and_each_number_is_held_once(tmp_path):
    def work(world):
        objective = new_objective()
        total = sum(weight.numel() for weight in objective.module.parameters())
        sharing = parallelize(objective, loop(parallel="fsdp"), world=world, device=CPU)
        weights = sharing.weights()
        assert all(isinstance(weight, DTensor) for weight in weights.values())
        assert world.sum(sum(weight.to_local().numel() for weight in weights.values())) == total
        table = weights["hash_embedding.ngrams.weight"]
        assert table.to_local().shape == (table.shape[0], table.shape[1] // 2)
        groups = [part for part in objective.module.modules() if isinstance(part, FSDPModule)]
        assert {type(part).__name__ for part in groups} == {
            "FSDPBLT",
            "FSDPLayer",
            "FSDPPatchesReadBytes",
            "FSDPBytesReadPatch",
        }

    run_ranks(2, work, tmp_path)


def test_each_momentum_of_muon_lies_with_its_owner_and_owners_share_the_work(tmp_path):
    def work(world):
        objective = new_objective()
        sharing = parallelize(objective, loop(parallel="fsdp"), world=world, device=CPU)
        muon, _ = build_optimizers(objective.module, MuonConfig())
        assert isinstance(muon, ShardedMuon)
        with sharing.part(is_last=True):
            loss_of(objective).backward()
        muon.step()
        owned = [weight for weight in muon.owners if muon.owns(weight)]
        assert set(muon.state) == set(owned)
        assert all(tuple(muon.state[weight]["momentum_buffer"].shape) == tuple(weight.shape) for weight in owned)
        assert world.sum(len(owned)) == len(muon.owners)
        assert 0 < len(owned) < len(muon.owners)

    run_ranks(2, work, tmp_path)


def test_a_weight_that_is_not_finite_on_one_rank_stops_all(tmp_path):
    def work(world):
        objective = new_objective()
        sharing = parallelize(objective, loop(parallel="fsdp"), world=world, device=CPU)
        sharing.require_finite(step=1)
        if world.rank == 1:
            next(objective.module.parameters()).detach().to_local().fill_(torch.nan)
        with pytest.raises(TrainingError, match="is not finite"):
            sharing.require_finite(step=1)

    run_ranks(2, work, tmp_path)


def test_bfloat16_gathers_bfloat16_and_keeps_weights_and_sums_in_float32(tmp_path):
    def work(world):
        objective = new_objective()
        sharing = parallelize(objective, loop(parallel="fsdp", precision="bfloat16"), world=world, device=CPU)
        seen = []
        layer = objective.module.global_transformer.layers.layers[0]
        layer.attention.query.register_forward_pre_hook(lambda module, _: seen.append(module.weight.dtype))
        with sharing.part(is_last=True), torch.autocast("cpu", torch.bfloat16):
            loss_of(objective).backward()
        assert seen == [torch.bfloat16]
        for weight in objective.module.parameters():
            assert weight.dtype == weight.grad.dtype == torch.float32
        alone = new_objective()
        with torch.autocast("cpu", torch.bfloat16):
            (world.size * loss_of(alone)).backward()
        wanted = nn.utils.get_total_norm([weight.grad for weight in alone.module.parameters()])
        assert sharing.clip() == pytest.approx(float(wanted), rel=0.05)

    run_ranks(2, work, tmp_path)


def test_layers_are_compiled_before_they_are_divided(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(Layer, "compile", lambda layer, **_: compiled.append(isinstance(layer, FSDPModule)))

    def work(world):
        objective = new_objective()
        sharing = parallelize(objective, loop(parallel="fsdp", compile=True), world=world, device=CPU)
        sharing.compile()
        assert compiled == [False] * sum(isinstance(part, Layer) for part in objective.module.modules())

    run_ranks(2, work, tmp_path)
