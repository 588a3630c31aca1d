"""prepare → train → evaluate → generate, and everything that can come between."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from blt import checkpoint
from blt.checkpoint import load_tensors
from blt.cli import main
from blt.data import PrepareConfig, prepare
from blt.training import monitor, pipeline, validation
from blt.training.monitor import read_metrics
from blt.training.objectives import EntropyObjective
from tiny_training import RECIPE, made_up_documents, write_recipe, write_text

SHORT = ["--device", "cpu", "--sample_prompt", "Tom"]
LONG = [*SHORT, "--entropy.loop.num_steps", "10", "--blt.loop.num_steps", "30", "--blt.loop.validate_every", "15"]


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
    return write_recipe(tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A recipe, and the weights that it gives when nothing happens."""
    root = tmp_path_factory.mktemp("uninterrupted")
    path = write_recipe(root)
    assert run("train", path, *LONG) == 0
    return path, weights_in(root / "run")


def weights_in(folder):
    names = ("model.safetensors", "entropy.safetensors")
    return {f"{name}/{key}": tensor for name in names for key, tensor in load_tensors(folder / "model" / name).items()}


def assert_same_weights(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def interrupt(command, *, at, by):
    """Start `blt` with a command, and send it a signal as soon as it says a line that begins with `at`."""
    words = [sys.executable, "-m", "blt", *map(str, command)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(at):
                process.send_signal(by)
                break
        said.append(process.stderr.read())
    return process.returncode, "".join(said)


def test_a_corpus_becomes_a_model_that_can_be_measured_and_writes(tmp_path, capsys):
    text = write_text(tmp_path / "stories.txt", made_up_documents())
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(root=tmp_path))
    assert run("prepare", text, "--out", tmp_path / "data", "--validation", "0.2") == 0
    capsys.readouterr()

    assert run("train", recipe, *SHORT) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"run folder: {tmp_path}/run\n")
    for line in ("entropy model: 8,", "entropy step 6/6 · ", "threshold: ", "BLT: ", "blt step 6/6 · ", " left\n"):
        assert line in said
    assert said.endswith(f"model written to {tmp_path}/run/model\n")
    assert "blt: the weights of step " in said
    for stage in ("entropy", "blt"):
        rows = read_metrics(tmp_path / "run" / stage / "metrics.jsonl")
        assert [row["step"] for row in rows if "bits_per_byte" in row] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "run" / "blt" / "samples.txt").read_text().count("--- step ") == 2

    assert run("evaluate", "--data", text, "--model", tmp_path / "run" / "model", "--bootstrap", "0", "--json") == 0
    assert 5 < json.loads(capsys.readouterr().out)["bits_per_byte"] < 12
    assert (
        run("generate", "--prompt", "Tom", "--max-new", "5", "--model", tmp_path / "run" / "model", "--seed", "1") == 0
    )
    assert capsys.readouterr().out.startswith("Tom")

    assert run("train", recipe, *SHORT) == 0  # a finished run has nothing left to do
    assert "step 6/6" not in capsys.readouterr().err


def test_sigterm_saves_and_the_same_command_goes_on_to_the_same_weights(uninterrupted, tmp_path):
    path, wanted = uninterrupted
    command = ["train", path, "--out", tmp_path / "run", *LONG]
    status, said = interrupt(command, at="blt step 9/", by=signal.SIGTERM)
    assert status == 130, said
    assert "which is saved; run the same command to go on" in said
    assert "Traceback" not in said
    assert run(*command) == 0
    assert_same_weights(weights_in(tmp_path / "run"), wanted)


