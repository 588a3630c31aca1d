"""Training runs of one stage that are as small as can be, and their losses: what the laws of training compare."""

from dataclasses import replace

import numpy as np
import torch
from rich.console import Console

from blt.data import EntropyStore, Shards, Windows
from blt.distributed import World
from blt.entropy import EntropyConfig, EntropyModel
from blt.model import BLT, BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import EntropyRule
from blt.training.checkpoints import Checkpoints
from blt.training.loop import Trainer
from blt.training.monitor import Monitor, read_metrics
from blt.training.objectives import BLTObjective, EntropyObjective
from blt.training.optimizers import AdamWConfig, MuonConfig
from blt.training.parts import PartConfig, PartsConfig
from blt.training.recipe import LoopConfig
from blt.training.schedules import CosineConfig
from tiny_training import made_up_documents

NUM_STEPS = 6
LOCAL = LocalConfig(dim=16, num_layers=1, num_heads=2, window=8)
BLT_CONFIG = BLTConfig(
    local_encoder=LOCAL,
    local_decoder=LOCAL,
    global_transformer=TransformerConfig(dim=24, num_layers=1, num_heads=2),
    hash_embedding=HashConfig(ngram_sizes=(3,), num_rows=32),
    queries_per_patch=2,
)
WIDE_LOCAL = LocalConfig(dim=64, num_layers=1, num_heads=2, window=8)
SHAPES = {
    "blt": BLT_CONFIG,
    "wide blt": replace(  # wide enough for the fused functions
        BLT_CONFIG,
        local_encoder=WIDE_LOCAL,
        local_decoder=WIDE_LOCAL,
        global_transformer=TransformerConfig(dim=96, num_layers=2, num_heads=3),
    ),
    "uneven blt": replace(  # widths that 4 ranks do not divide
        BLT_CONFIG,
        local_encoder=LocalConfig(dim=30, num_layers=1, num_heads=1, window=8),
        local_decoder=LocalConfig(dim=30, num_layers=1, num_heads=1, window=8),
        global_transformer=TransformerConfig(dim=42, num_layers=2, num_heads=3),
    ),
}
THAWING = PartsConfig(
    local_encoder=PartConfig(learning_rate_factor=0.0),
    global_transformer=PartConfig(learning_rate_factor=0.5, frozen_steps=2),
)
OPTIMIZERS = {"adamw": AdamWConfig(learning_rate=3e-3), "muon": MuonConfig()}


def new_trainer(
    folder,
    *,
    stage,
    optimizer="adamw",
    accumulation=1,
    parts=None,
    stop_after=None,
    world=None,
    loop=None,
    reading=None,
):
    """Everything new, as in a new process, but for what lies in `folder`.

    `loop` sets more fields of the loop, and `reading` of the windows.
    """
    world = world or World()
    torch.manual_seed(0)
    shards = Shards.from_documents([document.encode() for document in made_up_documents()])
    if stage == "entropy":
        entropies = None
        objective = EntropyObjective(EntropyModel(EntropyConfig(dim=16, num_layers=1, num_heads=2, window=8)))
    else:
        entropies = EntropyStore(np.random.default_rng(0).uniform(0, 5, shards.num_ids).astype(np.float32))
        blt = BLT(SHAPES[stage.removeprefix("sparse ").removeprefix("dropping ")])
        blt.hash_embedding.sparse_gradients = stage.startswith("sparse ")
        if stage.startswith("dropping "):
            blt.set_dropout(layers=0.2, ngrams=0.3)
        objective = BLTObjective(blt, rule=EntropyRule(threshold=3.0), slots_multiple=1)
    fields = {"precision": "float32", "checkpoint_every": 2} | (loop or {})
    config = LoopConfig(
        num_steps=NUM_STEPS,
        batch_size=4,
        sequence_length=40,
        accumulation=accumulation,
        optimizer=OPTIMIZERS[optimizer],
        schedule=CosineConfig(warmup_steps=2),
        log_every=1,
        **fields,
    )
    trainer = Trainer(
        objective=objective,
        windows=Windows(shards, sequence_length=config.sequence_length, seed=0, entropies=entropies, **(reading or {})),
        config=config,
        validate=lambda step: 8.0 - step,
        checkpoints=Checkpoints(folder / "checkpoints"),
        monitor=Monitor(folder, stage=stage, config=config, console=Console(quiet=True), is_main=world.is_main),
        device=torch.device("cpu"),
        world=world,
        asked_to_stop=lambda: trainer.progress.step == stop_after,
        parts=parts,
    )
    return trainer


def losses(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["step"], row["bits_per_byte"], row["gradient_norm"]) for row in rows if "gradient_norm" in row]
