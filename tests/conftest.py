import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from blt.entropy import EntropyConfig
from blt.lm import ByteLM, LMConfig
from blt.model import BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import EntropyRule

sys.path.insert(0, str(Path(__file__).parent))  # for what several folders of tests share

torch.set_num_threads(1)  # tiny models gain nothing from more, and two cores may be shared


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


TINY_CONFIG = LMConfig(
    blt=BLTConfig(
        local_encoder=LocalConfig(dim=16, num_layers=1, num_heads=2, window=8),
        global_transformer=TransformerConfig(dim=24, num_layers=2, num_heads=2),
        local_decoder=LocalConfig(dim=16, num_layers=2, num_heads=2, window=8),
        hash_embedding=HashConfig(ngram_sizes=(3, 4), num_rows=32),
        queries_per_patch=2,
    ),
    entropy_model=EntropyConfig(dim=16, num_layers=2, num_heads=2, window=6),
    patch_rule=EntropyRule(threshold=5.11),
)


@pytest.fixture
def tiny_lm():
    """A model with new weights whose patches have very different lengths."""
    torch.manual_seed(1)
    return ByteLM.new(TINY_CONFIG).eval()


@pytest.fixture
def tiny_folder(tiny_lm, tmp_path):
    """The folder of `tiny_lm`."""
    tiny_lm.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"
