from pathlib import Path

import pytest

from blt.configuration import from_dict, to_dict
from blt.errors import ConfigurationError
from blt.model import preset
from blt.patching import EntropyRule, SpaceRule
from blt.training import Recipe, load_recipe
from blt.training.optimizers import AdamWConfig, MuonConfig
from blt.training.schedules import CosineConfig
from tiny_training import RECIPE

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(root=tmp_path))
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_read(path):
    recipe = load_recipe(path)
    assert from_dict(Recipe, to_dict(recipe)) == recipe


def test_there_are_shipped_recipes():
    assert {path.stem for path in RECIPES} >= {
        "tiny",
        "tiny-continued",
        "tinystories-55m",
        "tinystories-55m-best",
        "tinystories-55m-little",
        "finetune",
        "byteify-smollm2",
    }


def test_any_field_can_be_set_from_outside(recipe_file):
    overrides = {
        "blt.loop.batch_size": "8",
        "entropy.loop.optimizer.type": "muon",
        "entropy.loop.optimizer.adamw.betas": "0.8,0.9",
        "data.validation": "elsewhere",
        "blt.loop.compile": "true",
    }
    recipe = load_recipe(recipe_file, overrides=overrides)
    assert recipe.blt.loop.batch_size == 8
    assert isinstance(recipe.entropy.loop.optimizer, MuonConfig)
    assert recipe.entropy.loop.optimizer.adamw.betas == (0.8, 0.9)
    assert recipe.data.validation == "elsewhere"
    assert recipe.blt.loop.compile is True


def test_a_preset_takes_changes_of_single_fields(recipe_file):
    values = {"preset": "tiny", "local_encoder": {"num_layers": 2}, "queries_per_patch": 1}
    model = load_recipe(recipe_file, overrides={"blt.model": values}).blt.model
    tiny = preset("tiny")
    assert model.local_encoder.num_layers == 2
    assert model.local_encoder.dim == tiny.local_encoder.dim
    assert model.queries_per_patch == 1
    assert model.global_transformer == tiny.global_transformer


def test_a_rule_without_entropies_needs_no_entropy_stage(recipe_file):
    recipe = load_recipe(recipe_file, overrides={"entropy": "none", "patching.rule": {"type": "space"}})
    assert recipe.entropy is None
    assert isinstance(recipe.patching.rule, SpaceRule)


def test_a_recipe_that_starts_from_a_model_may_leave_shape_rule_and_entropy_model_to_it(recipe_file):
    unset = {"blt.model": "none", "entropy": "none", "patching": "none"}
    recipe = load_recipe(recipe_file, overrides={"start_from": "elsewhere"} | unset)
    assert (recipe.blt.model, recipe.entropy, recipe.patching) == (None, None, None)
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    parts = {"blt.parts.global_transformer.learning_rate_factor": "0.1"}
    told = load_recipe(recipe_file, overrides={"start_from": "elsewhere"} | parts)
    assert None not in (told.blt.model, told.entropy, told.patching)
    assert told.blt.parts.global_transformer.learning_rate_factor == 0.1


