"""What noise costs each side: `blt evaluate --noise` on the tuned models of the fight on TinyStories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blt.evaluation import measure_noise
from blt.evaluation.continuations import ByteScorer, Pair

from .kept import blt_model, largest, plain_model
from .plan import Results
from .sides import SIDES, PlainTransformer
from .texts import STORIES
from .tokens import BPE, byte_ids
from .training import Prepared, bits_by_document, plain_loss


@dataclass(frozen=True)
class PlainScorer:
    """A plain Transformer as a `Scorer`. On BPE a prompt and its continuation are segmented each by itself."""

    module: PlainTransformer
    bpe: BPE | None

    def logprobs(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the natural logarithm of the probability of each continuation's ids."""
        encode = byte_ids if self.bpe is None else self.bpe.encode
        starts = {prompt: encode(prompt)[:-1] for prompt, _ in pairs}
        whole = [np.concatenate([starts[prompt], encode(rest)[1:-1]]) for prompt, rest in pairs]
        of_start = dict(zip(starts, self._bits(list(starts.values())), strict=True))
        bits = [float(found - of_start[prompt]) for found, (prompt, _) in zip(self._bits(whole), pairs, strict=True)]
        return [-math.log(2) * each for each in bits]

    def _bits(self, documents: list[NDArray[np.int64]]) -> NDArray[np.float64]:
        return bits_by_document(plain_loss(self.module), documents)


def noise(results: Results, prepared: Prepared, work: Path) -> dict[str, Any] | None:
    """Return what each side loses; None while no budget has all sides, or where their models are not kept."""
    jobs = largest(STORIES, SIDES, results, work)
    if jobs is None:
        return None
    by_side = {}
    for side, job in jobs.items():
        scorer = ByteScorer(blt_model(job, work)) if side == "blt" else PlainScorer(*plain_model(job, prepared, work))
        by_side[side] = measure_noise(scorer, prepared.corpus.test.pieces).to_dict()
    return {"budget": jobs["blt"].budget, "by_side": by_side}
