"""Which runs there are, in the order in which they matter, each decided by the figures of those before it.

Every side is tuned with the same number of trials, on dev. On stories, at 5e11 FLOPs: five learning rates; three
other values of the one knob that is its own (bytes per patch, vocabulary, attention window) at the best rate; two other
sizes with the best of both; of all ten the best is taken. For the larger budgets three sizes are tried at 2e12, and
with the best of them the next value of the knob. On the other texts the rate is that of stories; the knob's four
values are tried anew, at the smallest budget, and for the larger budgets two sizes, at 2e12: what is best on stories
may not be on a text of another kind.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from .sides import SIDES, SideName
from .texts import CORPORA, STORIES

BUDGETS = (1.25e11, 5e11, 2e12, 8e12)
"""Training FLOPs."""
TRIAL_BUDGET, LARGER = 1, 2
"""Numbers of budgets: the one that trials have on stories, and the first of those that are tuned once more."""
LARGER_SIZES = (0, 1, 2)
OTHER_SIZES = (0, 1)
"""For the larger budgets, on texts other than stories."""
RATES = (0.005, 0.01, 0.02, 0.04, 0.08)
"""Of Muon; AdamW, for embeddings and norms, has half of it."""
KNOBS: Mapping[SideName, tuple[float, ...]] = {
    "blt": (6.0, 4.5, 8.0, 12.0),
    "bpe": (1024, 2048, 4096, 8192),
    "flat": (256, 64, 512, 32),
}
"""Bytes per patch of the entropy rule; ids of the BPE; positions that a flat model attends to. First the default."""
BASE_SIZE = 1
PATCH_RULES = ("entropy", "entropy-rise", "static")
PATCH_LENGTHS = (3, 4, 5, 6, 7, 8)
SEEDS = (1, 2)
Purpose = Literal["trial", "budget", "inference", "parameters", "rule", "seed"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    purpose: Purpose
    corpus: str
    side: SideName
    rate: float
    knob: float
    """Of `KNOBS`; for BLT the bytes per patch that its rule is set to."""
    size: int | None = BASE_SIZE
    """Of `FLOPS_BY_SIZE`; None where a plain model is made for a number of FLOPs or parameters."""
    budget: float | None = BUDGETS[TRIAL_BUDGET]
    """Training FLOPs; None where the number of bytes is told."""
    num_bytes: int | None = None
    """Bytes to read."""
    rule: str = "entropy"
    """BLT's patch rule."""
    forward: float | None = None
    """FLOPs per byte that a plain model is made for."""
    parameters: int | None = None
    """Parameters that a plain model is made for."""
    seed: int = 0
    """Of the weights and of the order of the documents."""

    @property
    def name(self) -> str:
        """A name of its own, for files."""
        told = {name: value for name, value in asdict(self).items() if value is not None and name != "purpose"}
        shown = [f"{value:g}" if isinstance(value, float | int) else str(value) for value in told.values()]
        return f"{self.purpose}-" + "-".join(shown)

    @property
    def scores_test(self) -> bool:
        """Whether the run is reported, and so is measured on the test documents; trials never are."""
        return self.purpose != "trial"


Results = Mapping[str, Mapping[str, Any]]
"""Finished runs by the names of their jobs."""


def trials(corpus: str, side: SideName, results: Results) -> tuple[list[Job], Job | None]:
    """Return the trials of a side that can run now or have run, and the choice, once all have run."""
    if corpus != STORIES:
        _, choice = trials(STORIES, side, results)
        if choice is None:
            return [], None
        found = [replace(choice, corpus=corpus, knob=knob, budget=BUDGETS[0]) for knob in KNOBS[side]]
        return found, _best(found, results)
    base = Job(purpose="trial", corpus=corpus, side=side, rate=RATES[0], knob=KNOBS[side][0])
    found = [replace(base, rate=rate) for rate in RATES]
    best = _best(found, results)
    if best is None:
        return found, None
    found += [replace(best, knob=knob) for knob in KNOBS[side][1:]]
    best = _best(found, results)
    if best is None:
        return found, None
    found += [replace(best, size=size) for size in (BASE_SIZE - 1, BASE_SIZE + 1)]
    return found, _best(found, results)


def larger_trials(corpus: str, side: SideName, results: Results) -> tuple[list[Job], Job | None]:
    """Return likewise the trials for the larger budgets."""
    _, choice = trials(corpus, side, results)
    if choice is None:
        return [], None
    sizes = LARGER_SIZES if corpus == STORIES else OTHER_SIZES
    found = [replace(choice, size=size, budget=BUDGETS[LARGER]) for size in sizes]
    best = _best(found, results)
    if best is None or corpus != STORIES:
        return found, best
    knobs = sorted(KNOBS[side])
    place = knobs.index(best.knob)
    found.append(replace(best, knob=knobs[place - 1 if place else place + 1]))
    return found, _best(found, results)


