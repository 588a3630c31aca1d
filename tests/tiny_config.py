"""The shape of the smallest model that the tests read, train and generate with."""

from blt.entropy import EntropyConfig
from blt.lm import LMConfig
from blt.model import BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import EntropyRule

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