def test_a_run_that_is_to_ignore_interrupts_goes_on_after_one_and_stops_on_sigterm(recipe):
    words = [sys.executable, "-m", "blt", "train", str(recipe), *LONG]
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as nohup and a shell's & do
    said = []
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **ignoring) as process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("entropy step 2/"):
                process.send_signal(signal.SIGINT)
            elif line.startswith("blt step 9/"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert "which is saved; run the same command to go on" in said[-1]


def test_a_mean_patch_length_that_cannot_be_is_refused_before_anything_is_trained(recipe, capsys):
    assert run("train", recipe, *SHORT, "--patching.mean_patch_bytes", "1000") == 2
    said = capsys.readouterr().err
    assert "patching.mean_patch_bytes: 1000.0; on these documents it can be at most" in said
    assert "step" not in said
    assert run("train", recipe, *SHORT, "--patching.rule.max_length", "2") == 2
    assert "mean_patch_bytes: 3.0 is more than the longest patch" in capsys.readouterr().err


def test_a_model_larger_than_memory_is_refused_before_anything_is_trained(recipe, capsys):
    assert run("train", recipe, *SHORT, "--blt.model.hash_embedding.num_rows", "2000000000") == 2
    said = capsys.readouterr().err
    assert "blt.model: its weights take" in said
    assert "step" not in said


def test_a_window_far_longer_than_the_text_costs_what_the_text_costs(tmp_path):
    path = write_recipe(tmp_path, documents=["Tom ran."], validation=0.0)
    longer = [
        "--entropy.loop.sequence_length",
        "100000",
        "--blt.loop.sequence_length",
        "100000",
        "--patching.mean_patch_bytes",
        "none",
    ]
    assert run("train", path, *SHORT, "--data.validation", tmp_path / "data", *longer) == 0


def test_a_killed_run_goes_on_wherever_it_died(uninterrupted, recipe, tmp_path):
    _, wanted = uninterrupted
    command = ["train", recipe, *LONG]
    for moment in ("entropy step 5/", "entropies of", "blt step 4/", "blt step 15: held-out"):
        status, said = interrupt(command, at=moment, by=signal.SIGKILL)
        assert status == -signal.SIGKILL, said
    assert run(*command) == 0
    assert_same_weights(weights_in(tmp_path / "run"), wanted)
    left = [path for path in (tmp_path / "run").rglob("*") if "unfinished" in path.name or "replaced" in path.name]
    assert not left
    samples = (tmp_path / "run" / "blt" / "samples.txt").read_text()
    assert re.findall(r"--- step (\d+):", samples) == ["15", "30"]


def test_a_stop_between_the_stages_is_obeyed_too(recipe, tmp_path, monkeypatch, capsys):
    from blt.training import entropies

    honest = entropies.entropies_of_rows

    def compute_and_ask(model, byte_ids):
        signal.raise_signal(signal.SIGTERM)
        return honest(model, byte_ids)

    monkeypatch.setattr(entropies, "entropies_of_rows", compute_and_ask)
    assert run("train", recipe, *SHORT) == 130
    assert "stopped; what was done is kept, run the same command to go on" in capsys.readouterr().err
    monkeypatch.undo()
    assert run("train", recipe, *SHORT) == 0


def test_a_run_folder_with_another_recipe_is_refused(recipe, capsys):
    assert run("train", recipe, *SHORT) == 0
    capsys.readouterr()
    assert run("train", recipe, *SHORT, "--blt.model.queries_per_patch", "1") == 2
    said = capsys.readouterr().err
    assert "holds a run with blt.model.queries_per_patch = 2, this recipe says 1; choose another --out" in said
    assert run("train", recipe, *SHORT, "--entropy.loop.num_steps", "9") == 2
    assert "cannot be trained further; choose another --out" in capsys.readouterr().err


def test_a_longer_run_goes_on_where_the_short_one_ended(recipe, tmp_path, capsys):
    assert run("train", recipe, *SHORT) == 0
    assert run("train", recipe, *SHORT, "--blt.loop.num_steps", "8") == 0
    assert "blt: going on after step 6\n" in capsys.readouterr().err
    rows = read_metrics(tmp_path / "run" / "blt" / "metrics.jsonl")
    assert [row["step"] for row in rows if "bits_per_byte" in row] == list(range(1, 9))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--blt.loop.num_step", "3"], "blt.loop.num_step: unknown key; did you mean 'num_steps'?"),
        (["--blt.loop.batch_size"], "--blt.loop.batch_size: no value given; write --blt.loop.batch_size VALUE"),
        (["rows", "8"], "rows: expected --field value; `blt train --fields` lists the fields"),
        (["--blt.model.local_encoder.num_heads", "3"], "num_heads"),
        (["--blt.loop.accumulation", "3"], "accumulation: 3 does not divide batch_size, 4"),
        (["--data.train", "nowhere"], "nowhere"),
        (["--device", "gpu"], "device: 'gpu' cannot be used"),
        (["--data.validation", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(recipe, tmp_path, capsys, arguments, said):
    assert run("train", recipe, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_former_names_of_fields_are_taken_and_one_line_says_the_new_ones(recipe, tmp_path, capsys):
    assert run("train", recipe, *SHORT, "--blt.loop.rows", "2", "--blt.loop.window=24") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "deprecated" in line]
    line = "blt.loop.rows is now batch_size, blt.loop.window is now sequence_length"
    assert said == [f"blt: deprecated names of fields: {line}"]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["blt"]["loop"]["sequence_length"] == 24


def test_a_recipe_that_is_missing_or_misplaced_is_one_line_and_status_2(recipe, capsys):
    for arguments in (["train"], ["train", "--seed", "3", recipe], ["train", "nowhere.toml"]):
        assert run(*arguments) == 2
        assert "give a recipe" in capsys.readouterr().err


def test_the_fields_are_listed_with_type_default_and_meaning(capsys):
    assert run("train", "--fields") == 0
    listed = capsys.readouterr().out
    assert "--blt.loop.batch_size  int = 16\n    Rows of a batch, over all ranks and accumulated parts.\n" in listed
    assert "--blt.loop.optimizer.type  adamw | muon = adamw\n" in listed
    assert "--blt.loop.optimizer.momentum  float = 0.95   (type = muon)\n" in listed
    assert "--data.validation  text or none = none\n" in listed
    assert "--data.train  text or none = none\n" in listed
    assert "--blt.model.preset  tiny | " in listed
    assert run("train", "--help") == 0
    assert "--fields" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["x", "Tom ran. " * 60])
def test_one_byte_and_one_document_longer_than_the_window_train_too(tmp_path, text):
    path = write_recipe(tmp_path, documents=[text], validation=0.0)
    held_out = ["--data.validation", tmp_path / "data", "--patching.mean_patch_bytes", "none"]
    assert run("train", path, *SHORT, *held_out, "--entropy.loop.num_steps", "2", "--blt.loop.num_steps", "2") == 0


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_the_last_checkpoint(recipe, tmp_path, monkeypatch, capsys):
    honest, calls = EntropyObjective.loss_sum, []

    def loss_sum(objective, batch):
        calls.append(1)
        return honest(objective, batch) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(EntropyObjective, "loss_sum", loss_sum)
    assert run("train", recipe, *SHORT) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("blt: step 4: loss nan, gradient norm nan; the last checkpoint is as it was")
    assert json.loads((tmp_path / "run/entropy/checkpoints/last.json").read_text()) == {"folder": "step-00000002"}
    assert run("train", recipe, *SHORT) == 0


def test_a_full_disk_while_saving_is_one_line_and_keeps_the_old_checkpoint(recipe, tmp_path, monkeypatch, capsys):
    honest = checkpoint.write_file

    def write_file(path, content):
        if "step-00000004" in str(path) and path.name == "optimizers.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        honest(path, content)

    for part in (checkpoint.files, checkpoint.tensors):
        monkeypatch.setattr(part, "write_file", write_file)
    assert run("train", recipe, *SHORT) == 2
    way_out = "No space left on device; make room and run the same command again"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"/step-00000004/optimizers.safetensors: {way_out}")
    assert json.loads((tmp_path / "run/entropy/checkpoints/last.json").read_text()) == {"folder": "step-00000002"}
    monkeypatch.undo()
    assert run("train", recipe, *SHORT) == 0
    assert "entropy: going on after step 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "overrides",
    [
        ["--entropy", "none", "--patching.rule.type", "space"],
        ["--patching.rule.type", "space"],
        ["--patching.rule.type", "static", "--patching.rule.length", "4", "--entropy", "none"],
        ["--blt.loop.precision", "bfloat16", "--entropy.loop.precision", "bfloat16"],
        ["--tensorboard", "true", "--blt.loop.optimizer.type", "muon", "--blt.loop.schedule.type", "wsd"],
    ],
)
def test_other_rules_precisions_and_optimisers_train(recipe, tmp_path, capsys, overrides):
    if "--patching.rule.type" in overrides:
        recipe.write_text(recipe.read_text().replace("[patching]", '[patching]\nrule = { type = "space" }'))
    assert run("train", recipe, *SHORT, *overrides) == 0
    said = capsys.readouterr().err
    assert ("which needs no threshold" in said) == ("--patching.rule.type" in overrides)
    assert (tmp_path / "run" / "model" / "entropy.safetensors").exists() == ("none" not in overrides)


