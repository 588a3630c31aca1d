import functools
import math

import pytest
import torch

import blt.entropy.model
import blt.lm.session
import blt.model.blt
from blt.codec import BOS_ID, decode_bytes
from blt.errors import DataError
from blt.inspection import LAWS, LawReport, verify
from blt.inspection.deviation import Witness
from blt.inspection.sample import MAX_TEXT, Sample
from blt.lm import DecodingSession
from blt.lm.finite import PARAGRAPH
from blt.model import BLT
from blt.nn import WindowPattern
from blt.ops import segment_max
from blt.patching import ByteRule, EntropyRiseRule, EntropyRule, Patches, SpaceRule, StaticRule, patch

pytestmark = pytest.mark.usefixtures("without_shape_checks")
TEXT = b"Tom had a red ball, and Zo\xc3\xab had none."
"""Short, to be quick; the default is a paragraph."""


def broken_laws(lm, *, among=LAWS, text=TEXT):
    witnesses = [Witness(name, tolerance=0.0 if "gradient" in name else 1e-4) for name in among]
    for witness in witnesses:
        LAWS[witness.law](lm, Sample.draw(lm, text=text, seed=0), witness)
    return {witness.law for witness in witnesses if not witness.report().held}


@pytest.mark.parametrize(
    "rule",
    [None, EntropyRiseRule(threshold=0.01, max_length=5), SpaceRule(), StaticRule(length=6), ByteRule()],
    ids=lambda rule: type(rule).__name__,
)
def test_every_law_holds_on_a_sound_model(tiny_lm, rule):
    tiny_lm.patch_rule = rule or tiny_lm.patch_rule
    reports = verify(tiny_lm, text=TEXT if rule else None, seed=3)
    assert [report.law for report in reports] == list(LAWS)
    assert [report.law for report in reports if not report.held] == []
    assert all(report.deviation <= report.tolerance for report in reports)


def test_laws_hold_in_bfloat16_and_on_a_given_text(tiny_lm):
    assert all(report.held for report in verify(tiny_lm.to(dtype=torch.bfloat16), text=b"a\xff"))


def test_the_same_seed_gives_the_same_reports(tiny_lm):
    assert verify(tiny_lm, text=TEXT, seed=5) == verify(tiny_lm, text=TEXT, seed=5)


def reads_its_own_patch(lm, monkeypatch):
    class OwnPatch(Patches):
        @property
        def readable(self):
            return self.ids

    def forward(byte_ids, patches):
        return BLT.forward(lm.blt, byte_ids, OwnPatch(ends=patches.ends))

    monkeypatch.setattr(lm.blt, "forward", forward)


def stores_starts(lm, monkeypatch):
    def forward(byte_ids, patches):
        ends = patches.ends.clone()
        ends[:, -1] = True
        return BLT.forward(lm.blt, byte_ids, Patches(ends=ends))

    monkeypatch.setattr(lm.blt, "forward", forward)


def has_entropies_that_look_ahead(lm, monkeypatch):
    original = lm.entropy_model.entropies
    monkeypatch.setattr(lm.entropy_model, "entropies", lambda byte_ids: original(byte_ids).roll(-1, dims=1))


def has_an_entropy_model_that_sees_both_ways(lm, monkeypatch):
    class BothWays(WindowPattern):
        def __init__(self, segments, *, window):
            super().__init__(segments, window=window)
            self.runs.blocks._mask = torch.ones_like(self.runs.blocks.mask)

    stack = lm.entropy_model.layers
    monkeypatch.setattr(stack, "pattern", lambda inputs: BothWays(inputs.segments, window=stack.shape.window))


def patches_by_the_byte_that_follows(lm, monkeypatch):
    def patches(byte_ids):
        return Patches(ends=patch(byte_ids, SpaceRule()).ends.roll(-1, dims=1))

    monkeypatch.setattr(lm, "patches", patches)


def mixes_rows(lm, monkeypatch):
    def flawed(states, slots, *, num_slots):
        largest = segment_max(states, slots, num_slots=num_slots)
        return largest.amax(0, keepdim=True).expand(len(states), -1, -1)

    monkeypatch.setattr(blt.model.blt, "segment_max", flawed)


