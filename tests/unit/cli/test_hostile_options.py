"""Every option of every verb, given what nobody should: a use of it, or a refusal in one line."""

import importlib
import io
import shutil
import sys

import click
import pytest
import torch

from blt import cli
from blt.api import ByteLM
from blt.compression import compress
from blt.generation.speed import Limits
from tiny_config import TINY_CONFIG

TEXT = "Tom had a ball.\n<|endoftext|>\nLily saw a dog. The dog was big.\n"
HOSTILE = {
    "NaN": "nan",
    "infinity": "inf",
    "minus infinity": "-inf",
    "beyond float64": "1e400",
    "minus one": "-1",
    "zero": "0",
    "beyond int64": "1" + "0" * 21,
    "nothing": "",
    "NUL": "\0",
    "the root": "/",
    "a missing file": "missing/file",
    "a name that is too long": "x" * 5000,
    "no UTF-8": "\udcff\udc80",
    "meta": "meta",
    "no such device": "cuda:99",
    "a folder": "folder",
    "a model": "model",
    "a text": "stories.txt",
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A folder with a tiny model, a text and what else the verbs need."""
    top = tmp_path_factory.mktemp("hostile")
    (top / "folder").mkdir()
    (top / "stories.txt").write_text(TEXT)
    lm = ByteLM.new(TINY_CONFIG).eval()
    lm.save_pretrained(top / "model")
    (top / "stories.txt.blt").write_bytes(compress(lm.to_type("int8"), TEXT.encode() * 2, learn=True))
    return top


@pytest.fixture
def place(ready, tmp_path, monkeypatch):
    shutil.copytree(ready, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    return tmp_path


BASE = {
    "doctor": ["--json"],
    "generate": ["--prompt", "Tom", "--max-new", "3", "--model", "model"],
    "prepare": ["stories.txt", "--out", "prepared"],
    "train": ["recipe.toml"],
    "evaluate": ["--data", "stories.txt", "--model", "model", "--bootstrap", "10"],
    "probe": ["--data", "stories.txt", "--model", "model", "--rows", "1", "--shots", "1", "--task", "spell"],
    "compress": ["stories.txt", "--output", "out.blt", "--model", "model"],
    "decompress": ["stories.txt.blt", "--output", "out.txt", "--model", "model"],
    "bench": ["--bytes", "8", "--repeats", "1", "--model", "model"],
    "patch": ["a text", "--model", "model"],
    "plot": ["a text", "--out", "out.png", "--model", "model"],
    "verify": ["model"],
    "calibrate": ["--data", "stories.txt", "--mean-patch", "3", "--model", "model"],
    "convert": ["model", "--out", "converted"],
    "byteify": ["model", "--out", "made"],
    "plan": ["--preset", "tiny"],
    "serve": ["--port", "0", "--model", "model"],
}
"""What each verb is given beside the option that is tried."""


def parameters():
    return [
        pytest.param(verb, parameter, id=f"{verb} {parameter.opts[-1]}")
        for verb in cli.VERBS
        for parameter in getattr(importlib.import_module(f"blt.cli.{verb}"), verb).params
    ]


def arguments_with(verb, parameter, value):
    base = list(BASE[verb])
    if isinstance(parameter, click.Argument):
        return [*base[1:], "--", value] if not base[0].startswith("-") else [*base, "--", value]
    if is_flag(parameter):
        return [*base, *({parameter.opts[0]} - set(base))]
    name = parameter.opts[0]
    while name in base:  # the value that is tried takes the place of the usual one
        where = base.index(name)
        del base[where : where + 2]
    if verb == "plan" and name == "--model":
        base = []
    return [*base, f"{name}={value}"]


def is_flag(parameter):
    return isinstance(parameter, click.Option) and parameter.is_flag


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return stopped.value.code, capfd.readouterr()


def laws(lm, *, text, seed):
    """Try what reads the options, and none of the laws."""
    lm.patch((text or b"")[:100])
    torch.manual_seed(seed)
    return []


@pytest.fixture
def quick(monkeypatch):
    """Verbs that measure a machine, a law or a checkpoint for seconds: less of it."""
    from blt.cli import bench

    limits = Limits(bytes_read_per_second=1e9, flops_per_second=1e9)
    monkeypatch.setattr(bench, "measure_limits", lambda *args, **options: limits)
    monkeypatch.setattr(bench, "measure_limits_of", lambda lm: limits)
    monkeypatch.setattr(importlib.import_module("blt.cli.verify"), "verify_lm", laws)
    monkeypatch.setattr("blt.lm.static_decoding.StaticDecoding._compiled", lambda self, function: function)
    monkeypatch.setattr("blt.serving.server.Server.run", lambda server, sockets: None)  # else it serves on
    monkeypatch.setattr("blt.cli.serve.sys.setswitchinterval", lambda seconds: None)


@pytest.mark.parametrize(("verb", "parameter"), parameters())
def test_whatever_an_option_is_given_it_is_used_or_refused_in_one_line(verb, parameter, place, capfd, quick):
    values = [""] if is_flag(parameter) else list(HOSTILE.values())
    if (verb, parameter.name) == ("prepare", "inputs"):
        values[values.index("/")] = "/dev"  # is used: of the root, every file of the machine would be looked at
    for value in values:
        status, shown = run(capfd, verb, *arguments_with(verb, parameter, value))
        assert status in (0, 2), value
        if status == 2:
            errors = [line for line in shown.err.splitlines() if line.startswith(("blt: ", "Error: "))]
            assert len(errors) == 1, (value, shown.err)
            assert errors[0].isprintable(), value


def test_every_verb_has_its_base():
    assert set(BASE) == set(cli.VERBS)
