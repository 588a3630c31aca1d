"""Continuing a text: sampling, stop strings, streaming.

In: a `LanguageModel` and prompts, any bytes. Out: `Generation`, or text piece by piece. Next: `blt.serving`, `blt.cli`.

The continuation of a row depends on its prompt, its options and its seed only, never on the rows beside it.
"""

from blt.generation.drafting import DraftConfig, Drafter
from blt.generation.engine import Engine
from blt.generation.generate import generate, generate_batch, stream, stream_bytes
from blt.generation.logprobs import Alternative, ByteLogprob
from blt.generation.request import Generation, GenerationConfig, GenerationOptions, Request
from blt.generation.sampling import Sampler, SamplingConfig
from blt.generation.stopping import StopWatch

__all__ = [
    "Alternative",
    "ByteLogprob",
    "DraftConfig",
    "Drafter",
    "Engine",
    "Generation",
    "GenerationConfig",
    "GenerationOptions",
    "Request",
    "Sampler",
    "SamplingConfig",
    "StopWatch",
    "generate",
    "generate_batch",
    "stream",
    "stream_bytes",
]
