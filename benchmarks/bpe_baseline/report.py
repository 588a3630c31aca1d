"""The record: what has finished, with intervals over documents and over seeds, and what of the plan has not."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from blt.evaluation.bootstrap import Interval, ratio

from .plan import (
    BUDGETS,
    KNOBS,
    RATES,
    SEEDS,
    Job,
    Results,
    equals,
    final,
    finals,
    in_order,
    larger_trials,
    outcome,
    rules,
    trials,
)
from .sides import SIDES
from .texts import CORPORA, STORIES, Files

CLAIM = (
    "BLT, a plain Transformer on BPE and a flat byte Transformer, trained on the same bytes: which predicts held-out "
    "bytes best at equal training FLOPs, at equal FLOPs per byte and at equal parameters"
)
RESAMPLES = 1000
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5th percentile of Student's t for a mean of so many seeds."""
TOLD = (
    "steps",
    "bytes_read",
    "training_flops",
    "forward_flops_per_byte",
    "parameters",
    "seconds",
    "dev_bits_per_byte",
    "ids_per_patch",
    "bytes_per_token",
    "vocabulary",
    "dim",
    "layers",
)


def over_documents(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Return a run's bits per byte on the test documents, and the interval over documents."""
    bits, num_bytes = np.array(found["test_bits"]), np.array(found["test_bytes"])
    return ratio(bits, num_bytes, resamples=RESAMPLES, seed=0).to_dict()


def difference(found: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    """Return by how many bits per byte a run is above another, document by document, and the interval."""
    assert found["test_bytes"] == other["test_bytes"], "both were scored on the same documents"
    bits = np.array(found["test_bits"]) - np.array(other["test_bits"])
    return ratio(bits, np.array(found["test_bytes"]), resamples=RESAMPLES, seed=0).to_dict()


def over_seeds(figures: list[float]) -> dict[str, float | None] | None:
    """Return the mean over seeds and its 95% interval by Student's t; None for a single one."""
    count = len(figures)
    if count not in STUDENT:
        return None
    mean, half = float(np.mean(figures)), STUDENT[count] * float(np.std(figures, ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half).to_dict() | {"num_seeds": count}


def row(job: Job, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record tells of a run."""
    told = {"corpus": job.corpus, "side": job.side, "knob": job.knob, "rate": job.rate, "size": job.size}
    return told | {name: found[name] for name in TOLD if name in found} | {"bits_per_byte": over_documents(found)}


def record(results: Results, corpora: tuple[str, ...] = CORPORA) -> dict[str, Any]:
    """Return the results as plain values."""
    planned = {job.name for job in in_order(results, corpora=corpora)}
    return {
        "budgets": list(BUDGETS),
        "rates": list(RATES),
        "knobs": {side: list(values) for side, values in KNOBS.items()},
        "runs_finished": len(planned & results.keys()),
        "runs_planned_so_far": len(planned),
        "tuned": {corpus: _tuned(corpus, results) for corpus in corpora},
        "tuned_for_larger_budgets": {corpus: _tuned_for_larger(corpus, results) for corpus in corpora},
        "equal_training_flops": _equal_training(corpora, results),
        **_equal_otherwise(corpora, results),
        "patch_rules": _patch_rules(results) if STORIES in corpora else [],
    }


def about_texts(files: Files, corpora: tuple[str, ...] = CORPORA) -> dict[str, Any]:
    """Return the size and checksum of every text, so that whoever reruns it knows that it is the same."""
    found = {}
    for name in corpora:
        corpus = files.corpus(name)
        found[name] = {
            "sha256": corpus.checksum(),
            "train_bytes": sum(map(len, corpus.train)),
            "dev_bytes": corpus.dev.num_bytes,
            "test_bytes": corpus.test.num_bytes,
            "test_documents": len(corpus.test.names),
        }
    return found


def _tuned(corpus: str, results: Results) -> dict[str, Any]:
    return {side: told for side in SIDES if (told := _trials(*trials(corpus, side, results), results))}


def _tuned_for_larger(corpus: str, results: Results) -> dict[str, Any]:
    return {side: told for side in SIDES if (told := _trials(*larger_trials(corpus, side, results), results))}


def _trials(jobs: list[Job], choice: Job | None, results: Results) -> dict[str, Any]:
    told = [
        {
            "rate": job.rate,
            "knob": job.knob,
            "size": job.size,
            "budget": job.budget,
            "dev_bits_per_byte": _finite(ran["dev_bits_per_byte"]),
        }
        for job in jobs
        if (ran := outcome(job, results)) is not None
    ]
    if not told:
        return {}
    return {
        "trials": told,
        "chosen": None if choice is None else {"rate": choice.rate, "knob": choice.knob, "size": choice.size},
        "at_the_edge": [] if choice is None else _edges(choice, jobs),
    }


def _edges(choice: Job, jobs: list[Job]) -> list[str]:
    """Return which choices are the outermost that were tried: beyond them may lie a better one."""
    found = []
    for name, values in (("rate", RATES), ("knob", KNOBS[choice.side]), ("size", [job.size for job in jobs])):
        outermost = [min(values), max(values)]
        found += [name] if getattr(choice, name) in outermost and outermost[0] != outermost[1] else []
    return found


def _equal_training(corpora: tuple[str, ...], results: Results) -> list[dict[str, Any]]:
    found = []
    for corpus, (budget, flops) in itertools.product(corpora, enumerate(BUDGETS)):
        jobs = finals(corpus, results, budget=budget)
        runs = {side: job for side, job in jobs.items() if "test_bits" in results.get(job.name, {})}
        blt = results[runs["blt"].name] if "blt" in runs else None
        for side, job in runs.items():
            ran = results[job.name]
            figures = [ran["test_bits_per_byte"]]
            for seed in SEEDS:
                again = final(corpus, side, results, budget=budget, seed=seed, purpose="seed")
                figures += [results[again.name]["test_bits_per_byte"]] if again and again.name in results else []
            told = row(job, ran) | {"budget": flops, "over_seeds": over_seeds(figures)}
            if blt is not None and side != "blt":
                told["more_than_blt"] = difference(ran, blt)
            found.append(told)
    return found


def _equal_otherwise(corpora: tuple[str, ...], results: Results) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"equal_forward_flops": [], "equal_parameters": []}
    for corpus in corpora:
        for purpose, budget, name in (("inference", 1, "equal_forward_flops"), ("parameters", 0, "equal_parameters")):
            job = final(corpus, "blt", results, budget=budget)
            others = [each for each in equals(corpus, results) if each.purpose == purpose and each.name in results]
            if job is None or "test_bits" not in results.get(job.name, {}) or not others:
                continue
            found[name].append(row(job, results[job.name]))
            for other in others:
                ran = results[other.name]
                if "failed" not in ran:
                    found[name].append(row(other, ran) | {"more_than_blt": difference(ran, results[job.name])})
    return found


def _patch_rules(results: Results) -> list[dict[str, Any]]:
    found = []
    for budget in range(len(BUDGETS)):
        for job in rules(results, budget=budget):
            ran = results.get(job.name)
            if ran is not None:
                told = {"rule": job.rule, "length": job.knob, "budget": BUDGETS[budget]}
                found.append(told | ({"failed": ran["failed"]} if "failed" in ran else row(job, ran)))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
