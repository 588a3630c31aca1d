"""Stage 2: a small causal byte language model, whose entropies show where the next byte is hard to predict.

In: byte ids `B T`. Out: next-byte entropies `B T`, in nats over all 260 ids. Next: `blt.patching`.
"""

from blt.entropy.incremental import EntropyState
from blt.entropy.model import EntropyConfig, EntropyModel, entropy_of

__all__ = ["EntropyConfig", "EntropyModel", "EntropyState", "entropy_of"]
