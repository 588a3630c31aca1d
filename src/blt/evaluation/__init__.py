"""Evaluation: bits per byte of a `ByteLM` on documents, under a named protocol.

In: a `ByteLM` and documents. Out: `Evaluation`; `Certification`, which was coded and decoded again; or `Noise`, what
perturbed text costs. Next: `blt.training`, which watches it, and `blt evaluate`.
"""

from blt.evaluation.certified import CONDITIONS, Certification, certify
from blt.evaluation.entropies import compute_entropies
from blt.evaluation.evaluate import PROTOCOLS, Evaluation, Protocol, evaluate
from blt.evaluation.noise import Noise, measure_noise
from blt.evaluation.rows import WINDOW

__all__ = [
    "CONDITIONS",
    "PROTOCOLS",
    "WINDOW",
    "Certification",
    "Evaluation",
    "Noise",
    "Protocol",
    "certify",
    "compute_entropies",
    "evaluate",
    "measure_noise",
]
