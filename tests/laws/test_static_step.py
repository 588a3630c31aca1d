"""Law 4 for static steps: a step of fixed shapes is the full forward, and the steps that host and device share."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checks_decoding import NOT_COMPILED, check_static_step
from checks_model import assert_close
from tiny_models import every_rule_and_shape, packed_row, text_row, tiny_lm
from torch._dynamo.exc import BackendCompilerFailed

from blt.errors import ConfigurationError
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.lm import DecodingSession, StaticConfig
from blt.lm.static_decoding import StaticDecoding
from blt.model.states import EncoderState
from blt.ops import only_references
from shape_checks import shape_checks

pytestmark = pytest.mark.usefixtures("without_shape_checks")
both_ways = pytest.mark.parametrize("skips_global", [False, True])


@every_rule_and_shape
def test_a_static_step_is_the_full_forward_at_every_byte(rule, shape):
    documents = packed_row(b"Tom had.", b"", "Zoë ate 3".encode(), b"\xff" * 9)
    length = documents.shape[1]
    check_static_step(tiny_lm(rule, shape=shape), torch.cat([text_row(length), documents]))


def test_so_it_is_with_shape_checks():
    with shape_checks(on=True):
        check_static_step(tiny_lm("entropy"), text_row(8))


@pytest.mark.parametrize("shape", ["two-encoder-layers-untied", "three-queries-read-first"])
def test_so_it_is_where_the_global_transformer_is_skipped(shape):
    ids = torch.cat([text_row(30, seed=1), text_row(30, seed=2)])
    check_static_step(tiny_lm("entropy", shape=shape), ids, config=replace(NOT_COMPILED, skips_global=True))


def test_more_rows_and_longer_patches_than_there_is_room_for_get_it():
    ids = torch.cat([text_row(30, seed=seed) for seed in range(4)])
    config = StaticConfig(num_rows=1, max_patches=1, max_patch_bytes=1, backend=None)
    for rule in ("entropy", "byte"):
        check_static_step(tiny_lm(rule), ids, config=config)


def test_steps_of_both_kinds_go_on_from_one_another():
    lm, ids = tiny_lm("entropy"), torch.cat([text_row(50, seed=1), text_row(50, seed=2)])
    expected = lm(ids)
    session = DecodingSession(lm, static=NOT_COMPILED)
    rows, logits = session.add([row[:9] for row in ids])
    assert_close(logits, expected[:, 8], "prefill")
    for first in range(9, 45, 9):
        for position in range(first, first + 3):  # static
            assert_close(session.read(ids[:, position, None], rows)[:, 0], expected[:, position], f"byte {position}")
        part = slice(first + 3, first + 7)  # dynamic, of which two are taken back
        step = session.step(rows)
        step.advance_patcher(ids[:, part])
        assert_close(step.forward(), expected[:, part], f"bytes from {first + 3}")
        step.rewind(np.full(2, 2))
        part = slice(first + 5, first + 9)
        assert_close(session.read(ids[:, part], rows), expected[:, part], f"bytes from {first + 5}")


def written(lm, *, static, drafter=None):
    """Continue requests of many kinds, some of which join later; return their bytes."""
    engine = Engine(lm, static=static, drafter=drafter)
    config = {"max_new_bytes": 12, "valid_utf8": False, "temperature": 1.0}
    requests = [
        Request(b"Tom had a", GenerationConfig(**config, seed=1)),
        Request(b"", GenerationConfig(**config | {"temperature": 0})),
        Request("Zoë".encode(), GenerationConfig(**config, seed=2, regex="[a-f]+ [0-9]{3}")),
        Request(b"ball", GenerationConfig(**config, seed=3, repetition_penalty=1.3, logprobs=2)),
    ]
    for request in requests:
        engine.add([request])
        for _ in range(3):
            engine.step()
    while engine.step():
        pass
    return [bytes(request.new_bytes) for request in requests]


@both_ways
def test_the_engine_writes_the_same_by_static_steps(skips_global):
    pytest.importorskip("llguidance")
    lm = tiny_lm("entropy", shape="two-encoder-layers-untied")
    with only_references():
        expected = written(lm, static=None)
        assert written(lm, static=replace(NOT_COMPILED, skips_global=skips_global)) == expected
    assert all(expected)


def test_a_static_step_reads_no_drafts():
    with pytest.raises(ConfigurationError, match="not both"):
        written(tiny_lm("entropy"), static=NOT_COMPILED, drafter=Drafter(DraftConfig()))


def test_a_compiler_that_fails_is_named_in_one_line(monkeypatch):
    def failing(*_):
        raise BackendCompilerFailed(print, RuntimeError("no C++ compiler\nand much more"), None)

    monkeypatch.setattr(torch, "compile", lambda function, **options: failing)
    with pytest.raises(ConfigurationError, match=r"torch\.compile failed \(.*no C\+\+ compiler\); leave static out$"):
        written(tiny_lm("entropy"), static=replace(NOT_COMPILED, backend="inductor"))


def plant_rows_that_all_read(monkeypatch):
    honest = StaticDecoding._places

    def places(self, ids):
        is_read, *rest = honest(self, ids)
        return torch.ones_like(is_read), *rest

    monkeypatch.setattr(StaticDecoding, "_places", places)


def plant_patches_that_are_all_complete(monkeypatch):
    honest = StaticDecoding._advance
    monkeypatch.setattr(StaticDecoding, "_advance", lambda self, ids: honest(self, ids) | True)


def plant_hashes_of_other_bytes(monkeypatch):
    honest = StaticDecoding._hashes
    monkeypatch.setattr(StaticDecoding, "_hashes", lambda self, *places: honest(self, *places).roll(1, 0))


def plant_longer_patches(monkeypatch):
    honest = EncoderState._pooled_slots
    monkeypatch.setattr(EncoderState, "_pooled_slots", lambda self, firsts, lasts: honest(self, firsts - 1, lasts))


FLAWS = [
    plant_rows_that_all_read,
    plant_patches_that_are_all_complete,
    plant_hashes_of_other_bytes,
    plant_longer_patches,
]


@pytest.mark.parametrize("plant", FLAWS, ids=lambda plant: plant.__name__)
def test_the_law_notices_a_planted_flaw(monkeypatch, plant):
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="static step"):
        check_static_step(tiny_lm("entropy"), torch.cat([text_row(30, seed=seed) for seed in range(3)]))


@pytest.mark.timeout(900)
def test_200_compiled_steps_are_one_graph_each_and_never_compiled_again():
    program = Path(__file__).parent / "compiled_steps.py"
    command = [sys.executable, str(program), "--backend", "eager", "--skip-global", "yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(len(text) == 2 * 200 for text in found["expected"])
    assert found["skipping"] == {"written": found["expected"], "graphs": 3, "breaks": 0}