def test_a_recipe_without_patching_has_the_default_rule(recipe_file):
    recipe = load_recipe(recipe_file, overrides={"patching": "none"})
    assert recipe.patching.mean_patch_bytes == 4.4
    assert recipe.patching.rule.needs_entropies


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"blt.loop.num_step": "3"}, "blt.loop.num_step: unknown key; did you mean 'num_steps'?"),
        ({"entropi.loop.rows": "3"}, "entropi: unknown key; did you mean 'entropy'?"),
        ({"blt.loop.optimizer.type": "adam"}, "'adam' is none of adamw, muon; did you mean 'adamw'?"),
        ({"blt.model.preset": "tinny"}, "preset 'tinny' is none of tiny"),
        ({"blt.loop.batch_size": "many"}, "blt.loop.batch_size: expected int, got 'many'"),
        ({"blt.layer_dropout": "1"}, "layer_dropout: 1.0; from 0 to below 1"),
        ({"blt.ngram_dropout": "-0.1"}, "ngram_dropout: -0.1; from 0 to below 1"),
        ({"blt.loop.batch_size": "0"}, "blt.loop: batch_size: 0; at least 1"),
        ({"blt.loop.sequence_length": "0"}, "blt.loop: sequence_length: 0; at least 1"),
        ({"blt.loop.num_steps": "0"}, "blt.loop: num_steps: 0; at least 1"),
        ({"blt.loop.accumulation": "3"}, "accumulation: 3 does not divide batch_size, 4"),
        ({"blt.loop.clip": "0"}, "clip: 0.0; above 0"),
        ({"blt.loop.slots_multiple": "0"}, "slots_multiple: 0; at least 1"),
        ({"blt.loop.keep_every": "0"}, "keep_every: 0; at least 1"),
        ({"blt.loop.precision": "float8"}, "'float8' is none of auto, float32, bfloat16"),
        ({"blt.model.local_encoder.num_heads": "3"}, "num_heads"),
        ({"blt.model.local_decoder.dim": "32"}, "local_decoder.dim: 32 differs from local_encoder.dim, 16"),
        ({"data.validation_documents": "0"}, "validation_documents: 0; at least 1"),
        ({"patching.mean_patch_bytes": "0.5"}, "mean_patch_bytes: a patch holds at least 1 byte, got 0.5"),
        ({"patching.calibration_documents": "0"}, "calibration_documents: 0; at least 1"),
        ({"entropy": "none"}, "EntropyRule needs an entropy model; add an .entropy. stage"),
        ({"data": {}}, "data: train: missing; name a folder that `blt prepare` wrote"),
        ({"data.sources": [{"folder": "a"}]}, "data: sources: give them or train, not both"),
        ({"data": {"sources": [{"folder": "a"}]}}, "data: validation: missing; beside sources, name a folder"),
        ({"data": {"sources": [{"wieght": 1}], "validation": "v"}}, "wieght: unknown key; did you mean 'weight'"),
        ({"data": {"sources": [{"folder": "a", "weight": 0}], "validation": "v"}}, "weight: 0.0; above 0"),
        ({"data": {"sources": [{"folder": "a", "epochs": -1}], "validation": "v"}}, "epochs: -1.0; above 0"),
        (
            {"data": {"sources": [{"folder": "a", "weight": 1}, {"folder": "b"}], "validation": "v"}},
            "data: sources: some have a weight and some have none",
        ),
        ({"blt.model": "none"}, "blt.model: missing; give a shape, a preset, or start_from"),
        ({"blt.parts.globel.frozen_steps": "1"}, "blt.parts.globel: unknown key"),
        ({"blt.parts.local_encoder.frozen_steps": "-1"}, "frozen_steps: -1; at least 0"),
        ({"blt.parts.local_encoder.learning_rate_factor": "inf"}, "learning_rate_factor: inf; at most"),
        ({"blt.loop.optimizer.weight_decay": "-0.1"}, "weight_decay: -0.1; at least 0"),
        ({"blt.loop.optimizer.weight_decay": "inf"}, "weight_decay: inf; at most"),
        ({"blt.loop.optimizer.epsilon": "-1"}, "epsilon: -1.0; at least 0"),
        ({"blt.loop.optimizer": {"type": "muon", "weight_decay": -1}}, "weight_decay: -1.0; at least 0"),
        ({"blt.loop.optimizer.learning_rate": "inf"}, "learning_rate: inf; above 0, and finite"),
        ({"blt.loop.optimizer.learning_rate": "nan"}, "learning_rate: nan; above 0, and finite"),
        ({"blt.loop.schedule.warmup_steps": "-1"}, "warmup_steps: -1; at least 0"),
        ({"blt.model.rope_theta": "inf"}, "rope_theta: inf; at most"),
        ({"blt.model.global_rope_theta": "1e-300"}, "global_rope_theta: 1e-300; at least 1"),
        ({"entropy.model.rope_theta": "inf"}, "rope_theta: inf; at most"),
        ({"entropy.model.window": 10**12}, "window: 1000000000000; at most 1,048,576"),
        ({"entropy.model.window": 10**30}, "entropy.model.window: 1000000000000000000000000000000; at most"),
        ({"blt.model.local_encoder.num_layers": 10**9}, "num_layers: 1000000000; at most 4,096"),
        ({"blt.model.hash_embedding.ngram_sizes": [3, 10**9]}, "ngram_sizes: (3, 1000000000); each from 2 to 256"),
        ({"blt.model.hash_embedding.num_rows": 10**15}, "num_rows: 1000000000000000; at most"),
        ({"blt.model.queries_per_patch": 10**6}, "queries_per_patch: 1000000; at most 1,024"),
        ({"patching.rule.max_length": 10**18}, "max_length: a patch holds at least 1 byte, got 1000000000000000000"),
        ({"blt.loop.sequence_length": 10**12}, "sequence_length: 1000000000000; at most 16,777,216"),
        ({"blt.loop.num_steps": 10**30}, "blt.loop.num_steps: 1000000000000000000000000000000; at most"),
        ({"blt.loop.clip": 10**400}, "blt.loop.clip: expected float, got 1000"),
        ({"blt.loop.clip": 16**9000}, "blt.loop.clip: expected float, got a int beyond all bounds"),
        ({"blt.loop.batch_size": 16**9000}, "blt.loop.batch_size: a int beyond all bounds; at most"),
        ({"blt.loop.clip": "nan"}, "clip: nan; above 0"),
        ({"blt.loop.clip": "inf"}, "clip: inf; above 0, and finite"),
        ({"patching.mean_patch_bytes": "inf"}, "mean_patch_bytes: a patch holds at least 1 byte, got inf"),
        ({"seed": "-1"}, "seed: -1; at least 0"),
        ({"out": ""}, "out: '' is empty; name a folder"),
        ({"out": " "}, "out: ' ' is empty; name a folder"),
        ({"out": "a\0b"}, "has characters that no path can have"),
        ({"data.train": ""}, "train: '' is empty"),
        ({"data.validation": "\ud800"}, "has characters that no path can have"),
        ({"start_from": ""}, "start_from: '' is empty"),
        ({"patching.rule.max_length": "2"}, "mean_patch_bytes: 3.0 is more than the longest patch, max_length 2, has"),
        ({".".join("a" * 5000): "1"}, "more than 32 names; no field is so deep"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_by_name(recipe_file, overrides, said):
    with pytest.raises(ConfigurationError) as error:
        load_recipe(recipe_file, overrides=overrides)
    assert said.replace(".entropy.", "[entropy]") in str(error.value)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="give a recipe, a TOML file"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match="give a recipe, a TOML file"):
        load_recipe(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("out = ")
    with pytest.raises(ConfigurationError, match="not readable as TOML"):
        load_recipe(broken)
    broken.write_bytes(b"out = '\xff'")
    with pytest.raises(ConfigurationError, match="not readable as TOML"):
        load_recipe(broken)


@pytest.mark.parametrize(("name", "value"), [("sparse_ngrams", "true"), ("ngram_dropout", "0.1")])
def test_what_needs_ngram_tables_is_refused_without_them(recipe_file, name, value):
    overrides = {f"blt.{name}": value, "blt.model.hash_embedding.ngram_sizes": []}
    with pytest.raises(ConfigurationError, match=f"{name}: the model has no n-gram tables"):
        load_recipe(recipe_file, overrides=overrides)


@pytest.mark.parametrize(
    "content",
    [
        "a=" + "[" * 20000,
        "seed=1" + "0" * 5000,
        "[" + "a." * 5000 + "b]",
        "seed = 0x1" + "0" * 9000,
        'out = "a\\u0000b"',
    ],
)
def test_a_recipe_beyond_all_bounds_is_one_line(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises(ConfigurationError):
        load_recipe(path)


def test_tables_without_end_under_a_field_are_one_line(recipe_file):
    recipe_file.write_text(recipe_file.read_text() + "[blt.model." + "a." * 5000 + "b]\n")
    with pytest.raises(ConfigurationError):
        load_recipe(recipe_file)


def test_a_byte_order_mark_is_passed_over(recipe_file):
    recipe_file.write_bytes(b"\xef\xbb\xbf" + recipe_file.read_bytes())
    assert load_recipe(recipe_file).blt.loop.batch_size == 4


def test_a_field_of_an_optimiser_a_schedule_or_a_rule_can_be_set_alone(recipe_file):
    overrides = {
        "blt.loop.optimizer.learning_rate": "0.001",
        "blt.loop.schedule.warmup_steps": "5",
        "patching.rule.max_length": "8",
    }
    recipe = load_recipe(recipe_file, overrides=overrides)
    assert recipe.blt.loop.optimizer == AdamWConfig(learning_rate=0.001)
    assert recipe.blt.loop.schedule == CosineConfig(warmup_steps=5)
    assert recipe.patching.rule == EntropyRule(threshold=1.0, max_length=8)


def test_what_a_table_leaves_out_is_what_the_list_of_fields_says(recipe_file):
    overrides = {"blt.loop.optimizer.type": "muon", "blt.loop.optimizer.adamw.betas": "0.8,0.9"}
    adamw = load_recipe(recipe_file, overrides=overrides).blt.loop.optimizer.adamw
    assert adamw == AdamWConfig(learning_rate=3e-3, weight_decay=0.0, betas=(0.8, 0.9))


FORMER_NAMES = {"batch_size": "rows", "sequence_length": "window"}


def with_former_names(text):
    """A recipe as earlier versions wrote it: only tables of loops, since a window of attention keeps its name."""
    tables = text.split("\n[")
    for name, former in FORMER_NAMES.items():
        tables = [table.replace(f"\n{name} =", f"\n{former} =") if ".loop]" in table else table for table in tables]
    return "\n[".join(tables)


def test_a_recipe_with_former_names_is_read_and_one_line_says_the_new_ones(recipe_file):
    wanted = load_recipe(recipe_file)
    recipe_file.write_text(with_former_names(recipe_file.read_text()))
    assert recipe_file.read_text().count("\nrows =") == 2
    with pytest.warns(FutureWarning) as said:
        assert load_recipe(recipe_file) == wanted
    pairs = [f"{stage}.loop.{old} is now {new}" for stage in ("blt", "entropy") for new, old in FORMER_NAMES.items()]
    assert [str(warning.message) for warning in said] == [f"deprecated names of fields: {', '.join(pairs)}"]


@pytest.mark.parametrize("former_in_file", [False, True])
@pytest.mark.parametrize("name", ["rows", "batch_size"])
@pytest.mark.filterwarnings("ignore:deprecated names")
def test_an_override_meets_its_field_by_either_name(recipe_file, name, former_in_file):
    if former_in_file:
        recipe_file.write_text(with_former_names(recipe_file.read_text()))
    assert load_recipe(recipe_file, overrides={f"blt.loop.{name}": "8"}).blt.loop.batch_size == 8


def test_a_field_given_by_both_its_names_is_refused(recipe_file):
    with pytest.raises(ConfigurationError, match=r"^blt\.loop\.rows: given by its current name too; give one$"):
        load_recipe(recipe_file, overrides={"blt.loop.rows": "8", "blt.loop.batch_size": "8"})
    recipe_file.write_text(recipe_file.read_text() + "rows = 4\n")
    with pytest.raises(ConfigurationError, match=r"blt\.loop\.rows: the former name of 'batch_size', also given"):
        load_recipe(recipe_file)
