import pytest
import torch

from blt.entropy import EntropyConfig, EntropyModel
from blt.errors import ConfigurationError
from blt.model import BLT, BLTConfig, LocalConfig, TransformerConfig
from blt.nn.transformer import RMSNorm
from blt.training.muon import Muon
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers, hidden_matrices

LOCAL = LocalConfig(dim=16, num_layers=2, num_heads=2, window=8)
CONFIGS = {
    "adamw": AdamWConfig(weight_decay=0.1),
    "muon": MuonConfig(weight_decay=0.2, adamw=AdamWConfig(weight_decay=0.1)),
}


def modules():
    tied = BLTConfig(
        local_encoder=LOCAL,
        local_decoder=LOCAL,
        global_transformer=TransformerConfig(dim=24, num_layers=2, num_heads=2),
    )
    untied = BLTConfig(
        local_encoder=LOCAL,
        local_decoder=LOCAL,
        global_transformer=TransformerConfig(dim=24, num_layers=2, num_heads=2),
        tie_embeddings=False,
        decoder_cross_attention="first",
    )
    entropy = EntropyConfig(dim=16, num_layers=2, num_heads=2, window=8)
    return {"tied": BLT(tied), "untied": BLT(untied), "entropy": EntropyModel(entropy)}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("which", ["tied", "untied", "entropy"])
def test_every_weight_is_moved_by_exactly_one_optimiser(which, config):
    module = modules()[which]
    moved = [
        id(weight)
        for optimizer in build_optimizers(module, config)
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    assert sorted(moved) == sorted(id(weight) for weight in module.parameters())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("which", ["tied", "untied", "entropy"])
def test_embeddings_and_norms_do_not_decay_and_matrices_do(which, config):
    module = modules()[which]
    decay = {
        id(weight): group["weight_decay"]
        for optimizer in build_optimizers(module, config)
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding | RMSNorm):
            assert decay[id(part.weight)] == 0.0
        if isinstance(part, torch.nn.Linear):
            assert decay[id(part.weight)] > 0.0


def test_muon_moves_the_matrices_of_all_linear_maps_but_the_output():
    module = modules()["untied"]
    muon, adamw = build_optimizers(module, CONFIGS["muon"])
    names = {id(weight): name for name, weight in module.named_parameters()}
    moved = {names[id(weight)] for group in muon.param_groups for weight in group["params"]}
    assert isinstance(muon, Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert all(module.get_parameter(name).dim() == 2 for name in moved)
    assert "output.weight" not in moved
    assert {"local_encoder.to_queries.weight", "local_decoder.from_global.weight"} <= moved
    assert sum(".layers." in name for name in moved) >= 6 * 7  # six layers: four matrices of attention, three of SwiGLU
    assert any("cross_attention" in name for name in moved)
    assert len(moved) == len(hidden_matrices(module))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_each_group_remembers_its_own_peak(config):
    rates = {
        group["base_lr"]
        for optimizer in build_optimizers(modules()["tied"], config)
        for group in optimizer.param_groups
    }
    wanted = {config.learning_rate} | ({config.adamw.learning_rate} if isinstance(config, MuonConfig) else set())
    assert rates == wanted


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: AdamWConfig(learning_rate=0.0), "learning_rate: 0.0; above 0"),
        (lambda: AdamWConfig(betas=(0.9,)), "betas: .* expected two numbers"),
        (lambda: AdamWConfig(betas=(0.9, 1.0)), "betas: .* below 1"),
        (lambda: MuonConfig(momentum=1.0), "momentum: 1.0; from 0 to below 1"),
        (lambda: MuonConfig(num_iterations=0), "num_iterations: 0; from 1 to 99"),
    ],
)
def test_an_optimiser_that_cannot_be_is_refused(build, said):
    with pytest.raises(ConfigurationError, match=said):
        build()
