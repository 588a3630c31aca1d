import json

import pytest

from blt.api import ByteLM
from blt.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_model_goes_to_transformers_and_comes_back(tiny_folder, tmp_path, capsys):
    assert run("convert", tiny_folder, "--out", tmp_path / "theirs") == 0
    said = capsys.readouterr().out
    assert "for transformers" in said
    assert "the same patches" in said
    assert "note         local attention is windowed" in said
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["BltForCausalLM"]

    assert run("convert", tmp_path / "theirs", "--out", tmp_path / "back", "--to", "blt") == 0
    assert "the same patches, logits differ by at most 0," in capsys.readouterr().out
    text = "Once upon a time"
    assert ByteLM.from_pretrained(tmp_path / "back").score(text).bits_per_byte == pytest.approx(
        ByteLM.from_pretrained(tiny_folder).score(text).bits_per_byte, rel=1e-3
    )


def test_a_model_is_stored_in_fewer_bytes(tiny_folder, tmp_path, capsys):
    assert run("convert", tiny_folder, "--dtype", "int8", "--out", tmp_path / "small") == 0
    said = capsys.readouterr().out
    assert "for blt" in said
    assert "the same patches" in said
    assert json.loads((tmp_path / "small" / "config.json").read_text())["stored_as"] == "int8"
    assert run("generate", "--model", tmp_path / "small", "--dtype", "int8", "--max-new", "5", "--seed", "0") == 0
    assert run("convert", tmp_path / "small", "--dtype", "bf16", "--out", tmp_path / "back") == 0
    assert "stored_as" not in json.loads((tmp_path / "back" / "config.json").read_text())


def test_what_cannot_be_converted_is_one_line(tiny_folder, tmp_path, capsys):
    def refusal(*arguments):
        assert run("convert", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("blt: ")
        assert said.count("\n") == 1
        return said

    out = tmp_path / "out"
    assert "is in the form of blt already" in refusal(tiny_folder, "--out", out, "--to", "blt")
    assert "--dtype: int8 is for models of blt" in refusal(
        tiny_folder, "--out", out, "--to", "transformers", "--dtype", "int8"
    )
    assert "is what is read; give another name" in refusal(tiny_folder, "--out", tiny_folder)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    assert "pickled weights are never loaded" in refusal(tmp_path / "pytorch_model.bin", "--out", out)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    assert "is there and is no model folder" in refusal(tiny_folder, "--out", tmp_path / "photos")
    assert "config.json: no such file" in refusal(tmp_path / "photos", "--out", out)
    (tmp_path / "photos" / "config.json").write_text('{"model_type": "llama"}')
    assert "model_type 'llama'" in refusal(tmp_path / "photos", "--out", out)
    assert not out.exists()
