"""Another team's implementation agrees: transformers' `BltForCausalLM`, read and written, on the same weights.

It is a dependency of the tests (extra `test`), and without it these tests fail.
"""

import dataclasses
import json

import pytest
import torch

from blt.api import ByteLM
from blt.codec import encode
from blt.interop import read_transformers, write_transformers
from blt.interop.transformers_blt import notes
from blt.lm import LMConfig
from blt.model import BLT
from blt.patching import ByteRule, Patches
from transformers_models import (
    IDS,
    OURS,
    TEXT,
    THEIRS,
    AutoTokenizer,
    BltForCausalLM,
    deviation,
    logits_of,
    our_lm,
    own_patch_lengths,
    patch_lengths,
    random_ends,
    randomise,
    relative_deviation,
    with_epsilon,
    written,
)

TOLERANCE = 1e-4

every_model_of_theirs = pytest.mark.parametrize("name", THEIRS)
every_shape_of_ours = pytest.mark.parametrize("name", OURS)


@every_model_of_theirs
def test_a_model_of_theirs_has_the_same_logits_here(name, tmp_path):
    model = THEIRS[name].save(tmp_path)
    lm = read_transformers(tmp_path)
    assert lm.blt.config.cross_attention_residual == "twice"
    for ends in (random_ends(seed=1), random_ends(seed=2)):
        assert deviation(lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)) < TOLERANCE


@every_model_of_theirs
def test_a_model_of_theirs_makes_the_same_patches_here_and_predicts_the_same_from_them(name, tmp_path):
    model = THEIRS[name].save(tmp_path)
    lm = read_transformers(tmp_path)
    ends = lm.patches(IDS).ends
    if name == "every-byte-a-patch":
        assert bool(ends.all())
    else:
        theirs, ours = own_patch_lengths(model, IDS), patch_lengths(ends)
        assert torch.equal(theirs[theirs > 0], ours[ours > 0])
        assert 10 < ours.shape[1] < IDS.shape[1]
    compared = slice(0, -1 if name == "longest-patch" else None)  # see `last_byte_note`
    assert deviation(lm(IDS)[:, compared], logits_of(model, IDS)[:, compared]) < TOLERANCE


def test_with_a_longest_patch_the_last_byte_alone_may_differ_there(tmp_path):
    model = THEIRS["longest-patch"].save(tmp_path)
    lm = read_transformers(tmp_path)
    ends = lm.patches(IDS).ends[0].tolist()
    closing, inside = ends.index(True, 20), ends.index(False, 20)
    for last, agrees in ((inside, True), (closing, False)):
        ids = IDS[:, : last + 1]
        assert (deviation(lm(ids)[:, -1], logits_of(model, ids)[:, -1]) < TOLERANCE) == agrees


@every_shape_of_ours
def test_a_model_of_ours_has_the_same_logits_there(name, tmp_path):
    lm = our_lm(OURS[name])
    model = written(lm, tmp_path)
    for ends in (random_ends(seed=1), random_ends(seed=2)):
        mine, theirs = lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)
        assert relative_deviation(mine, theirs) < TOLERANCE
        if lm.blt.config.cross_attention_residual == "twice":
            assert deviation(mine, theirs) < TOLERANCE


@every_shape_of_ours
def test_only_the_epsilon_of_norms_keeps_a_rescaled_residual_from_being_exact(name, tmp_path):
    lm = our_lm(with_epsilon(OURS[name], 1e-9))
    model = written(lm, tmp_path)
    ends = random_ends(seed=1)
    assert deviation(lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)) < TOLERANCE / 3


@every_shape_of_ours
def test_a_model_of_ours_makes_the_same_patches_there_and_predicts_the_same_from_them(name, tmp_path):
    lm = our_lm(OURS[name])
    model = written(lm, tmp_path)
    ours = patch_lengths(lm.patches(IDS).ends)
    assert torch.equal(own_patch_lengths(model, IDS), ours)
    assert 10 < ours.shape[1] < IDS.shape[1]
    assert relative_deviation(lm(IDS), logits_of(model, IDS)) < TOLERANCE


def test_a_model_of_ours_without_an_entropy_model_makes_a_patch_of_every_byte_there(tmp_path):
    lm = ByteLM.new(LMConfig(blt=OURS["plain"], patch_rule=ByteRule()))
    randomise(lm)
    model = written(lm.eval(), tmp_path)
    assert relative_deviation(lm(IDS), logits_of(model, IDS)) < TOLERANCE


def test_windows_that_differ_agree_up_to_the_smaller_one_and_only_so_far(tmp_path):
    shape = OURS["residual-twice"]
    shape = dataclasses.replace(shape, local_encoder=dataclasses.replace(shape.local_encoder, window=9))
    lm = our_lm(shape)
    model, ends = written(lm, tmp_path), random_ends(seed=1)
    mine, theirs = lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)
    assert deviation(mine[:, :9], theirs[:, :9]) < TOLERANCE
    assert deviation(mine[:, 9:], theirs[:, 9:]) > 10 * TOLERANCE
    assert any("outputs differ past 9 bytes" in line for line in notes(lm.config))