def outcome(trial: Job, results: Results) -> Mapping[str, Any] | None:
    """Return what a trial came to, or the reported run of its settings, which is the same run; None before both."""
    return results.get(trial.name) or results.get(replace(trial, purpose="budget").name)


def _best(jobs: list[Job], results: Results) -> Job | None:
    """Return the job with the lowest bits per byte on dev; None while one has not run. A failed run is none of them."""
    figures = [ran["dev_bits_per_byte"] for job in jobs if (ran := outcome(job, results)) is not None]
    return jobs[figures.index(min(figures))] if len(figures) == len(jobs) else None


def final(
    corpus: str, side: SideName, results: Results, *, budget: int, seed: int = 0, purpose: Purpose = "budget"
) -> Job | None:
    """Return the tuned run of a side at a budget, by its number; None while its trials have not run."""
    _, choice = trials(corpus, side, results)
    if choice is not None and budget >= LARGER:
        _, choice = larger_trials(corpus, side, results)
    return None if choice is None else replace(choice, purpose=purpose, budget=BUDGETS[budget], seed=seed)


def finals(
    corpus: str, results: Results, *, budget: int, seed: int = 0, purpose: Purpose = "budget"
) -> dict[SideName, Job]:
    """Return the tuned runs of those sides whose trials have run."""
    found = {side: final(corpus, side, results, budget=budget, seed=seed, purpose=purpose) for side in SIDES}
    return {side: job for side, job in found.items() if job is not None}


def equals(corpus: str, results: Results) -> list[Job]:
    """Return the plain runs with BLT's FLOPs per byte, or with its parameters, that read as many bytes as it did.

    The first at the second budget; the second at the first, since a flat model of so many parameters costs much more.
    None before all sides are tuned. Where the head of a BPE alone costs more, the next smaller vocabulary is taken.
    """
    found: list[Job] = []
    for purpose, budget in (("inference", 1), ("parameters", 0)):
        jobs = finals(corpus, results, budget=budget)
        anchor = results.get(jobs["blt"].name) if len(jobs) == len(SIDES) else None
        if anchor is None:
            continue
        for side in SIDES[1:]:
            told = replace(jobs[side], size=None, budget=None, num_bytes=round(anchor["bytes_read"]))
            if purpose == "inference":
                told = replace(told, purpose="inference", forward=anchor["forward_flops_per_byte"])
            else:
                told = replace(told, purpose="parameters", parameters=anchor["parameters"])
            found += _until_one_fits(told, results) if side == "bpe" else [told]
    return found


def _until_one_fits(job: Job, results: Results) -> list[Job]:
    """Return a run of BPE, and those of ever smaller vocabularies, up to the first that has not failed."""
    found = [job]
    smaller = sorted(knob for knob in KNOBS["bpe"] if knob < job.knob)
    while smaller and "failed" in results.get(found[-1].name, {}):
        found.append(replace(job, knob=smaller.pop()))
    return found


def rules(results: Results, *, budget: int) -> list[Job]:
    """Return the runs of BLT on stories with every patch rule and mean length, otherwise as it is tuned."""
    base = final(STORIES, "blt", results, budget=budget, purpose="rule")
    if base is None:
        return []
    lengths = [replace(base, rule=rule, knob=float(length)) for length in PATCH_LENGTHS for rule in PATCH_RULES]
    return [replace(base, rule="space", knob=0.0), *lengths]


def in_order(results: Results, *, corpora: tuple[str, ...] = CORPORA) -> Iterator[Job]:
    """Return every job that can run now, finished ones too, the most important first."""
    has_stories = STORIES in corpora
    for corpus in corpora:
        for side in SIDES:
            yield from trials(corpus, side, results)[0]
        for budget in range(LARGER):
            yield from finals(corpus, results, budget=budget).values()
    if has_stories:
        yield from equals(STORIES, results)
        yield from rules(results, budget=0)
    for corpus in corpora:
        for side in SIDES:
            some, _ = larger_trials(corpus, side, results)
            yield from (job for job in some if job.name in results or outcome(job, results) is None)
    for corpus in corpora:
        yield from finals(corpus, results, budget=LARGER).values()
    yield from _seeds(corpora, results, budget=0)
    if has_stories:
        yield from finals(STORIES, results, budget=LARGER + 1).values()
    yield from _seeds(corpora, results, budget=1)
    for corpus in corpora:
        yield from equals(corpus, results)
        yield from finals(corpus, results, budget=LARGER + 1).values()
    if has_stories:
        yield from rules(results, budget=1)
    for budget in range(LARGER, len(BUDGETS)):
        yield from _seeds(corpora, results, budget=budget)


def _seeds(corpora: tuple[str, ...], results: Results, *, budget: int) -> Iterator[Job]:
    for seed in SEEDS:
        for corpus in corpora:
            yield from finals(corpus, results, budget=budget, seed=seed, purpose="seed").values()
