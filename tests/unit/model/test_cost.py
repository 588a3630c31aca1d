import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blt.entropy import EntropyConfig, EntropyModel
from blt.errors import ConfigurationError
from blt.model import BLT, PRESETS, BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.model.cost import cost_of, mean_keys, with_unit
from blt.patching import StaticRule, patch

ENTROPY = EntropyConfig(dim=32, num_layers=3, num_heads=2, window=8)
SMALL = BLTConfig(
    local_encoder=LocalConfig(dim=16, num_layers=1, num_heads=2, window=8),
    global_transformer=TransformerConfig(dim=24, num_layers=3, num_heads=2),
    local_decoder=LocalConfig(dim=16, num_layers=2, num_heads=2, window=8),
    hash_embedding=HashConfig(ngram_sizes=(3, 5), num_rows=11, num_functions=2),
    queries_per_patch=2,
)
VARIANTS = {
    "small": SMALL,
    "untied": dataclasses.replace(SMALL, tie_embeddings=False),
    "reading-first": dataclasses.replace(SMALL, decoder_cross_attention="first"),
    "no-projection": dataclasses.replace(SMALL, queries_per_patch=3, global_transformer=TransformerConfig(
        dim=48, num_layers=1, num_heads=2
    )),
    "no-ngrams": dataclasses.replace(SMALL, hash_embedding=HashConfig(ngram_sizes=())),
}  # fmt: skip
MODULES = {
    "byte embedding": ["hash_embedding.bytes."],
    "n-gram embedding": ["hash_embedding.ngrams."],
    "local encoder": ["local_encoder.layers."],
    "encoder cross-attention": [f"local_encoder.{part}" for part in ("to_queries", "cross_attention", "to_global")],
    "global transformer": ["global_transformer."],
    "decoder cross-attention": [f"local_decoder.{part}" for part in ("from_global", "cross_attentions")],
    "local decoder": [f"local_decoder.{part}" for part in ("layers", "norm")],
    "output": ["output."],
}


def cost_of_any(config):
    return cost_of(config, mean_patch_bytes=4.0, context_bytes=64, entropy_model=ENTROPY)


@pytest.mark.parametrize("config", [*PRESETS.values(), *VARIANTS.values()], ids=[*PRESETS, *VARIANTS])
def test_every_part_has_as_many_weights_as_the_built_module(config):
    with torch.device("meta"):
        built = dict(BLT(config).named_parameters())
    cost = cost_of_any(config)
    assert cost.num_parameters == sum(weight.numel() for weight in built.values())
    for part in cost.parts:
        names = [name for name in built if name.startswith(tuple(MODULES[part.name]))]
        assert part.num_parameters == sum(built[name].numel() for name in names), part.name


def test_the_entropy_model_has_as_many_weights_as_the_built_module():
    with torch.device("meta"):
        built = EntropyModel(ENTROPY)
    assert cost_of_any(SMALL).entropy_model.num_parameters == sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_products_with_weights_are_the_ones_that_pytorch_counts(config):
    rows, length = 2, 64
    byte_ids = torch.randint(4, 260, (rows, length))
    patches = patch(byte_ids, StaticRule(length=4))
    with FlopCounterMode(display=False) as counter:
        BLT(config)(byte_ids, patches)
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    wanted = rows * length * sum(part.products for part in cost_of_any(config).parts)
    assert counted["aten.mm"] == wanted


def test_attention_that_runs_is_the_attention_that_is_looked_at_and_what_blocks_and_masks_add():
    """Blocks of the window meet two blocks of keys, and the global transformer computes pairs that it masks."""
    rows, length, window = 2, 64, 8
    byte_ids = torch.randint(4, 260, (rows, length))
    patches = patch(byte_ids, StaticRule(length=4))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        BLT(SMALL)(byte_ids, patches)
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}["aten.bmm"]
    parts = {part.name: part.attention for part in cost_of_any(SMALL).parts}
    computed = {
        "local encoder": parts["local encoder"] * 2 * window / mean_keys(length, window=window),
        "global transformer": parts["global transformer"] * 16 / mean_keys(16),
        "local decoder": parts["local decoder"] * 2 * window / mean_keys(length, window=window),
    }  # both cross-attentions multiply number by number, which the counter leaves out
    assert counted == pytest.approx(rows * length * sum(computed.values()))


@pytest.mark.parametrize(("length", "window"), [(1, 5), (5, 1), (7, 7), (7, 9), (64, 8), (1000, 128)])
def test_mean_keys_are_what_counting_gives(length, window):
    assert mean_keys(length, window=window) == pytest.approx(sum(min(t + 1, window) for t in range(length)) / length)
    assert mean_keys(length) == pytest.approx((length + 1) / 2)


def test_a_byte_costs_the_same_in_a_longer_text_but_for_the_global_transformer():
    short, long = (
        cost_of(SMALL, mean_patch_bytes=4.0, context_bytes=length, entropy_model=ENTROPY) for length in (10**4, 10**6)
    )
    for one, other in zip(short.parts, long.parts, strict=True):
        ratio = other.attention / one.attention if one.attention else 1
        assert ratio == pytest.approx(100 if one.name == "global transformer" else 1, rel=0.01)


def test_longer_patches_cost_less_and_training_three_times_the_forward():
    costs = [cost_of(SMALL, mean_patch_bytes=n, context_bytes=64, entropy_model=ENTROPY) for n in (1.0, 4.0, 8.0)]
    assert costs[0].flops > costs[1].flops > costs[2].flops
    for cost in costs:
        entropy_model = cost.entropy_model.flops
        assert cost.training_flops == 3 * cost.flops
        assert cost.flops_with_entropy_model - cost.flops == pytest.approx(entropy_model)
        assert cost.training_flops_with_entropy_model - cost.training_flops == pytest.approx(entropy_model)
    alone = cost_of(SMALL, mean_patch_bytes=4.0, context_bytes=64)
    assert alone.flops_with_entropy_model == alone.flops == costs[1].flops


def test_the_presets_hold_what_their_names_say():
    without = {name: cost_of_any(config).num_parameters_without_embeddings for name, config in PRESETS.items()}
    assert cost_of_any(PRESETS["tinystories-55m"]).num_parameters == pytest.approx(55.4e6, rel=0.01)
    assert without["blt-1b"] == pytest.approx(1.4e9, rel=0.1)
    assert without["blt-8b"] == pytest.approx(7e9, rel=0.1)


@pytest.mark.parametrize("bad", [{"mean_patch_bytes": 0.5}, {"context_bytes": 0}])
def test_impossible_patches_and_contexts_are_refused(bad):
    with pytest.raises(ConfigurationError, match="at least 1"):
        cost_of(SMALL, **{"mean_patch_bytes": 4.4, "context_bytes": 64} | bad)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 "), (999, "999 "), (999.7, "1 k"), (55_400_000, "55.4 M"), (3e18, "3 E")],
)
def test_a_number_is_written_with_three_digits_and_a_prefix(number, text):
    assert with_unit(number) == text
