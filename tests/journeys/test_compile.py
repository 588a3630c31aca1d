"""`blt.loop.compile`, run apart: compiled functions and the hook that checks shapes do not go together."""

import json
import shutil
import subprocess
import sys

import pytest

from blt.ops.native.build import load
from tiny_training import write_recipe

PROGRAM = """
import json, sys
from contextlib import nullcontext
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from blt.model import LocalConfig
from blt.nn import Transformer, TransformerConfig, RowInputs
from blt.ops import only_references
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
        # as wide as native kernels take, so that compiled code calls them
        "blt.model.local_encoder": {"dim": 32, "num_layers": 1, "num_heads": 2, "window": 8},
        "blt.model.local_decoder": {"dim": 32, "num_layers": 1, "num_heads": 2, "window": 8},
        "blt.model.global_transformer": {"dim": 64, "num_layers": 1, "num_heads": 2},
    }
    run_recipe(load_recipe(sys.argv[1], overrides=overrides))
    rows = read_metrics(Path(sys.argv[2], compiled, "blt", "metrics.jsonl"))
    found[compiled] = [row["bits_per_byte"] for row in rows if "bits_per_byte" in row]
    found[f"graphs {compiled}"] = counters["stats"]["unique_graphs"]
found["breaks"] = len(counters["graph_break"])

def called(within):
    # The operators of ours that a stack calls, whose layers are captured as one graph.
    names, seen = set(), torch.arange(20)[None]
    def note(graph, inputs):
        names.update(str(node.target) for node in graph.graph.nodes if "blt" in str(node.target))
        return graph.forward
    local = Transformer(LocalConfig(dim=32, num_layers=2, num_heads=2, window=8), theta=100.0)
    whole = Transformer(TransformerConfig(dim=32, num_layers=2, num_heads=2), theta=100.0)
    states = torch.randn(1, 20, 32)
    def run(states):
        inputs = RowInputs(torch.zeros_like(seen), seen)
        return whole(local(states, inputs), inputs)
    with within():
        torch._dynamo.reset()
        compiled = torch.compile(run, backend=note, fullgraph=True)(states)
        torch.testing.assert_close(compiled, run(states), rtol=1e-4, atol=1e-5)
    return sorted(names)

found["kernels called"] = called(nullcontext)
found["kernels called by references"] = called(only_references)
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
    assert found["breaks"] == 0
    assert found["kernels called"] == ([] if load("training") is None else ["blt.attend_to_runs.default"])
    assert found["kernels called by references"] == []
