"""Going on from a model that there is: `start_from` and `parts` of a recipe."""

import json
import shutil

import pytest
import torch

from blt.api import ByteLM
from blt.cli import main
from blt.training import monitor, validation
from blt.training.monitor import read_metrics
from tiny_training import RECIPE, made_up_documents, write_recipe

SHORT = ["--device", "cpu", "--sample_prompt", "Tom"]
UNSET = ["--blt.model", "none", "--entropy", "none", "--patching", "none"]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture(autouse=True)
def _short_samples_and_no_curves(monkeypatch):
    monkeypatch.setattr(validation, "SAMPLE_BYTES", 8)
    monkeypatch.setattr(monitor, "draw_curves", lambda *_, **__: None)


@pytest.fixture
def recipe(tmp_path):
    """A recipe on another text than the model was trained on."""
    return write_recipe(tmp_path, documents=made_up_documents(seed=7))


@pytest.fixture
def finetune(recipe, tmp_path, tiny_folder):
    """The command that goes on from `tiny_folder`."""
    return ["train", recipe, "--start_from", tiny_folder, "--out", tmp_path / "tuned", *SHORT, *UNSET]


def weights(folder):
    return ByteLM.from_pretrained(folder).state_dict()


def test_fine_tuning_takes_shape_rule_and_entropy_model_and_moves_the_rest(finetune, tiny_folder, tmp_path, capsys):
    assert run(*finetune) == 0
    said = capsys.readouterr().err
    assert f"starting from {tiny_folder}" in said
    assert "threshold: " not in said
    start, tuned = ByteLM.from_pretrained(tiny_folder), ByteLM.from_pretrained(tmp_path / "tuned" / "model")
    assert tuned.config == start.config
    for name, weight in start.entropy_model.state_dict().items():
        assert torch.equal(weight, tuned.entropy_model.state_dict()[name])
    assert not torch.equal(start.blt.local_encoder.to_queries.weight, tuned.blt.local_encoder.to_queries.weight)
    first = read_metrics(tmp_path / "tuned" / "blt" / "metrics.jsonl")[0]
    assert first["step"] == 1
    assert run(*finetune) == 0  # a finished run has nothing left to do
    assert "step 6/6" not in capsys.readouterr().err


def test_the_first_loss_is_that_of_the_weights_it_starts_from(finetune, recipe, tmp_path):
    assert run(*finetune, "--out", tmp_path / "once") == 0
    again = ["train", recipe, "--start_from", tmp_path / "once" / "model", "--out", tmp_path / "twice", *SHORT, *UNSET]
    assert run(*again) == 0
    once, twice = (
        [row["validation_bits_per_byte"] for row in rows if "validation_bits_per_byte" in row]
        for rows in (read_metrics(tmp_path / name / "blt" / "metrics.jsonl") for name in ("once", "twice"))
    )
    assert twice[-1] < once[-1] < once[0]


def test_only_the_parts_that_are_trained_move(finetune, tiny_folder, tmp_path):
    frozen = [f"--blt.parts.{name}.learning_rate_factor=0" for name in ("hash_embedding", "global_transformer")]
    late = ["--blt.parts.local_encoder.frozen_steps", "99"]
    assert run(*finetune, *frozen, *late) == 0
    before, after = weights(tiny_folder), weights(tmp_path / "tuned" / "model")
    moved = {name.removeprefix("blt.").split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"local_decoder"}


def test_a_threshold_is_found_for_the_new_text_where_it_is_asked_for(finetune, tiny_folder, tmp_path, capsys):
    asked = [*finetune[:-2], "--patching.mean_patch_bytes", "2.5"]
    assert run(*asked) == 0
    assert "threshold: " in capsys.readouterr().err
    start, tuned = ByteLM.from_pretrained(tiny_folder), ByteLM.from_pretrained(tmp_path / "tuned" / "model")
    assert tuned.patch_rule.threshold != start.patch_rule.threshold
    found = json.loads((tmp_path / "tuned" / "threshold.json").read_text())
    assert tuned.patch_rule.threshold == found["threshold"]


