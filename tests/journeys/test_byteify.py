"""byteify → prepare → train in stages → evaluate."""

import json

import pytest
import torch

from blt.api import ByteLM
from blt.cli import main
from blt.training import monitor, validation
from llama_models import new_llama, write_gguf
from tiny_training import write_recipe, write_text

SMALL = ["--hash_embedding.num_rows", "16", "--local_encoder.dim", "16", "--local_encoder.num_heads", "2"]
SMALL += ["--local_decoder.dim", "16", "--local_decoder.num_heads=2", "--local_decoder.num_layers=1"]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def checkpoint(tmp_path):
    return write_gguf(new_llama(), tmp_path / "llama.gguf", kind="Q8_0")


def test_a_pretrained_transformer_becomes_a_model_of_bytes(checkpoint, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(validation, "SAMPLE_BYTES", 8)
    monkeypatch.setattr(monitor, "draw_curves", lambda *_, **__: None)
    model = tmp_path / "bytes"
    assert run("byteify", checkpoint, "--out", model, "--entropy", tiny_folder, *SMALL) == 0
    said = capsys.readouterr().out
    assert f"wrote        {model}, to be trained: start_from = " in said
    assert f"weights, of {checkpoint}" in said
    start = ByteLM.from_pretrained(model)
    assert "whose licence goes with it" in start.card
    assert start.blt.config.local_decoder.num_layers == 1

    recipe = write_recipe(tmp_path)
    parts = ["--blt.parts.global_transformer.learning_rate_factor", "0.1"]
    parts += ["--blt.parts.global_transformer.frozen_steps", "3"]
    parts += ["--blt.loop.optimizer.type", "adamw", "--blt.loop.optimizer.learning_rate", "0.01"]
    command = ["train", recipe, "--device", "cpu", "--sample_prompt", "Tom", "--start_from", model, *parts]
    assert run(*command, "--blt.model", "none", "--entropy", "none", "--patching.mean_patch_bytes", "4") == 0
    said = capsys.readouterr().err
    assert "trained: global_transformer from step 4 at 0.1 × the learning rate" in said
    trained = ByteLM.from_pretrained(tmp_path / "run" / "model")
    assert trained.blt.config == start.blt.config
    moved = [
        not torch.equal(before, after)
        for before, after in zip(
            start.blt.global_transformer.parameters(), trained.blt.global_transformer.parameters(), strict=True
        )
    ]
    assert all(moved)

    text = write_text(tmp_path / "text.txt", ["Tom ran home."])
    assert run("evaluate", "--data", text, "--model", tmp_path / "run" / "model", "--json", "--bootstrap", "0") == 0
    assert 3 < json.loads(capsys.readouterr().out)["bits_per_byte"] < 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.gguf", "--out", "x"], "nowhere.gguf: no such folder or file"),
        (["{checkpoint}", "--out", "{taken}"], "is there and is no model folder of blt"),
        (["{checkpoint}", "--out", "x", "--preset", "tinny"], "preset 'tinny' is none of tiny"),
        (["{checkpoint}", "--out", "x", "--local_decoder.layers", "2"], "local_decoder.layers: unknown key"),
        (["{checkpoint}", "--out", "x", "--global_transformer.dim", "8"], "the global transformer is that of"),
        (["{checkpoint}", "--out", "x", "--entropy", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(checkpoint, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    given = [argument.format(checkpoint=checkpoint, taken=tmp_path / "taken") for argument in arguments]
    assert run("byteify", *given) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