def test_a_transformers_that_knows_no_window_agrees_up_to_it_and_only_so_far(tmp_path):
    lm = our_lm(OURS["residual-twice"])
    write_transformers(lm, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"local_attention_window_len": None}))
    model, ends = BltForCausalLM.from_pretrained(tmp_path).eval(), random_ends(seed=1)
    mine, theirs = lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)
    assert deviation(mine[:, :16], theirs[:, :16]) < TOLERANCE
    assert deviation(mine[:, 16:], theirs[:, 16:]) > 10 * TOLERANCE
    assert any("windowed (16 bytes)" in line for line in notes(lm.config))


@pytest.mark.parametrize("name", ["plain", "three-queries-read-first", "residual-twice"])
def test_a_written_folder_continues_greedily_with_the_same_bytes(name, tmp_path):
    lm = our_lm(dataclasses.replace(OURS[name], tie_embeddings=False))  # tied random ones only repeat themselves
    model = written(lm, tmp_path)
    mine = lm.generate(TEXT, max_new_bytes=24, temperature=0, valid_utf8=False)
    theirs = model.generate(IDS, max_new_tokens=24, do_sample=False)[0, IDS.shape[1] :]
    ids = [byte + 4 for byte in mine.new_bytes] + [2] * (mine.stopped_by == "eos")
    assert theirs.tolist() == ids
    assert len(set(ids)) > 3


def test_the_bundled_model_predicts_the_same_there(tmp_path):
    lm = ByteLM.from_pretrained()
    model = written(lm, tmp_path)
    assert torch.equal(own_patch_lengths(model, IDS), patch_lengths(lm.patches(IDS).ends))
    assert relative_deviation(lm(IDS), logits_of(model, IDS)) < TOLERANCE / 3


def test_only_the_epsilon_of_norms_keeps_the_bundled_model_from_being_exact_there(tmp_path):
    bundled = ByteLM.from_pretrained()
    blt = BLT(with_epsilon(bundled.blt.config, 1e-9))
    blt.load_state_dict(bundled.blt.state_dict())
    lm = ByteLM(blt.eval(), patch_rule=bundled.patch_rule, entropy_model=bundled.entropy_model)
    assert deviation(lm(IDS), logits_of(written(lm, tmp_path), IDS)) < TOLERANCE / 3


def test_a_written_folder_has_a_tokenizer_of_the_same_ids(tiny_lm, tmp_path):
    model = written(tiny_lm, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "", " ", "\r\n\t \0", "  two  spaces ", "".join(map(chr, range(800))), "🙂 e\u0301 \u202e"):
        ids = tokenizer(text).input_ids
        assert ids == encode(text, bos=True).tolist()
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    written_ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
    ours = tiny_lm.generate("Once upon a time", max_new_bytes=8, temperature=0, valid_utf8=False)
    assert written_ids[len(inputs.input_ids[0]) :].tolist() == [byte + 4 for byte in ours.new_bytes]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, 260)


def plant_a_residual_added_once(lm):
    for part in lm.blt.modules():
        if hasattr(part, "residual"):
            part.residual = "once"


def plant_unmoved_rows(lm):
    weight = lm.blt.local_decoder.layers.layers[0].attention.query.weight
    pairs = weight.data.unflatten(0, (3, 2, -1))
    weight.data = pairs.transpose(1, 2).flatten(0, 2)


def plant_another_epsilon(lm):
    lm.blt.local_decoder.norm.eps = 1e-2


def plant_other_tables(lm):
    hashing = lm.blt.hash_embedding.config
    lm.blt.config = dataclasses.replace(
        lm.blt.config, hash_embedding=dataclasses.replace(hashing, ngram_sizes=hashing.ngram_sizes[::-1])
    )


def plant_another_window(lm):
    stack = lm.blt.local_encoder.layers
    stack.shape = dataclasses.replace(stack.shape, window=15)


def plant_another_split_of_queries(lm):
    weight = lm.blt.local_encoder.to_queries.weight
    weight.data = weight.data.unflatten(0, (2, -1)).flip(0).flatten(0, 1)


@pytest.mark.parametrize(
    "plant",
    [
        plant_a_residual_added_once,
        plant_unmoved_rows,
        plant_another_epsilon,
        plant_other_tables,
        plant_another_window,
        plant_another_split_of_queries,
    ],
)
def test_a_flaw_would_be_noticed(plant, tmp_path):
    model = THEIRS["plain"].save(tmp_path)
    lm = read_transformers(tmp_path)
    plant(lm)
    ends = random_ends(seed=1)
    assert deviation(lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)) > 10 * TOLERANCE
