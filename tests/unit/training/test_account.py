from dataclasses import replace

from blt.data import Shards
from blt.model import BLT
from blt.training.account import describe_blt_stage, describe_entropy_stage
from tiny_training import tiny_recipe


def test_the_arithmetic_of_a_stage_is_that_of_its_recipe_data_and_model(tmp_path):
    recipe = tiny_recipe(tmp_path)
    shards = Shards.open(recipe.data.train)
    shapes = {"model": recipe.blt.model, "entropy_model": recipe.entropy.model}
    text = describe_blt_stage(recipe.blt, shards, mean_patch_bytes=3.0, **shapes)
    num_parameters = sum(weight.numel() for weight in BLT(recipe.blt.model).parameters())
    assert f"BLT: {num_parameters:,} parameters, 3.00 bytes per patch" in text
    assert "4 rows × 48 bytes = 192 bytes per step, × 6 steps = 1.15 kB" in text
    assert f"{shards.num_documents:,} documents" in text
    assert f"read {6 * 192 / shards.num_ids:.2f} times" in text
    for word in ("FLOPs per byte forward", "with the entropy model", "memory: about", "activations"):
        assert word in text
    assert "go without" not in text
    dropping = replace(recipe.blt, ngram_dropout=0.1)
    said = describe_blt_stage(dropping, shards, mean_patch_bytes=3.0, **shapes)
    assert said.count("go without") == 1
    assert "in training 10% of positions go without n-grams" in said


def test_the_entropy_model_has_its_own_arithmetic(tmp_path):
    recipe = tiny_recipe(tmp_path)
    text = describe_entropy_stage(recipe.entropy, Shards.open(recipe.data.train))
    assert text.startswith("entropy model: 8,")
    assert "FLOPs per byte forward" in text
    assert "192 bytes per step" in text
