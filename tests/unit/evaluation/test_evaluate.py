import dataclasses
import inspect
import math
import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.api import ByteLM
from blt.codec import BOS_ID, encode
from blt.data import Shards
from blt.errors import ConfigurationError, DataError, ModelFolderError
from blt.evaluation import WINDOW, compute_entropies, evaluate
from blt.evaluation import rows as rows_module
from blt.evaluation.bootstrap import Interval, mean_interval, ratio, ratio_interval, share_interval
from blt.evaluation.entropies import entropies_of_rows
from blt.evaluation.rows import num_windows, window_rows
from blt.loss import NOT_PREDICTED
from blt.model import TransformerConfig
from blt.ops import attention_mask_bytes, only_references
from blt.patching import ByteRule, StaticRule, mean_patch_bytes, patch
from tiny_config import TINY_CONFIG

evaluate_module = sys.modules["blt.evaluation.evaluate"]
CPU = torch.device("cpu")
RULES = [None, StaticRule(length=4), ByteRule()]
"""None: the entropy rule that `tiny_lm` comes with."""


def some_documents(count=7, *, longest=300):
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, longest, size=count)
    return [generator.integers(0, 256, size=length, dtype=np.uint8).tobytes() for length in lengths]


@pytest.mark.parametrize("rule", RULES)
def test_documents_are_scored_as_byte_lm_scores_each_alone(tiny_lm, rule):
    tiny_lm.patch_rule = rule or tiny_lm.patch_rule
    documents = some_documents()
    evaluation = evaluate(tiny_lm, documents, protocol="documents", bootstrap=10)
    scores = [tiny_lm.score(document) for document in documents]
    assert evaluation.bits_by_unit == pytest.approx([score.bits for score in scores], abs=1e-3, rel=1e-6)
    assert evaluation.bytes_by_unit.tolist() == [len(document) for document in documents]
    wanted = sum(score.bits for score in scores) / sum(map(len, documents))
    assert evaluation.bits_per_byte == pytest.approx(wanted, abs=1e-5)


def test_small_batches_and_one_large_batch_give_the_same_bits(tiny_lm, monkeypatch):
    documents = some_documents()
    whole = evaluate(tiny_lm, documents, bootstrap=0)
    monkeypatch.setattr(rows_module, "MAX_IDS_PER_BATCH", 64)
    assert evaluate(tiny_lm, documents, bootstrap=0).bits_by_unit == pytest.approx(whole.bits_by_unit, rel=1e-5)


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_windows_predict_every_byte_and_every_eos_once_and_no_bos(lengths):
    shards = Shards.from_documents([bytes([number + 1]) * length for number, length in enumerate(lengths)])
    stream = torch.from_numpy(shards.ids(0, shards.num_ids))
    predicted, read, units = [], [], []
    for rows in window_rows(shards, entropy_model=None, device=CPU):
        read.append(rows.byte_ids[rows.is_read])
        predicted.append(rows.targets[rows.targets != NOT_PREDICTED])
        units.extend(rows.numbers.tolist())
        assert rows.byte_ids.shape[1] == WINDOW
    assert torch.equal(torch.cat(read), stream[:-1])
    assert torch.equal(torch.cat(predicted), stream[stream != BOS_ID])
    assert units == list(range(num_windows(shards)))


def test_a_window_is_scored_from_its_own_start_with_the_patches_of_whole_documents(tiny_lm):
    documents = some_documents(9)
    stream = torch.cat([encode(document, bos=True, eos=True) for document in documents])
    entropies = torch.cat([tiny_lm.entropies(encode(d, bos=True, eos=True)[None])[0] for d in documents])
    bits = []
    for start in range(0, len(stream) - 1, WINDOW):
        stop = min(start + WINDOW, len(stream) - 1)
        ids, following = stream[None, start:stop], stream[start + 1 : stop + 1]
        with torch.inference_mode():
            logits = tiny_lm.blt(ids, patch(ids, tiny_lm.patch_rule, entropies=entropies[None, start:stop]))[0]
        nats = -logits.log_softmax(-1).gather(1, following[:, None])[:, 0]
        bits.append(float(nats[following != BOS_ID].sum()) / math.log(2))
    assert len(bits) > 2
    evaluation = evaluate(tiny_lm, documents, protocol="windows", bootstrap=0)
    assert evaluation.bits_by_unit == pytest.approx(bits, rel=1e-5)
    assert evaluation.num_bytes == evaluation.bytes_by_unit.sum() == sum(map(len, documents))


