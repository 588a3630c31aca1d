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


RECIPE = """
out = "run"
data.train = "data"
patching.rule = { type = "space" }
blt.model.preset = "blt-1b"
[blt.loop]
num_steps = 1000
batch_size = 512
sequence_length = 4096
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "large.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("name", ["blt-1b", "blt-8b"])
def test_a_preset_is_planned_from_8_to_4096_ranks_by_the_fastest_ways_that_fit(name, capsys):
    arguments = ["--preset", name, "--machine", "h100-sxm", "--ranks", "8,64,512,4096"]
    machine = planned(capsys, *arguments)["machine"]
    assert [(each["ranks"], each["parallel"]) for each in machine["chosen"]] == [
        (ranks, way) for ranks in (8, 64, 512, 4096) for way in ("ddp", "fsdp")
    ]
    assert machine["asked"] == []
    sharded = [each for each in machine["chosen"] if each["parallel"] == "fsdp"]
    assert all(each["fits"] for each in sharded)
    for each in machine["chosen"]:
        assert each["fits"] == (each["memory_bytes"]["total"] <= 0.9 * 80e9)
        parts = {part: size for part, size in each["memory_bytes"].items() if part != "total"}
        assert sum(parts.values()) == each["memory_bytes"]["total"]
        assert 0 <= each["communication_share"] <= each["communication_share_without_overlap"] < 1
        assert each["days"] * each["ranks"] * 24 * 1.275 == pytest.approx(each["kilowatt_hours"])
        assert each["activations_bytes_with_recompute"] < each["activations_bytes_without_recompute"]
    days = [each["days"] for each in sharded]
    assert days == sorted(days, reverse=True)
    assert run("plan", *arguments) == 0
    shown = capsys.readouterr().out
    assert "too much" in shown
    assert "NVIDIA H100 datasheet" in shown


def test_a_recipe_is_planned_as_it_is_and_what_to_change_is_told_where_it_does_not_fit(recipe, capsys):
    arguments = [recipe, "--machine", "a100-sxm", "--ranks", "16"]
    machine = planned(capsys, *arguments)["machine"]
    (asked,) = machine["asked"]
    assert (asked["parallel"], asked["accumulation"], asked["fits"]) == ("ddp", 1, False)
    change = machine["advice"][0]
    assert change["fits"]
    again = planned(capsys, *arguments, *change["options"].split())["machine"]
    assert again["asked"] == [{key: value for key, value in change.items() if key != "options"}]
    assert again["advice"] == []
    assert run("plan", *arguments) == 0
    assert f"to fit                     {change['options']} on 16 ranks" in capsys.readouterr().out


def test_figures_of_a_machine_come_from_a_file_and_from_the_command_line(recipe, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(
        "memory = 4e10\nfloat32_flops = 1e13\nmemory_bandwidth = 1e12\nbandwidth_inside = 1e10\n"
        "bandwidth_between = 1e9\nwatts = 300.0\n"
    )
    slow, fast = (
        planned(capsys, recipe, "--machine", path, "--ranks", 4, f"--machine.utilisation={share}", "--bytes", "1e9")
        for share in (0.25, 0.5)
    )
    assert slow["machine"]["memory"] == 4e10
    assert fast["machine"]["utilisation"] == 0.5
    assert fast["machine"]["training_bytes"] == 1e9
    assert fast["machine"]["asked"][0]["bytes_per_second"] > 1.5 * slow["machine"]["asked"][0]["bytes_per_second"]


def test_a_plan_far_off_the_published_scaling_is_told(recipe, capsys):
    assert planned(capsys, "--preset", "blt-8b", "--machine", "h100-sxm")["warnings"] == []
    (warning,) = planned(capsys, recipe)["warnings"]
    assert warning.startswith("little text for the shape: 1.6")
    assert run("plan", recipe) == 0
    assert f"warning: {warning}" in capsys.readouterr().out
    assert planned(capsys, recipe, "--blt.loop.num_steps", "40000")["warnings"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "tiny", "--machine", "giant"], "machine 'giant' is none of h100-sxm"),
        (["--preset", "tiny", "--machine", "none.toml"], "none.toml: No such file"),
        (["--preset", "tiny", "--machine", "broken.toml"], "broken.toml: not readable as TOML"),
        (["--preset", "tiny", "--machine", "h100-sxm", "--machine.watt", "3"], "did you mean 'watts'?"),
        (["--preset", "tiny", "--machine", "h100-sxm", "--machine.watts", "much"], "machine.watts: "),
        (["--preset", "tiny", "--machine.watts", "3"], "no --machine is given"),
        (["--preset", "tiny", "--ranks", "3"], "--ranks: only a plan for a machine has it"),
        (["--preset", "tiny", "--bytes", "3"], "--bytes: only a plan for a machine has it"),
        (["--preset", "tiny", "--machine", "h100-sxm", "--ranks", "8,x"], "'x' is not a valid integer"),
        (["--preset", "tiny", "--machine", "h100-sxm", "--ranks", "3"], "batch_size: 32,768 is no multiple of 3 ranks"),
        (["--preset", "tiny", "--entropy.loop.num_steps", "3"], "only fields of blt can be set without a recipe"),
        (["--preset", "tiny", "--blt.loop.shard", "3"], "did you mean 'shards'?"),
        (["--preset", "tiny", "--blt.loop.shards"], "no value given"),
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
