"""The laws of causality, of batches and of cached steps on a GPU, on hand-written and on found boundaries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks_decoding import check_cached_step, check_rows_come_and_go, check_session, check_static_step
from checks_model import (
    assert_close,
    check_batch,
    check_edit,
    check_edit_of_whole,
    check_gradient,
    check_packed,
    check_padding,
    check_truncation,
    check_truncation_of_whole,
    given_patches,
)
from tiny_models import cut_documents, packed_row, random_ends, text_row, tiny_blt, tiny_lm

from blt.ops import only_references
from blt.patching import Patches

pytestmark = pytest.mark.gpu
LENGTH = 30
SHAPE = "two-encoder-layers-untied"


@pytest.fixture
def rows(device):
    """Ids and boundaries of a row."""
    return text_row(LENGTH).to(device), random_ends(1, LENGTH).to(device)


def test_a_forward_pass_is_that_of_the_cpu(device, rows):
    model, (ids, ends) = tiny_blt(SHAPE), rows
    with only_references():
        expected = model(ids.cpu(), Patches(ends=ends.cpu()))
    assert_close(model.to(device)(ids, Patches(ends=ends)).cpu(), expected, "the forward pass of the CPU")


def test_logits_hang_on_nothing_that_is_read_later(device, rows):
    model, (ids, ends) = tiny_blt(SHAPE).to(device), rows
    for position, new_id in ((1, 259), (17, 36), (LENGTH - 1, 4)):
        check_edit(given_patches(model), ids, ends, position=position, new_id=new_id)
        check_truncation(given_patches(model), ids, ends, length=position)
    check_gradient(model, ids, Patches(ends=ends), position=17)
    lm = tiny_lm().to(device)
    check_edit_of_whole(lm, ids, position=17, new_id=36)
    check_truncation_of_whole(lm, ids, length=18)


def test_rows_padding_and_documents_leave_each_other_alone(device, rows):
    model, (ids, ends) = tiny_blt(SHAPE).to(device), rows
    check_padding(given_patches(model), ids, ends, amount=9)
    check_batch(given_patches(model), [(ids[:, :7], ends[:, :7]), (ids, ends)])
    packed = packed_row(b"Tom had.", b"", b"ball")
    documents = cut_documents(packed)
    check_packed(given_patches(model), packed.to(device), random_ends(*packed.shape).to(device), documents=documents)


def test_a_cached_step_is_the_full_forward(device, rows):
    model, (ids, ends) = tiny_blt(SHAPE).to(device), rows
    check_cached_step(model, ids, ends)


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_it_is_through_the_patcher(device, lm, at_once):
    ids = torch.cat([text_row(15, seed=seed) for seed in range(2)]).to(device)
    check_session(lm.to(device), ids, at_once=at_once)


def test_rows_join_and_leave(device, lm):
    check_rows_come_and_go(lm.to(device), [text_row(length)[0].to(device) for length in (6, 11)], every=3)


@pytest.mark.parametrize("shape", ["one-query", "three-queries-read-first"])
def test_a_static_step_is_the_full_forward(device, shape):
    with only_references():
        check_static_step(tiny_lm(shape=shape).to(device), torch.cat([text_row(9), text_row(9, seed=1)]).to(device))


@pytest.mark.timeout(1200)
def test_compiled_static_steps_write_what_the_cpu_writes():
    name = os.environ.get("BLT_DEVICE")
    if not name:
        pytest.skip("a stand-in has nothing to compile for; name a device in BLT_DEVICE")
    program = Path(__file__).parents[1] / "laws" / "compiled_steps.py"
    command = [sys.executable, str(program), "--backend", "inductor", "--device", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for way, graphs in (("always", 1), ("skipping", 3)):
        assert found[way] == {"written": found["expected"], "graphs": graphs, "breaks": 0}