def test_windows_know_less_than_whole_documents_only_beyond_the_first_window(tiny_lm):
    short = [b"Tom had a red ball."]
    by_protocol = [evaluate(tiny_lm, short, protocol=protocol, bootstrap=0) for protocol in ("documents", "windows")]
    assert by_protocol[0].bits_per_byte == pytest.approx(by_protocol[1].bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_mean_patch_is_the_one_that_patching_defines(tiny_lm, rule):
    tiny_lm.patch_rule = rule or tiny_lm.patch_rule
    documents = some_documents()
    stream = torch.cat([encode(document, bos=True, eos=True) for document in documents])[None]
    wanted = mean_patch_bytes(tiny_lm.patches(stream), stream)
    assert evaluate(tiny_lm, documents, bootstrap=0).mean_patch_bytes == pytest.approx(wanted, rel=1e-6)


def test_an_evaluation_says_what_it_was_measured_on(tiny_lm):
    documents = some_documents()
    evaluation = evaluate(tiny_lm, [*documents, b""], protocol="windows", bootstrap=50)
    assert evaluation.num_documents == len(documents)
    assert evaluation.data_checksum == Shards.from_documents(documents).checksum
    assert evaluation.threshold == tiny_lm.patch_rule.threshold
    assert evaluation.interval_low <= evaluation.bits_per_byte <= evaluation.interval_high
    assert evaluation.bytes_per_second == evaluation.num_bytes / evaluation.seconds
    values = evaluation.to_dict(units=True)
    assert values["patch_rule"] == {"type": "entropy", "threshold": tiny_lm.patch_rule.threshold}
    assert sum(values["bits_by_unit"]) / sum(values["bytes_by_unit"]) == pytest.approx(values["bits_per_byte"])
    other = evaluate(tiny_lm, documents[::-1], bootstrap=0)
    assert other.data_checksum != evaluation.data_checksum
    assert other.model_fingerprint == evaluation.model_fingerprint
    with torch.no_grad():
        tiny_lm.blt.hash_embedding.bytes.weight[7, 3] += 1
    assert evaluate(tiny_lm, documents, bootstrap=0).model_fingerprint != evaluation.model_fingerprint


def test_without_a_bootstrap_the_interval_is_null_in_json(tiny_lm):
    values = evaluate(tiny_lm, [b"ab"], bootstrap=0).to_dict()
    assert values["interval_low"] is None
    assert "bits_by_unit" not in values


def test_the_interval_is_repeatable_and_narrows_with_more_documents():
    bits = np.random.default_rng(0).normal(100, 20, size=1000)
    lengths = np.full(1000, 50)
    few = ratio_interval(bits[:20], lengths[:20], resamples=300, seed=1)
    many = ratio_interval(bits, lengths, resamples=300, seed=1)
    assert few == ratio_interval(bits[:20], lengths[:20], resamples=300, seed=1)
    assert few != ratio_interval(bits[:20], lengths[:20], resamples=300, seed=2)
    deviation = 20 / 50  # of bits per byte; the interval of a mean is 2 x 1.96 standard errors wide
    assert many[1] - many[0] == pytest.approx(3.92 * deviation / math.sqrt(1000), rel=0.2)
    assert few[1] - few[0] == pytest.approx(3.92 * deviation / math.sqrt(20), rel=0.4)


def test_the_interval_of_units_without_bytes_is_unknown():
    assert all(math.isnan(end) for end in ratio_interval(np.ones(2), np.zeros(2, np.int64), resamples=3, seed=0))


def test_a_single_document_has_no_interval(tiny_lm):
    found = ratio(np.array([3.0]), np.array([2]), resamples=9, seed=0)
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert evaluate(tiny_lm, [b"ab"], bootstrap=9).to_dict()["interval_high"] is None


def test_shares_that_are_all_0_or_all_1_are_not_certain():
    draws = {"resamples": 9, "seed": 0}
    none, whole = (share_interval(np.full(25, value), **draws) for value in (0.0, 1.0))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(0.1332, abs=1e-4))  # Wilson's, of 0 of 25
    assert (whole.value, whole.low, whole.high) == (1, pytest.approx(1 - none.high), 1)
    some = np.array([0.0, 1.0, 1.0])
    assert share_interval(some, **draws) == mean_interval(some, **draws)
    assert mean_interval(np.zeros(25), **draws) == Interval(0.0, 0.0, 0.0)  # of differences, nothing else is known
    assert math.isnan(share_interval(np.zeros(25), resamples=0, seed=0).high)