def sees_the_document_before(lm, monkeypatch):
    class Blind(WindowPattern):
        def __init__(self, segments, *, window):
            super().__init__(torch.zeros_like(segments), window=window)

    for stack in (lm.blt.local_encoder.layers, lm.blt.local_decoder.layers):
        blind = functools.partial(Blind, window=stack.shape.window)
        monkeypatch.setattr(stack, "pattern", lambda inputs, blind=blind: blind(inputs.segments))


def has_ngrams_that_reach_across_bos(lm, monkeypatch):
    original = blt.model.blt.ngram_hashes

    def flawed(byte_ids, positions, config):
        return original(byte_ids, torch.arange(byte_ids.shape[1]).expand_as(byte_ids), config)

    monkeypatch.setattr(blt.model.blt, "ngram_hashes", flawed)


def adds_the_mean_of_the_row(lm, monkeypatch):
    def forward(byte_ids, patches):
        logits = BLT.forward(lm.blt, byte_ids, patches)
        return logits + 0.02 * logits.mean(1, keepdim=True)

    monkeypatch.setattr(lm.blt, "forward", forward)


def forgets_while_stepping(lm, monkeypatch):
    original = DecodingSession.read

    def read(session, byte_ids, rows):
        return original(session, torch.where(byte_ids == BOS_ID, byte_ids + 2, byte_ids), rows)

    monkeypatch.setattr(DecodingSession, "read", read)


def ends_other_patches_while_stepping(lm, monkeypatch):
    original = DecodingSession.start

    def start(session, num_rows):
        rows = original(session, num_rows)
        session._decoding._patcher.rule = StaticRule(length=7)
        return rows

    monkeypatch.setattr(blt.lm.session, "packed_model", lambda *parts, **options: None)  # the flaw is PyTorch's
    monkeypatch.setattr(DecodingSession, "start", start)


def has_a_weight_that_is_no_number(lm, monkeypatch):
    with torch.no_grad():
        lm.blt.local_decoder.norm.weight[0] = math.nan


EDIT, TRUNCATION, GRADIENT = "causality by edit", "causality by truncation", "causality by gradient"
PACKED, BATCH, PADDING = "documents packed in a row = alone", "a batch of n = n singles", "padding is inert"
STEP = "cached step = full forward"


