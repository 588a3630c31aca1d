"""A model whose figures are no numbers: every command refuses it with one line and status 2."""

import json
import math

import pytest
import torch

from blt.api import ByteLM
from blt.cli import main
from transformers_models import our_lm, ours

TEXT = "Tom had a red ball. " * 4
COMMANDS = {
    "evaluate": ["evaluate", "--data", "DATA", "--model", "MODEL"],
    "evaluate windows": ["evaluate", "--data", "DATA", "--model", "MODEL", "--protocol", "windows", "--json"],
    "patch": ["patch", "Tom", "--json", "--model", "MODEL"],
    "convert": ["convert", "MODEL", "--out", "OUT"],
    "verify": ["verify", "MODEL"],
    "calibrate": ["calibrate", "--data", "DATA", "--model", "MODEL", "--mean-patch", "2"],
    "generate": ["generate", "--prompt", "Tom", "--model", "MODEL", "--max-new", "3"],
    "generate greedily": ["generate", "--prompt", "Tom", "--model", "MODEL", "--temperature", "0"],
    "decode": ["bench", "--model", "MODEL", "--bytes", "8", "--repeats", "1"],
    "draft": ["bench", "--model", "MODEL", "--bytes", "8", "--draft", "decoder"],
    "prefill": ["bench", "--model", "MODEL", "--what", "prefill", "--bytes", "64", "--repeats", "1"],
    "train": ["bench", "--model", "MODEL", "--what", "train", "--bytes", "64", "--repeats", "1"],
}
ONLY_ENTROPIES = {"patch", "calibrate"}


def run(arguments, *, model, folder):
    (folder / "text.txt").write_text(TEXT)
    given = {"MODEL": str(model), "DATA": str(folder / "text.txt"), "OUT": str(folder / "out")}
    with pytest.raises(SystemExit) as stop:
        main([given.get(argument, argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize(
    ("part", "name"),
    [
        *(("entropy_model.norm", name) for name in COMMANDS),
        *(("blt.local_decoder.norm", name) for name in COMMANDS if name not in ONLY_ENTROPIES),
    ],
)
def test_weights_that_are_no_numbers_are_one_line(tiny_lm, tmp_path, capsys, name, part):
    with torch.no_grad():
        tiny_lm.get_submodule(part).weight[0] = math.nan
    tiny_lm.save_pretrained(tmp_path / "model")
    assert run(COMMANDS[name], model=tmp_path / "model", folder=tmp_path) == 2
    shown = capsys.readouterr()
    assert "NaN" not in shown.out
    (said,) = (line for line in shown.err.splitlines() if "compiling" not in line)
    assert said.startswith("blt: ")
    assert "finite" in said or "logit nan" in said
    assert not (tmp_path / "out").exists()


def test_a_model_in_bfloat16_is_compared_in_float32_when_it_is_converted(tmp_path, capsys):
    lm = our_lm(ours())
    lm.save_pretrained(tmp_path / "model", dtype="bfloat16")
    assert run(["convert", "MODEL", "--out", "OUT"], model=tmp_path / "model", folder=tmp_path) == 0
    found = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("read back"))
    assert "the same patches" in found
    assert float(found.partition("at most ")[2].partition(",")[0]) < 1e-3
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert ByteLM.from_pretrained(tmp_path / "model", dtype="bfloat16").blt.output is None
