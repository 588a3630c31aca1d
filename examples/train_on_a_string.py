"""Train a BLT on a string, and save it: the library's parts, joined by hand. Real runs use `blt train`.

Patches end where words end (the rule of SpaceByte), so that no entropy model is needed.
"""

import argparse

import torch

from blt import BLT, ByteLM
from blt.data import Shards, Windows
from blt.model import BLTConfig, LocalConfig, TransformerConfig
from blt.patching import SpaceRule
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, build_optimizers

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--out", help="folder to save the model in")
options = parser.parse_args()

torch.manual_seed(0)
local = LocalConfig(dim=64, num_layers=1, num_heads=4, window=32)
shape = BLTConfig(
    local_encoder=local, global_transformer=TransformerConfig(dim=128, num_layers=2, num_heads=4), local_decoder=local
)
lm = ByteLM(BLT(shape), patch_rule=SpaceRule())
windows = Windows(Shards.from_documents([b"Tom had a red ball. The ball was red. " * 20]), sequence_length=128, seed=0)
objective = BLTObjective(lm.blt, rule=lm.patch_rule, slots_multiple=1)
(optimizer,) = build_optimizers(lm.blt, AdamWConfig(learning_rate=3e-3))

for step in range(options.steps):
    batch = windows.batch(step, rows=4)
    loss = objective.loss_sum(batch) / (batch.targets >= 0).sum()  # nats per byte
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0 or step == options.steps - 1:
        print(f"step {step + 1}: {float(loss.detach()):.3f} nats per byte")

print(lm.eval().generate("Tom had", max_new_bytes=40, temperature=0.0).text)
if options.out:
    lm.save_pretrained(options.out)
