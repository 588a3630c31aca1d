"""Evaluation: bits per byte of a `ByteLM` on documents, under a named protocol.

In: a `ByteLM` and documents. Out: `Evaluation`; `Certification`, which was coded and decoded again; `Noise`, what
perturbed text costs; or `Probe`, what is known of characters. Next: `blt.training`, which watches it, and the verbs
`blt evaluate` and `blt probe`.
"""

from blt.evaluation.certified import CONDITIONS, Certification, certify
from blt.evaluation.entropies import compute_entropies
from blt.evaluation.evaluate import PROTOCOLS, Evaluation, Protocol, evaluate
from blt.evaluation.noise import Noise, measure_noise
from blt.evaluation.probe import Probe, cute_rows, probe, word_rows
from blt.evaluation.rows import WINDOW
from blt.evaluation.scripts import ScriptFigures, by_script, script_of

__all__ = [
    "CONDITIONS",
    "PROTOCOLS",
    "WINDOW",
    "Certification",
    "Evaluation",
    "Noise",
    "Probe",
    "Protocol",
    "ScriptFigures",
    "by_script",
    "certify",
    "compute_entropies",
    "cute_rows",
    "evaluate",
    "measure_noise",
    "probe",
    "script_of",
    "word_rows",
]
