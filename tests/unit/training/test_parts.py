import pytest
import torch

from blt.configuration import from_dict
from blt.errors import ConfigurationError
from blt.model import BLT, BLTConfig, LocalConfig, TransformerConfig
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers
from blt.training.parts import PartConfig, PartsConfig, freeze, learning_rate_factors

LOCAL = LocalConfig(dim=16, num_layers=1, num_heads=2, window=8)
UNTIED = BLTConfig(
    local_encoder=LOCAL,
    local_decoder=LOCAL,
    global_transformer=TransformerConfig(dim=24, num_layers=1, num_heads=2),
    tie_embeddings=False,
)
FACTORS = {"hash_embedding": 0.0, "local_encoder": 1.0, "global_transformer": 0.1, "local_decoder": 2.0}
PARTS = PartsConfig(**{name: PartConfig(learning_rate_factor=factor) for name, factor in FACTORS.items()})


@pytest.fixture
def module():
    return BLT(UNTIED)


def wanted_factor(name):
    return FACTORS["local_decoder" if name.startswith("output.") else name.split(".")[0]]


def test_every_weight_has_the_factor_of_its_part_and_the_output_matrix_that_of_the_decoder(module):
    factors = learning_rate_factors(module, PARTS)
    assert {name: factors[id(weight)] for name, weight in module.named_parameters()} == {
        name: wanted_factor(name) for name, _ in module.named_parameters()
    }


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()], ids=["adamw", "muon"])
def test_the_peak_rate_of_every_weight_is_multiplied_by_its_parts_factor(module, config):
    plain, scaled = (
        {
            id(weight): group["base_lr"]
            for optimizer in build_optimizers(module, config, parts=parts)
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        for parts in (None, PARTS)
    )
    for name, weight in module.named_parameters():
        assert scaled[id(weight)] == pytest.approx(plain[id(weight)] * wanted_factor(name))


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()], ids=["adamw", "muon"])
def test_parts_that_are_all_alike_leave_the_order_of_weights_as_it_was(module, config):
    """So that checkpoints written before there were parts can be resumed."""
    without, alike = (
        [[len(group["params"]) for group in optimizer.param_groups] for optimizer in optimizers]
        for optimizers in (
            build_optimizers(module, config),
            build_optimizers(module, config, parts=PartsConfig(global_transformer=PartConfig(frozen_steps=3))),
        )
    )
    assert without == alike


def test_a_part_is_frozen_for_its_steps_and_one_with_factor_0_for_ever(module):
    parts = PartsConfig(
        hash_embedding=PartConfig(learning_rate_factor=0.0), global_transformer=PartConfig(frozen_steps=2)
    )
    for step, trained in ((0, {"local_encoder", "local_decoder", "output"}), (1, None), (2, None), (9, None)):
        freeze(module, parts, step=step)
        found = {name.split(".")[0] for name, weight in module.named_parameters() if weight.requires_grad}
        untrained = {name.split(".")[0] for name, weight in module.named_parameters() if not weight.requires_grad}
        assert not found & untrained
        assert found == (trained or {"local_encoder", "local_decoder", "output"}) | (
            {"global_transformer"} if step >= 2 else set()
        )


def test_without_parts_nothing_is_frozen(module):
    freeze(module, None, step=0)
    assert all(weight.requires_grad for weight in module.parameters())
    assert set(learning_rate_factors(module, None).values()) == {1.0}


def test_a_run_says_what_is_not_trained_as_the_rest():
    assert str(PartsConfig()) == ""
    parts = PartsConfig(
        hash_embedding=PartConfig(learning_rate_factor=0.0),
        global_transformer=PartConfig(learning_rate_factor=0.1, frozen_steps=50),
    )
    assert str(parts) == "hash_embedding frozen, global_transformer from step 51 at 0.1 × the learning rate"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"local_encoder": {"learning_rate_factor": -1.0}}, "learning_rate_factor: -1.0; at least 0"),
        ({"local_encoder": {"frozen_steps": -1}}, "frozen_steps: -1; at least 0"),
        ({"encoder": {}}, "encoder: unknown key"),
        ({key: {"learning_rate_factor": 0} for key in FACTORS}, "the first step trains none of them"),
        ({key: {"frozen_steps": 1} for key in FACTORS}, "the first step trains none of them"),
    ],
)
def test_parts_that_cannot_be_are_refused(values, said):
    with pytest.raises(ConfigurationError, match=said):
        from_dict(PartsConfig, values)


def test_gradients_pass_through_what_is_frozen(module):
    from blt.codec import encode
    from blt.patching import SpaceRule, patch

    freeze(module, PartsConfig(global_transformer=PartConfig(frozen_steps=1)), step=0)
    byte_ids = encode("the cat sat on the mat", bos=True)[None]
    module(byte_ids, patch(byte_ids, SpaceRule())).sum().backward()
    assert all(weight.grad is None for weight in module.global_transformer.parameters())
    assert torch.count_nonzero(module.local_encoder.to_queries.weight.grad)