@pytest.mark.parametrize(
    ("flaw", "broken"),
    [
        (reads_its_own_patch, {EDIT, TRUNCATION, GRADIENT, STEP}),
        (stores_starts, {TRUNCATION, PACKED, PADDING}),
        (has_entropies_that_look_ahead, {EDIT, TRUNCATION, PADDING}),
        (has_an_entropy_model_that_sees_both_ways, {EDIT, TRUNCATION, GRADIENT, PACKED}),
        (patches_by_the_byte_that_follows, {EDIT, TRUNCATION}),
        (mixes_rows, {BATCH, STEP}),
        (sees_the_document_before, {PACKED}),
        (has_ngrams_that_reach_across_bos, {PACKED}),
        (adds_the_mean_of_the_row, {EDIT, TRUNCATION, GRADIENT, PACKED, BATCH, PADDING, STEP}),
        (forgets_while_stepping, {STEP}),
        (ends_other_patches_while_stepping, {STEP}),
        (has_a_weight_that_is_no_number, set(LAWS)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_model_that_breaks_a_law_is_found_out(tiny_lm, monkeypatch, flaw, broken):
    flaw(tiny_lm, monkeypatch)
    assert broken_laws(tiny_lm, among=broken) == broken


def test_a_flaw_of_one_kind_is_not_blamed_on_the_other_laws(tiny_lm, monkeypatch):
    has_ngrams_that_reach_across_bos(tiny_lm, monkeypatch)
    forgets_while_stepping(tiny_lm, monkeypatch)
    assert broken_laws(tiny_lm) == {PACKED, STEP}


def test_an_end_that_lies_right_at_the_threshold_is_rounding_and_another_is_not(tiny_lm, monkeypatch):
    row = Sample.draw(tiny_lm, text=TEXT, seed=0).row
    # Farther off than rounding moves an entropy, and nearer than `verify` allows for.
    tiny_lm.patch_rule = EntropyRule(threshold=float(tiny_lm.entropies(row)[0, 9]) + 2e-5)
    exact = tiny_lm.patches
    assert broken_laws(tiny_lm, among=[STEP]) == set()
    for moved, broken in ((9, set()), (10, {STEP})):

        def patches(byte_ids, moved=moved):
            ends = exact(byte_ids).ends.clone()
            ends[0, moved] ^= len(ends) == 1  # of the row; the batch holds other bytes
            return Patches(ends=ends)

        monkeypatch.setattr(tiny_lm, "patches", patches)
        assert broken_laws(tiny_lm, among=[STEP]) == broken


def test_a_model_whose_forward_is_not_that_of_its_parts_is_found_out(tiny_lm, monkeypatch):
    original = tiny_lm.forward
    monkeypatch.setattr(tiny_lm, "forward", lambda byte_ids: original(byte_ids) + 1)
    assert broken_laws(tiny_lm, among=[EDIT]) == {EDIT}


def test_a_leak_is_found_although_the_model_itself_ends_a_patch_after_every_byte(tiny_lm, monkeypatch):
    tiny_lm.patch_rule = ByteRule()
    reads_its_own_patch(tiny_lm, monkeypatch)
    assert broken_laws(tiny_lm, among=[EDIT, TRUNCATION, GRADIENT]) == {EDIT, TRUNCATION, GRADIENT}


def test_a_report_says_where_the_law_is_broken(tiny_lm, monkeypatch):
    sees_the_document_before(tiny_lm, monkeypatch)
    (report,) = [report for report in verify(tiny_lm, text=TEXT) if not report.held]
    assert report.deviation > report.tolerance
    assert report.where.startswith("document ")
    assert ": logits, after byte " in report.where


def test_a_sample_is_longer_than_every_window_and_holds_the_text(tiny_lm):
    row = Sample.draw(tiny_lm, text=None, seed=0).row
    assert row.shape[1] > 2 * tiny_lm.blt.config.local_encoder.window
    assert decode_bytes(row[0]).startswith(PARAGRAPH.encode())
    given = Sample.draw(tiny_lm, text=b"x" * (MAX_TEXT + 9), seed=0)
    assert decode_bytes(given.row[0, 1:]).startswith(b"x" * MAX_TEXT)
    assert any(len(document) == 2 for document in given.documents), "an empty document is among them"


def test_positions_lie_in_the_row_and_are_not_its_first(tiny_lm):
    for text in (b"a", None):
        sample = Sample.draw(tiny_lm, text=text, seed=1)
        for ends in (sample.random_ends, torch.zeros_like(sample.random_ends), torch.ones_like(sample.random_ends)):
            positions = sample.positions(9, ends=ends)
            assert positions == sorted(set(positions))
            assert 1 <= positions[0] <= positions[-1] == sample.length - 1


def test_another_id_is_another_byte(tiny_lm):
    sample = Sample.draw(tiny_lm, text=None, seed=1)
    for byte_id in range(260):
        assert sample.other_id(byte_id) not in (byte_id, 0, 1, 2, 3)


def test_an_empty_text_is_refused(tiny_lm):
    with pytest.raises(DataError, match="the text is empty"):
        verify(tiny_lm, text=b"")


def test_a_witness_measures_relative_to_large_figures_and_keeps_the_worst():
    witness = Witness("law", tolerance=0.01)
    witness.compare(torch.tensor([[0.0, 100.5]]), torch.tensor([[0.0, 100.0]]), "one")
    witness.compare(torch.tensor([[0.001, 0.0]]), torch.tensor([[0.0, 0.0]]), "another")
    report = witness.report()
    assert report.held
    assert report.deviation == pytest.approx(0.005)
    assert report.where == "one, after byte 1"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_breaks_a_law_and_is_no_infinity_in_json(value):
    witness = Witness("law", tolerance=0.01)
    witness.compare(torch.tensor([[0.0, value]]), torch.tensor([[0.0, value]]), "both")
    assert witness.report() == LawReport("law", False, math.inf, 0.01, "both, after byte 1")
    assert witness.report().to_dict()["deviation"] is None
