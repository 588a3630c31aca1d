"""`blt.loop.compile`, run apart: compiled functions and the hook that checks shapes do not go together."""

import json
import shutil
import subprocess
import sys

import pytest

from tiny_training import write_recipe

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from blt.training import load_recipe, run_recipe
from blt.training.monitor import read_metrics

torch.set_num_threads(1)
found = {}
for compiled in ("false", "true"):
    overrides = {
        "entropy": "none", "patching": {"rule": {"type": "static", "length": 4}}, "device": "cpu", "sample_prompt": "",
        "out": f"{sys.argv[2]}/{compiled}", "blt.loop.compile": compiled, "blt.loop.num_steps": "3",
        "blt.loop.batch_size": "2", "blt.loop.slots_multiple": "32", "blt.loop.validate_every": "9",
        "blt.loop.checkpoint_every": "9",
    }
    run_recipe(load_recipe(sys.argv[1], overrides=overrides))
    rows = read_metrics(Path(sys.argv[2], compiled, "blt", "metrics.jsonl"))
    found[compiled] = [row["bits_per_byte"] for row in rows if "bits_per_byte" in row]
    found[f"graphs {compiled}"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
print(json.dumps(found))
"""


@pytest.mark.timeout(900)
def test_compiled_parts_give_the_losses_of_those_that_are_not(tmp_path):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no compiler here")
    recipe = write_recipe(tmp_path)
    command = [sys.executable, "-c", PROGRAM, str(recipe), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["false"]) == 3
    assert found["true"] == pytest.approx(found["false"], rel=1e-3)
    assert found["graphs false"] == 0
    assert found["graphs true"] >= 3  # encoder, global transformer and decoder
