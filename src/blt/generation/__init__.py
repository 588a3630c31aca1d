"""Continuing a text: sampling, stop strings, streaming.

In: a `ByteLM` and prompts, any bytes. Out: `Generation`, or text piece by piece. Next: `blt.serving`, `blt.cli`.

The continuation of a row depends on its prompt, its options and its seed only, never on the rows beside it.
"""

from blt.generation.generate import Generation, GenerationConfig, GenerationOptions, generate, generate_batch, stream
from blt.generation.logprobs import Alternative, ByteLogprob
from blt.generation.sampling import Sampler, SamplingConfig
from blt.generation.stopping import StopWatch

__all__ = [
    "Alternative",
    "ByteLogprob",
    "Generation",
    "GenerationConfig",
    "GenerationOptions",
    "Sampler",
    "SamplingConfig",
    "StopWatch",
    "generate",
    "generate_batch",
    "stream",
]
