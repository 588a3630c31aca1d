"""The tuned models that runs have kept, for what is measured on them after the fight."""

from collections.abc import Sequence
from pathlib import Path

import torch

from blt.api import ByteLM

from .plan import BUDGETS, Job, Results, finals
from .sides import PlainTransformer, SideName
from .tokens import BPE
from .training import Prepared, side_of


def largest(corpus: str, sides: Sequence[SideName], results: Results, work: Path) -> dict[SideName, Job] | None:
    """Return the jobs of the largest budget that all sides have finished, and whose models are kept."""
    for budget in reversed(range(len(BUDGETS))):
        tuned = finals(corpus, results, budget=budget)
        jobs = {side: tuned[side] for side in sides if side in tuned}
        finished = all("test_bits" in results.get(job.name, {}) for job in jobs.values())
        if len(jobs) == len(sides) and finished and all(_folder(job, work).exists() for job in jobs.values()):
            return jobs
    return None


def blt_model(job: Job, work: Path) -> ByteLM:
    """Load a BLT."""
    return ByteLM.from_pretrained(str(_folder(job, work))).eval()


def plain_model(job: Job, prepared: Prepared, work: Path) -> tuple[PlainTransformer, BPE | None]:
    """Load a plain Transformer, and its BPE if it has one."""
    side = side_of(job, prepared)
    side.module.load_state_dict(torch.load(_folder(job, work) / "weights.pt", weights_only=True))
    assert isinstance(side.module, PlainTransformer)
    return side.module.eval(), side.bpe


def _folder(job: Job, work: Path) -> Path:
    return work / "models" / job.name
