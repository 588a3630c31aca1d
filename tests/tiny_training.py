"""A made-up corpus and the smallest recipe that trains on it, for every test that trains."""

import random
import re
from pathlib import Path

from blt.data import PrepareConfig, prepare
from blt.training import load_recipe

WORDS = re.findall(r"\S+", "the a red ball dog cat ran sat on mat tom saw big sun and then they went home to eat café")

RECIPE = """
out = "{root}/run"
[data]
train = "{root}/data"
validation_documents = 4
[entropy.model]
dim = 16
num_layers = 1
num_heads = 2
window = 8
[entropy.loop]
num_steps = 6
batch_size = 4
sequence_length = 48
validate_every = 4
checkpoint_every = 2
log_every = 1
precision = "float32"
[patching]
mean_patch_bytes = 3.0
[blt.model]
queries_per_patch = 2
local_encoder = {{ dim = 16, num_layers = 1, num_heads = 2, window = 8 }}
local_decoder = {{ dim = 16, num_layers = 1, num_heads = 2, window = 8 }}
global_transformer = {{ dim = 24, num_layers = 1, num_heads = 2 }}
hash_embedding = {{ ngram_sizes = [3, 4], num_rows = 32 }}
[blt.loop]
num_steps = 6
batch_size = 4
sequence_length = 48
validate_every = 4
checkpoint_every = 2
log_every = 1
precision = "float32"
"""


def made_up_documents(count=30, *, seed=0, max_words=40):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, max_words))) + "." for _ in range(count)]


def write_text(path, documents):
    path.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    return path


def write_recipe(root: Path, *, documents=None, validation=0.2):
    """Prepare a corpus in `root` and write a recipe that trains on it there."""
    text = write_text(root / "stories.txt", documents or made_up_documents())
    prepare(PrepareConfig(inputs=(str(text),), out=str(root / "data"), validation=validation))
    path = root / "recipe.toml"
    path.write_text(RECIPE.format(root=root), encoding="utf-8")
    return path


def tiny_recipe(root: Path, overrides=None, **options):
    """The same, read."""
    return load_recipe(write_recipe(root, **options), overrides=overrides)
