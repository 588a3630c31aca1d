"""The record: what has finished, with intervals over documents and over seeds, and what of the plan has not."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from blt.evaluation.bootstrap import Interval, ratio

from .plan import BUDGETS, KNOBS, RATES, Job, Results, equals, final, in_order, rules, trials
from .sides import SIDES, SideName
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
    choices = {corpus: _choices(corpus, results) for corpus in corpora}
    planned = {job.name for job in in_order(results, corpora=corpora)}
    return {
        "budgets": list(BUDGETS),
        "rates": list(RATES),
        "knobs": {side: list(values) for side, values in KNOBS.items()},
        "runs_finished": len(planned & results.keys()),
        "runs_planned_so_far": len(planned),
        "tuned": {corpus: _tuned(corpus, results) for corpus in corpora},
        "equal_training_flops": _equal_training(choices, results),
        **_equal_otherwise(choices, results),
        "patch_rules": _patch_rules(choices, results),
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


def _choices(corpus: str, results: Results) -> dict[SideName, Job]:
    found: dict[SideName, Job] = {}
    for side in SIDES:
        _, choice = trials(corpus, side, results)
        if choice is not None:
            found[side] = choice
    return found


def _tuned(corpus: str, results: Results) -> dict[str, Any]:
    found = {}
    for side in SIDES:
        jobs, choice = trials(corpus, side, results)
        ran = [job for job in jobs if job.name in results]
        if ran:
            found[side] = {
                "trials": [
                    {
                        "rate": job.rate,
                        "knob": job.knob,
                        "size": job.size,
                        "budget": job.budget,
                        "dev_bits_per_byte": _finite(results[job.name]["dev_bits_per_byte"]),
                    }
                    for job in ran
                ],
                "chosen": None if choice is None else {"rate": choice.rate, "knob": choice.knob, "size": choice.size},
                "at_the_edge": [] if choice is None else _edges(choice),
            }
    return found


def _edges(choice: Job) -> list[str]:
    """Return which choices are the outermost that were tried: beyond them may lie a better one."""
    knobs = KNOBS[choice.side]
    found = ["rate"] if choice.rate in (min(RATES), max(RATES)) else []
    found += ["knob"] if choice.knob in (min(knobs), max(knobs)) else []
    return [*found, "size"] if choice.size != 1 else found


def _equal_training(choices: Mapping[str, Mapping[SideName, Job]], results: Results) -> list[dict[str, Any]]:
    found = []
    for chosen in choices.values():
        for budget, flops in enumerate(BUDGETS):
            runs = {side: final(choice, budget=budget) for side, choice in chosen.items()}
            runs = {side: job for side, job in runs.items() if "test_bits" in results.get(job.name, {})}
            blt = results[runs["blt"].name] if "blt" in runs else None
            for side, job in runs.items():
                ran = results[job.name]
                seeds = [ran["test_bits_per_byte"]]
                for seed in range(1, 5):
                    again = final(chosen[side], budget=budget, seed=seed, purpose="seed")
                    seeds += [results[again.name]["test_bits_per_byte"]] if again.name in results else []
                told = row(job, ran) | {"budget": flops, "over_seeds": over_seeds(seeds)}
                if blt is not None and side != "blt":
                    told["more_than_blt"] = difference(ran, blt)
                found.append(told)
    return found


def _equal_otherwise(choices: Mapping[str, Mapping[SideName, Job]], results: Results) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"equal_forward_flops": [], "equal_parameters": []}
    for chosen in choices.values():
        if len(chosen) < len(SIDES):
            continue
        for purpose, budget, name in (("inference", 1, "equal_forward_flops"), ("parameters", 0, "equal_parameters")):
            job = final(chosen["blt"], budget=budget)
            others = [each for each in equals(chosen, results) if each.purpose == purpose and each.name in results]
            if "test_bits" not in results.get(job.name, {}) or not others:
                continue
            found[name].append(row(job, results[job.name]))
            for other in others:
                ran = results[other.name]
                if "failed" not in ran:
                    found[name].append(row(other, ran) | {"more_than_blt": difference(ran, results[job.name])})
    return found


def _patch_rules(choices: Mapping[str, Mapping[SideName, Job]], results: Results) -> list[dict[str, Any]]:
    if "blt" not in choices.get(STORIES, {}):
        return []
    found = []
    for budget in range(len(BUDGETS)):
        for job in rules(choices[STORIES]["blt"], budget=budget):
            ran = results.get(job.name)
            if ran is not None:
                told = {"rule": job.rule, "length": job.knob, "budget": BUDGETS[budget]}
                found.append(told | ({"failed": ran["failed"]} if "failed" in ran else row(job, ran)))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
