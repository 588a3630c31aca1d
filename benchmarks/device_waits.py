"""How often the host waits for a GPU, and what it copies: per training step, and per byte written, before and after.

    python benchmarks/device_waits.py --before COMMIT --out benchmarks/records/device-waits.json

Counted with the stand-in for a GPU of the tests, which computes on the CPU: counts do not depend on the hardware. What
`before` gives is counted by the same script with the code of that commit.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from record import write_record  # noqa: E402
from rich.console import Console  # noqa: E402

import blt.generation as generation  # noqa: E402
import blt.lm  # noqa: E402
from blt.api import ByteLM  # noqa: E402
from blt.data import EntropyStore, Shards, Windows  # noqa: E402
from blt.distributed import World  # noqa: E402
from blt.model import BLT  # noqa: E402
from blt.patching import EntropyRule  # noqa: E402
from blt.training.checkpoints import Checkpoints  # noqa: E402
from blt.training.loop import Trainer  # noqa: E402
from blt.training.monitor import Monitor  # noqa: E402
from blt.training.objectives import BLTObjective  # noqa: E402
from blt.training.optimizers import AdamWConfig, MuonConfig  # noqa: E402
from blt.training.recipe import LoopConfig  # noqa: E402
from cuda_stand_in import CudaStandIn  # noqa: E402
from tiny_config import TINY_CONFIG  # noqa: E402

CLAIM = (
    "A training step waits for the GPU for nothing but a row of metrics; a byte, of all rows together, costs one wait"
)
LOG_EVERY = 4
TEXT = b"Tom had a red ball. The dog saw it and ran home. "


def training(optimizer: AdamWConfig | MuonConfig, *, sparse: bool) -> dict[str, Any]:
    """Count over one row of metrics, its first optimiser steps left out."""
    with tempfile.TemporaryDirectory() as folder, CudaStandIn() as gpu:
        torch.manual_seed(0)
        module = BLT(TINY_CONFIG.blt)
        module.hash_embedding.sparse_gradients = sparse
        shards = Shards.from_documents([TEXT * 2] * 8)
        store = EntropyStore(np.random.default_rng(0).uniform(0, 2, shards.num_ids).astype(np.float32))
        config = LoopConfig(
            num_steps=3 * LOG_EVERY,
            batch_size=4,
            sequence_length=24,
            log_every=LOG_EVERY,
            precision="float32",
            optimizer=optimizer,
        )
        trainer = Trainer(
            objective=BLTObjective(module.to("cuda"), rule=EntropyRule(threshold=1.0), slots_multiple=8),
            windows=Windows(shards, sequence_length=24, seed=0, entropies=store),
            config=config,
            validate=lambda _: 1.0,
            checkpoints=Checkpoints(Path(folder, "checkpoints")),
            monitor=Monitor(Path(folder), stage="blt", config=config, console=Console(quiet=True)),
            device=torch.device("cuda"),
            world=World(),
            asked_to_stop=lambda: False,
        )
        found, step = [], trainer.step

        def counted() -> None:
            gpu.reset()
            step()
            found.append(gpu.counts())

        trainer.step = counted  # type: ignore[method-assign]
        trainer.run()
    between, at_row = found[LOG_EVERY], found[2 * LOG_EVERY - 1]
    return {"per step": between, "per step with a row of metrics": at_row}


def writing(*, rows: int = 4, drafts: str | None = None, **static: Any) -> dict[str, float]:
    """Count per byte written, of all rows together: a drafted pass writes several."""
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG).eval()
    options: dict[str, Any] = {}
    if static:
        options["static"] = blt.lm.StaticConfig(num_rows=rows, max_patches=64, backend=None, **static)
    if drafts is not None:
        options["drafter"] = generation.Drafter(generation.DraftConfig(by=drafts))
    with CudaStandIn() as gpu:
        engine = generation.Engine(lm.to("cuda"), **options)
        config = generation.GenerationConfig(max_new_bytes=17, temperature=0, valid_utf8=False)
        engine.add([generation.Request(TEXT[: 5 + number], config) for number in range(rows)])
        gpu.reset()
        passes = engine.num_passes
        while engine.step():
            pass
        passes = engine.num_passes - passes
        return {name: count / passes for name, count in gpu.counts().items()}


def joining() -> dict[str, int]:
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG).eval()
    with CudaStandIn() as gpu:
        engine = generation.Engine(lm.to("cuda"))
        gpu.reset()
        engine.add([generation.Request(TEXT, generation.GenerationConfig(max_new_bytes=4))])
        return gpu.counts()


def count() -> dict[str, Any]:
    found: dict[str, Any] = {"training": {}, "writing, per pass of all rows": {}, "a prompt that joins": joining()}
    for name, optimizer in (("adamw", AdamWConfig()), ("muon", MuonConfig())):
        for sparse in (False, True):
            kind = f"{name}, sparse n-gram gradients" if sparse else name
            found["training"][kind] = training(optimizer, sparse=sparse)
    ways: dict[str, dict[str, Any]] = {"steps": {}, "drafts of the decoder": {"drafts": "decoder"}}
    if hasattr(blt.lm, "StaticConfig"):
        ways |= {"static steps": {"skips_global": False}, "static steps that skip": {"skips_global": True}}
    for name, options in ways.items():
        found["writing, per pass of all rows"][name] = writing(**options)
    return found


def count_at(commit: str) -> dict[str, Any]:
    """Count with the code of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        environment = os.environ | {"PYTHONPATH": str(Path(folder, "src"))}
        command = [sys.executable, __file__, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.option("--before", metavar="COMMIT", help="Count with the code of this commit as well.")
@click.option("--json", "as_json", is_flag=True, help="Print what was counted, and no more.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(before: str | None, as_json: bool, out: Path | None) -> None:
    """Count, and show what was counted."""
    torch.set_num_threads(1)
    results = {"after": count()}
    if as_json:
        click.echo(json.dumps(results["after"]))
        return
    if before is not None:
        results = {"before": {"commit": before} | count_at(before)} | results
    click.echo(json.dumps(results, indent=2))
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
