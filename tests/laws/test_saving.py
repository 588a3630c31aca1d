"""Law 5, first part: save → load gives the same logits. Law 6: presets have the parameter counts they claim."""

import dataclasses

import pytest
import torch
from checks_model import check_parameter_count
from tiny_models import every_rule_and_shape, every_shape, packed_row, text_row, tiny_lm

from blt.api import ByteLM
from blt.entropy import EntropyConfig, EntropyModel
from blt.model import BLT, PRESETS, preset

CLAIMED_MILLIONS = {"tiny": 11.2, "tinystories-55m": 55.4, "blt-1b": 4512, "blt-8b": 10525}
NGRAM_MILLIONS = {"tiny": 3.15, "tinystories-55m": 6.29, "blt-1b": 3072, "blt-8b": 3840}
"""Of these, rows of n-gram tables, which the paper leaves out where it says 1B and 8B."""


def check_saving(lm: ByteLM, folder, *, stored: str | None = None, loaded: str = "float32") -> None:
    """Law 5: what is loaded gives, bit for bit, the logits of what was saved."""
    lm.save_pretrained(folder, dtype=stored)
    again = ByteLM.from_pretrained(folder, dtype=loaded)
    assert again.config == lm.config, "the configuration changed on the way"
    for ids in (text_row(60), packed_row(b"a", b"", b"bcd")):
        assert torch.equal(again(ids), lm(ids)), "loaded logits differ from saved ones"
        assert torch.equal(again.patches(ids).ends, lm.patches(ids).ends), "loaded patches differ from saved ones"


@every_rule_and_shape
def test_a_saved_model_gives_the_same_logits_when_loaded(rule, shape, tmp_path):
    check_saving(tiny_lm(rule, shape=shape), tmp_path / "model")


@every_shape
def test_a_bfloat16_model_gives_the_same_logits_when_loaded(shape, tmp_path):
    lm = tiny_lm(shape=shape).to(dtype=torch.bfloat16)
    check_saving(lm, tmp_path / "model", loaded="bfloat16")


def test_weights_stored_in_bfloat16_are_those_of_the_rounded_model(tmp_path):
    lm = tiny_lm()
    lm.save_pretrained(tmp_path / "half", dtype="bfloat16")
    rounded = tiny_lm().to(dtype=torch.bfloat16).to(dtype=torch.float32)
    ids = text_row(60)
    assert torch.equal(ByteLM.from_pretrained(tmp_path / "half")(ids), rounded(ids))


def test_a_weight_that_is_not_stored_breaks_saving(tmp_path, monkeypatch):
    lm = tiny_lm()
    monkeypatch.setattr(lm.blt, "logits", lambda states: 1.5 * BLT.logits(lm.blt, states))
    with pytest.raises(AssertionError, match="loaded logits differ"):
        check_saving(lm, tmp_path / "model")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_parameters_they_claim(name):
    with torch.device("meta"):
        model = BLT(preset(name))
    check_parameter_count(model, expected=CLAIMED_MILLIONS[name] * 1e6)
    check_parameter_count(model.hash_embedding.ngrams, expected=NGRAM_MILLIONS[name] * 1e6)


def test_the_reference_entropy_model_has_the_parameters_it_claims():
    with torch.device("meta"):
        model = EntropyModel(EntropyConfig(dim=256, num_layers=2, num_heads=4))
    check_parameter_count(model, expected=1.7e6, within=0.05)


def test_a_preset_with_one_layer_more_breaks_the_claim():
    config = preset("tinystories-55m")
    decoder = dataclasses.replace(config.local_decoder, num_layers=5)
    with torch.device("meta"), pytest.raises(AssertionError, match="claimed"):
        check_parameter_count(BLT(dataclasses.replace(config, local_decoder=decoder)), expected=55.4e6)