@pytest.mark.parametrize("option", ["--blt.layer_dropout", "--blt.ngram_dropout"])
def test_what_is_dropped_in_training_changes_what_is_learnt(recipe, tmp_path, option):
    for name, share in (("without", "0"), ("with", "0.5")):
        assert run("train", recipe, *SHORT, option, share, "--out", tmp_path / name) == 0
    without, dropped = (weights_in(tmp_path / name) for name in ("without", "with"))
    assert any(not torch.equal(dropped[key], tensor) for key, tensor in without.items() if "model.safetensors" in key)
    assert all(torch.equal(dropped[key], tensor) for key, tensor in without.items() if "entropy.safetensors" in key)


def test_damaged_data_are_refused_by_training_by_preparing_again_and_by_a_check(tmp_path, capsys):
    text = write_text(tmp_path / "stories.txt", made_up_documents())
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(root=tmp_path))
    prepare = ["prepare", text, "--out", tmp_path / "data", "--validation", "0.2"]
    assert run(*prepare) == 0
    assert run("prepare", "--check", tmp_path / "data") == 0
    assert "every file is what index.json says" in capsys.readouterr().out
    shard = tmp_path / "data" / "train" / "shard-00000.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    for command in (["train", recipe, *SHORT], prepare, ["prepare", "--check", tmp_path / "data"]):
        assert run(*command) == 2
        said = capsys.readouterr().err
        assert "shard-00000.bin: has changed" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_check_takes_the_folder_alone(tmp_path, capsys):
    assert run("prepare", "x.txt", "--check", tmp_path) == 2
    assert run("prepare", "x.txt") == 2
    assert "Missing option '--out'" in capsys.readouterr().err
    assert run("prepare", "--check", tmp_path / "nowhere") == 2


def test_data_that_are_replaced_while_a_run_trains_are_not_taken_for_those_it_began_with(
    uninterrupted, tmp_path, monkeypatch
):
    path, wanted = uninterrupted
    root, honest = path.parent, pipeline.prepare_patching
    shutil.copytree(root / "data", tmp_path / "data")
    others = write_text(tmp_path / "other.txt", list(reversed(made_up_documents())))  # of the same length

    def replace_and_patch(*arguments, **options):
        prepare(PrepareConfig(inputs=(str(others),), out=str(tmp_path / "data"), validation=0.2, overwrite=True))
        return honest(*arguments, **options)

    monkeypatch.setattr(pipeline, "prepare_patching", replace_and_patch)
    command = ["train", path, "--out", tmp_path / "run", "--data.train", tmp_path / "data", *LONG]
    assert run(*command) == 0
    assert_same_weights(weights_in(tmp_path / "run"), wanted)
    assert run(*command) == 2  # the data are not those that the run began with


def test_training_leaves_prepared_data_as_they_are(recipe, tmp_path):
    def files():
        return {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}

    before = files()
    assert run("train", recipe, *SHORT) == 0
    assert files() == before
    assert list((tmp_path / "run" / "entropies" / "train").glob("entropies-*.f32"))
