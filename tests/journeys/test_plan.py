import json

import pytest

from blt.cli import main
from blt.model import PRESETS


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def planned(capsys, *arguments):
    assert run("plan", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_plan_that_a_person_can_read(name, capsys):
    assert run("plan", "--preset", name) == 0
    shown = capsys.readouterr().out
    assert f"preset {name}: 4.4 bytes per patch, 512 bytes of context" in shown
    assert "with the entropy model" in shown
    assert "memory in decoding" in shown


def test_a_plan_adds_up_and_answers_to_patch_length_and_context(capsys):
    plan = planned(capsys, "--preset", "tinystories-55m")
    parts = {name: part for name, part in plan["parts"].items() if name != "entropy model"}
    assert plan["num_parameters"] == sum(part["num_parameters"] for part in parts.values())
    flops = sum(part["flops_in_products"] + part["flops_in_attention"] for part in parts.values())
    assert plan["flops_per_byte"] == pytest.approx(flops)
    assert plan["training_flops_per_byte"] == pytest.approx(3 * flops)
    assert planned(capsys, "--preset", "tinystories-55m", "--mean-patch", 8)["flops_per_byte"] < flops
    assert planned(capsys, "--preset", "tinystories-55m", "--context", 4096)["flops_per_byte"] > flops


def test_a_model_is_planned_from_its_config_alone(tiny_folder, tiny_lm, capsys):
    (tiny_folder / "model.safetensors").unlink()
    plan = planned(capsys, "--model", tiny_folder)
    assert plan["num_parameters"] == sum(weight.numel() for weight in tiny_lm.blt.parameters())
    assert plan["parts"]["entropy model"]["num_parameters"] == sum(
        weight.numel() for weight in tiny_lm.entropy_model.parameters()
    )


def test_a_recipe_brings_its_own_patches_window_and_optimiser(tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_text(
        """
        out = "run"
        patching.mean_patch_bytes = 3.5
        data.train = "data"
        entropy.model = { dim = 16, num_layers = 1, num_heads = 2 }
        entropy.loop.num_steps = 5
        blt.model.preset = "tiny"
        [blt.loop]
        num_steps = 10
        batch_size = 4
        sequence_length = 1024
        optimizer = { type = "muon" }
        """
    )
    plan = planned(capsys, path)
    assert plan["mean_patch_bytes"] == 3.5
    assert plan["context_bytes"] == 1024
    assert plan["training_bytes"] == 10 * 4 * 1024
    assert plan["training_memory_bytes"]["optimizer_name"] == "muon"
    assert planned(capsys, path, "--mean-patch", 6)["mean_patch_bytes"] == 6
    assert run("plan", path) == 0
    assert "FLOPs for 40,960 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "giant"], "preset 'giant' is none of tiny"),
        (["--preset", "tiny", "--model", "here"], "give one of them"),
        (["--preset", "tiny", "--mean-patch", "0"], "0.0 is not in the range"),
        (["--preset", "tiny", "--context", "0"], "0 is not in the range"),
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["nothing.toml"], "nothing.toml: "),
        (["broken.toml"], "broken.toml: not readable as TOML"),
    ],
)
def test_bad_input_is_told_in_one_line_with_exit_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[")
    assert run("plan", *arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert message in shown.err.splitlines()[-1]
