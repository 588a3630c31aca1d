import json

import numpy as np
import pytest

from blt.api import ByteLM
from blt.errors import ConfigurationError
from blt.inspection import flops_by_patch, read
from blt.model.cost import cost_of
from blt.patching import EntropyRule, SpaceRule, StaticRule

TEXT = 'Tom ate 3 "crêpes".\n'.encode() + b"\xff"


def test_surprise_is_what_score_measures_byte_by_byte(tiny_lm):
    reading = read(tiny_lm, TEXT)
    assert reading.surprise == pytest.approx(tiny_lm.score(TEXT).bits_by_byte[:-1].tolist(), abs=1e-4)
    assert reading.data == TEXT
    assert reading.rule == tiny_lm.patch_rule


def test_entropies_start_with_that_after_bos_and_are_those_of_the_patches(tiny_lm):
    shown = tiny_lm.patch(TEXT)
    assert list(read(tiny_lm, TEXT).entropies) == [value for patch in shown for value in patch.entropies]


def test_entropies_go_through_json_without_a_loss_in_float32(tiny_lm):
    reading = read(tiny_lm, TEXT)
    sent = json.loads(json.dumps(reading.to_dict()))
    entropies = [sent["start_entropy"], *sent["entropies"]]
    assert [np.float32(value) for value in entropies] == [np.float32(value) for value in reading.entropies]
    assert bytes.fromhex(sent["hex"]) == TEXT


def test_alternatives_are_the_likeliest_next_bytes_with_their_probabilities(tiny_lm):
    reading = read(tiny_lm, b"Tom", num_alternatives=257)
    assert len(reading.alternatives) == 4
    for position, likeliest in enumerate(reading.alternatives):
        probabilities = [probability for _, probability in likeliest]
        assert probabilities == sorted(probabilities, reverse=True)
        assert {byte for byte, _ in likeliest} == {None, *range(256)}
        assert 0.9 < sum(probabilities) <= 1 + 1e-9
        if position < 3:
            chosen = dict(likeliest)[b"Tom"[position]]
            assert -np.log2(chosen) == pytest.approx(reading.surprise[position], abs=1e-6)
    assert read(tiny_lm, b"Tom").alternatives == tuple(likeliest[:8] for likeliest in reading.alternatives)


def test_another_rule_changes_surprise_and_not_entropies(tiny_lm):
    own, other = read(tiny_lm, TEXT), read(tiny_lm, TEXT, rule=StaticRule(length=2))
    assert own.entropies == other.entropies
    assert own.surprise != other.surprise
    tiny_lm.patch_rule = StaticRule(length=2)
    assert read(tiny_lm, TEXT).surprise == other.surprise


def test_the_empty_text_has_alternatives_for_its_first_byte(tiny_lm):
    reading = read(tiny_lm, "")
    assert (len(reading.entropies), reading.surprise, len(reading.alternatives)) == (1, (), 1)


def test_a_model_without_entropies_reads_too(tiny_lm):
    lm = ByteLM(tiny_lm.blt, patch_rule=SpaceRule())
    assert read(lm, TEXT).entropies == ()
    with pytest.raises(ConfigurationError, match="needs entropies"):
        read(lm, TEXT, rule=EntropyRule(threshold=1.0))


@pytest.mark.parametrize("mean_patch_bytes", [1.0, 1.7, 4.4, 30.0, 500.0])
@pytest.mark.parametrize("context_bytes", [1, 37, 5000])
def test_the_cost_at_any_mean_patch_is_that_of_the_accounting(tiny_lm, mean_patch_bytes, context_bytes):
    flops = flops_by_patch(tiny_lm, context_bytes=context_bytes)
    expected = cost_of(
        tiny_lm.config.blt,
        mean_patch_bytes=mean_patch_bytes,
        context_bytes=context_bytes,
        entropy_model=tiny_lm.config.entropy_model,
    ).flops_with_entropy_model
    found = flops.constant + flops.per_patch / mean_patch_bytes + flops.per_patch_squared / mean_patch_bytes**2
    assert found == pytest.approx(expected, rel=1e-9)
