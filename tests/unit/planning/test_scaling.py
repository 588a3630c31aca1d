from dataclasses import replace

import pytest

from blt.model import preset
from blt.planning import Workload, budget_of, warnings_of

WORKLOAD = Workload(model=preset("blt-8b"), mean_patch_bytes=3.7)


def test_the_published_budget_brings_no_warning_and_is_60_bytes_per_global_parameter():
    assert budget_of(WORKLOAD) == 60 * 6_451_101_696
    for factor in (0.3, 1, 3):
        assert warnings_of(WORKLOAD, num_bytes=factor * budget_of(WORKLOAD)) == []


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.1, "little text for the shape: 6 bytes per parameter of the global transformer"),
        (10, "much text for the shape: 600 bytes per parameter of the global transformer"),
    ],
)
def test_too_little_and_too_much_text_are_told(factor, words):
    (warning,) = warnings_of(WORKLOAD, num_bytes=factor * budget_of(WORKLOAD))
    assert warning.startswith(words)
    assert "387 GB" in warning
    assert "10 times " + ("smaller" if factor < 1 else "larger") in warning


@pytest.mark.parametrize(
    ("model", "patch", "words"),
    [
        ("blt-8b", 8.0, "long patches: 8 bytes"),
        ("blt-8b", 2.0, "short patches: 2 bytes"),
        ("tiny", 8.0, None),  # below 1e20 FLOPs longer ones are best
        ("tiny", 2.0, "short patches: 2 bytes"),
        ("tiny", 4.4, None),
    ],
)
def test_patch_lengths_far_from_the_best_are_told(model, patch, words):
    workload = replace(WORKLOAD, model=preset(model), mean_patch_bytes=patch)
    found = warnings_of(workload, num_bytes=budget_of(workload))
    assert [line[: len(words or "")] for line in found] == ([words] if words else [])
