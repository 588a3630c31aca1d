"""Named shapes."""

from blt.configuration import check
from blt.entropy import EntropyConfig
from blt.model.configuration import BLTConfig, HashConfig
from blt.nn import LocalConfig, TransformerConfig

PRESETS = {
    "tiny": BLTConfig(
        local_encoder=LocalConfig(dim=128, num_layers=1, num_heads=2, window=128),
        global_transformer=TransformerConfig(dim=384, num_layers=4, num_heads=6),
        local_decoder=LocalConfig(dim=128, num_layers=2, num_heads=2, window=128),
        decoder_cross_attention="first",
    ),
    "tinystories-55m": BLTConfig(
        local_encoder=LocalConfig(dim=256, num_layers=1, num_heads=4, window=128),
        global_transformer=TransformerConfig(dim=768, num_layers=6, num_heads=12),
        local_decoder=LocalConfig(dim=256, num_layers=4, num_heads=4, window=128),
    ),
    "blt-1b": BLTConfig(
        local_encoder=LocalConfig(dim=1024, num_layers=1, num_heads=16, window=512),
        global_transformer=TransformerConfig(dim=2048, num_layers=25, num_heads=16),
        local_decoder=LocalConfig(dim=1024, num_layers=9, num_heads=16, window=512),
        hash_embedding=HashConfig(num_rows=500002),
        queries_per_patch=2,
        tie_embeddings=False,
    ),
    "blt-8b": BLTConfig(
        local_encoder=LocalConfig(dim=1280, num_layers=1, num_heads=20, window=512),
        global_transformer=TransformerConfig(dim=4096, num_layers=32, num_heads=32),
        local_decoder=LocalConfig(dim=1280, num_layers=6, num_heads=20, window=512),
        hash_embedding=HashConfig(num_rows=500002),
        queries_per_patch=4,
        tie_embeddings=False,
    ),
}
"""`tiny` ships with the package; `tinystories-55m` is the reference run's; the others have the paper's shapes."""

_PAPERS_ENTROPY_MODEL = EntropyConfig(dim=512, num_layers=14, num_heads=8, window=512)
ENTROPY_PRESETS = {
    "tiny": EntropyConfig(dim=128, num_layers=2, num_heads=4, window=64),
    "tinystories-55m": EntropyConfig(dim=256, num_layers=2, num_heads=4, window=128),
    "blt-1b": _PAPERS_ENTROPY_MODEL,
    "blt-8b": _PAPERS_ENTROPY_MODEL,
}
"""Shape of the entropy model that goes with each preset."""


def preset(name: str) -> BLTConfig:
    """Return the shape of that name.

    Raises:
        ConfigurationError: no such preset.
    """
    check(name in PRESETS, f"preset {name!r} is none of {', '.join(PRESETS)}")
    return PRESETS[name]


def entropy_preset(name: str) -> EntropyConfig:
    """Return the shape of the entropy model that goes with the preset of that name.

    Raises:
        ConfigurationError: no such preset.
    """
    check(name in ENTROPY_PRESETS, f"preset {name!r} is none of {', '.join(ENTROPY_PRESETS)}")
    return ENTROPY_PRESETS[name]