def test_progress_ends_at_the_number_of_bytes(tiny_lm, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_IDS_PER_BATCH", 600)
    documents = some_documents()
    told = []
    for protocol in ("documents", "windows"):
        told.clear()
        evaluate(tiny_lm, documents, protocol=protocol, bootstrap=0, progress=lambda *done: told.append(done))
        assert len(told) > 1
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1] == (sum(map(len, documents)),) * 2


def test_entropies_in_pieces_are_those_of_the_whole_row(tiny_lm, monkeypatch):
    byte_ids = encode(bytes(range(256)) * 2, bos=True, eos=True)[None].expand(2, -1)
    whole = tiny_lm.entropy_model.entropies(byte_ids)
    monkeypatch.setattr("blt.evaluation.entropies.MAX_IDS_PER_BATCH", 60)
    assert torch.allclose(entropies_of_rows(tiny_lm.entropy_model, byte_ids), whole, atol=1e-5)


def test_computed_entropies_lie_where_their_ids_lie(tiny_lm):
    documents = some_documents()
    shards = Shards.from_documents(documents)
    stored = compute_entropies(tiny_lm.entropy_model, shards).read(0, shards.num_ids)
    alone = [tiny_lm.entropies(encode(document, bos=True, eos=True)[None])[0] for document in documents]
    assert stored == pytest.approx(torch.cat(alone).numpy(), abs=1e-5)


def test_a_document_too_long_for_the_machine_is_refused_with_a_way_out(tiny_lm):
    tiny_lm.patch_rule = ByteRule()
    with pytest.raises(DataError, match="evaluate it by the protocol 'windows'"):
        evaluate(tiny_lm, [bytes(3_000_000)], bootstrap=0)


@pytest.mark.parametrize(
    ("documents", "options", "error", "message"),
    [
        ([], {}, DataError, "no documents"),
        ([b""], {}, DataError, "no documents"),
        ([b"a"], {"bootstrap": -1}, ConfigurationError, "0 or more resamples"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tiny_lm, documents, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(tiny_lm, documents, **options)


def test_an_unknown_protocol_is_refused(tiny_lm):
    unhooked = inspect.unwrap(evaluate)  # the annotation refuses it too, where the tests execute annotations
    with pytest.raises(ConfigurationError, match="'pages' is none of documents, windows"):
        unhooked(tiny_lm, [b"a"], protocol="pages")


@pytest.fixture
def wide_lm():
    """A model whose heads are as wide as the kernels are served with."""
    config = dataclasses.replace(
        TINY_CONFIG.blt, global_transformer=TransformerConfig(dim=32, num_layers=1, num_heads=2)
    )
    return ByteLM.new(dataclasses.replace(TINY_CONFIG, blt=config, patch_rule=ByteRule())).eval()


@pytest.mark.parametrize("is_native", [True, False])
def test_a_long_document_is_refused_only_where_a_mask_of_its_patches_is_made(wide_lm, monkeypatch, is_native):
    document = some_documents(1, longest=3000)[0] * 2
    wanted = evaluate(wide_lm, [document], bootstrap=0).bits_per_byte
    weight = wide_lm.blt.hash_embedding.bytes.weight
    if is_native and attention_mask_bytes(weight, rows=1, length=1, head_dim=16):
        pytest.skip("no compiler here")
    memory = {"SC_PHYS_PAGES": 64, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", memory.__getitem__)
    if is_native:
        assert evaluate(wide_lm, [document], bootstrap=0).bits_per_byte == wanted
    else:
        with only_references(), pytest.raises(DataError, match="evaluate it by the protocol 'windows'"):
            evaluate(wide_lm, [document], bootstrap=0)


@pytest.mark.parametrize("protocol", ["documents", "windows"])
@pytest.mark.parametrize("part", ["blt.local_decoder.norm", "entropy_model.norm"])
def test_figures_that_are_no_numbers_are_no_result(tiny_lm, protocol, part):
    with torch.no_grad():
        tiny_lm.get_submodule(part).weight[0] = math.nan
    with pytest.raises(ModelFolderError, match=r"are not finite \(nan\)"):
        evaluate(tiny_lm, [b"Tom had a ball."], protocol=protocol, bootstrap=0)
