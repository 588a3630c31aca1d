"""The option --static of the command line on a GPU: what is written is the same, and what cannot be is refused."""

import json

import pytest

import blt.cli.bench
from blt.cli import main
from blt.generation.speed import Limits
from blt.lm.static_decoding import StaticDecoding

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch):
    monkeypatch.setattr(StaticDecoding, "_compiled", lambda self, function: function)


def run(capsys, *arguments, status=0):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert stop.value.code == status, shown.err
    return shown


@pytest.mark.parametrize("shown_as", [["--json"], ["--raw"]])
def test_generate_writes_the_same_by_static_steps(tiny_folder, device, capsys, monkeypatch, shown_as):
    steps = []
    honest = StaticDecoding._step
    monkeypatch.setattr(StaticDecoding, "_step", lambda self, ids: steps.append(len(ids)) or honest(self, ids))
    command = ["generate", "--model", tiny_folder, "--prompt", "Tom", "--max-new", 6, "--seed", 1, *shown_as]
    expected = run(capsys, *command, "--device", "cpu").out
    assert not steps
    assert run(capsys, *command, "--device", device, "--static").out == expected
    assert steps == [1] * len(steps)
    assert len(steps) >= 5


def test_bench_measures_static_steps(tiny_folder, device, capsys, monkeypatch):
    limits = Limits(bytes_read_per_second=1e15, flops_per_second=1e18)
    monkeypatch.setattr(blt.cli.bench, "measure_limits", lambda *_, **__: limits)
    options = ["--bytes", 8, "--repeats", 1, "--batch", 2, "--device", device, "--static", "--json"]
    found = json.loads(run(capsys, "bench", "--model", tiny_folder, *options).out)
    assert found["decoded_by"] == "PyTorch, static steps"
    assert found["bytes_per_second"] > 0


@pytest.mark.parametrize(("options", "reason"), [
    (["--draft", "entropy"], "--static: a static step reads one byte; leave --draft out"),
    (["--what", "prefill"], "--static: only --what decode writes"),
])  # fmt: skip
def test_static_steps_are_refused_where_they_cannot_be(tiny_folder, device, capsys, options, reason):
    shown = run(capsys, "bench", "--model", tiny_folder, "--device", device, "--static", *options, status=2)
    assert reason in shown.err
    assert len(shown.err.strip().splitlines()) == 1