def test_a_shape_may_differ_in_what_no_weight_depends_on(finetune, tiny_folder, tmp_path, capsys):
    config = json.loads((tiny_folder / "config.json").read_text())["blt"]
    told = [word for word in finetune if word not in ("--blt.model",)]
    told.remove("none")
    flat = [f"--blt.model.{part}.{key}={value}" for part in ("local_encoder", "local_decoder", "global_transformer")
            for key, value in config[part].items()]  # fmt: skip
    flat += ["--blt.model.queries_per_patch=2", "--blt.model.hash_embedding.ngram_sizes=3,4"]
    flat += ["--blt.model.hash_embedding.num_rows=32"]
    assert run(*told, *flat, "--blt.model.local_encoder.window", "5") == 0
    tuned = ByteLM.from_pretrained(tmp_path / "tuned" / "model")
    assert tuned.blt.config.local_encoder.window == 5
    capsys.readouterr()
    assert run(*told, *flat, "--blt.model.hash_embedding.num_rows", "16", "--out", tmp_path / "other") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "blt: blt.model: hash_embedding.ngrams.weight has shape (32, 16), in start_from (64, 16)"
    assert run(*told, *flat, "--blt.model.queries_per_patch", "1", "--out", tmp_path / "third") == 2
    assert "blt.model: " in capsys.readouterr().err.splitlines()[-1]


def test_a_run_goes_on_only_with_the_weights_that_it_began_with(finetune, tiny_folder, tmp_path, capsys):
    assert run(*finetune) == 0
    other = ByteLM.from_pretrained(tiny_folder)
    other.blt.hash_embedding.bytes.weight.data.mul_(1.01)
    other.save_pretrained(tiny_folder)
    capsys.readouterr()
    assert run(*finetune, "--blt.loop.num_steps", "9") == 2
    assert "began with other weights than those that start_from names now" in capsys.readouterr().err
    shutil.rmtree(tiny_folder)
    assert run(*finetune) == 2
    assert capsys.readouterr().err.count("\n") == 2  # the run folder, and the one line


def test_a_start_without_an_entropy_model_that_is_needed_is_refused(finetune, tiny_folder, tmp_path, capsys):
    lm = ByteLM.from_pretrained(tiny_folder)
    from blt.patching import SpaceRule

    ByteLM(lm.blt, patch_rule=SpaceRule()).save_pretrained(tmp_path / "spaces")
    asked = [*finetune[:-2], "--patching.mean_patch_bytes", "2.5", "--start_from", tmp_path / "spaces"]
    assert run(*asked) == 2
    assert "has no entropy model, which the patch rule needs; add an [entropy] stage" in capsys.readouterr().err
    assert run(*finetune, "--start_from", tmp_path / "spaces") == 0


def test_a_plan_of_a_recipe_takes_the_shape_of_its_start(recipe, tiny_folder, tmp_path, capsys):
    path = tmp_path / "finetune.toml"
    text = RECIPE.format(root=tmp_path)
    loop = text[text.index("[blt.loop]") :]
    path.write_text(f'out = "x"\nstart_from = "{tiny_folder}"\n[data]\ntrain = "y"\n{loop}')
    assert run("plan", path, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    lm = ByteLM.from_pretrained(tiny_folder)
    assert plan["num_parameters"] == sum(weight.numel() for weight in lm.blt.parameters())
    assert "entropy model" in plan["parts"]


def test_training_may_start_from_the_bundled_model_by_its_name(tmp_path, capsys):
    write_recipe(tmp_path)
    recipe = tmp_path / "finetune.toml"
    recipe.write_text(
        f'out = "{tmp_path}/run"\nstart_from = "tiny"\nsample_prompt = ""\n[data]\ntrain = "{tmp_path}/data"\n'
        "validation_documents = 1\n[blt.loop]\nnum_steps = 1\nbatch_size = 1\nsequence_length = 32\n"
    )
    assert run("train", recipe) == 0
    said = capsys.readouterr().err
    assert "starting from tiny\n" in said
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
