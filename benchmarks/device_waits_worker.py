"""Counts waits and copies for `device_waits.py`, which names the code and the stand-in in PYTHONPATH; prints JSON."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import blt.generation as generation
import blt.lm
from blt.api import ByteLM
from blt.data import EntropyStore, Shards, Windows
from blt.distributed import World
from blt.model import BLT
from blt.patching import EntropyRule
from blt.training.checkpoints import Checkpoints
from blt.training.loop import Trainer
from blt.training.monitor import Monitor
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, MuonConfig
from blt.training.recipe import LoopConfig
from cuda_stand_in import CudaStandIn
from tiny_config import TINY_CONFIG

LOG_EVERY = 2
TEXT = b"Tom had a red ball. The dog saw it and ran home. "


def training(optimizer: AdamWConfig | MuonConfig, *, sparse: bool) -> dict[str, Any]:
    """Count in the steps of the second row of metrics: what is made once has been made by then."""
    with tempfile.TemporaryDirectory() as folder, CudaStandIn() as gpu:
        torch.manual_seed(0)
        module = BLT(TINY_CONFIG.blt)
        module.hash_embedding.sparse_gradients = sparse
        shards = Shards.from_documents([TEXT * 2] * 8)
        store = EntropyStore(np.random.default_rng(0).uniform(0, 2, shards.num_ids).astype(np.float32))
        config = LoopConfig(
            num_steps=2 * LOG_EVERY,
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


def writing(*, rows: int = 3, drafts: str | None = None, **static: Any) -> dict[str, float]:
    """Count per pass of the model, which writes a byte of every row; a drafted one may write several."""
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG).eval()
    options: dict[str, Any] = {}
    if static:
        options["static"] = blt.lm.StaticConfig(num_rows=rows, max_patches=64, backend=None, **static)
    if drafts is not None:
        options["drafter"] = generation.Drafter(generation.DraftConfig(by=drafts))
    with CudaStandIn() as gpu:
        engine = generation.Engine(lm.to("cuda"), **options)
        config = generation.GenerationConfig(max_new_bytes=9, temperature=0, valid_utf8=False)
        engine.add([generation.Request(TEXT[: 5 + number], config) for number in range(rows)])
        gpu.reset()
        passes = engine.num_passes
        while engine.step():
            pass
        passes = engine.num_passes - passes
        return {name: count / passes for name, count in gpu.counts().items()}


def joining() -> dict[str, int]:
    """Count while a prompt of many bytes is read."""
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(count()))
