"""Law: what is computed does not depend on PyTorch's global state, in decoding nor in training."""

import contextlib

import pytest
import torch
from tiny_models import packed_row, random_ends, text_row, tiny_blt, tiny_lm

from blt.codec import encode
from blt.generation import DraftConfig, Drafter, Engine, GenerationConfig, Request
from blt.lm import DecodingSession
from blt.nn import quantize_weights_
from blt.patching import Patches

pytestmark = pytest.mark.usefixtures("backend")
NEXT, OTHER = text_row(60)[:, 1:41], text_row(60, seed=3)
PROMPTS = (b"", b"Tom had a red ball. " * 3, "Zoë".encode())
every_shape = pytest.mark.parametrize("shape", ["one-query", "as-wide-as-vectors"])


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "another device": lambda: torch.device("meta"),
}
AROUND_DECODING = {
    **STATES,
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


def decoded(lm):
    """Logits of a parallel pass, of steps, and of several bytes at once with some taken back."""
    session = DecodingSession(lm, max_rollback=4)
    rows, logits = session.add([encode(prompt, bos=True) for prompt in PROMPTS])
    found = [logits]
    for at in range(0, 40, 4):
        found.append(session.read(NEXT[:, at : at + 4].expand(len(rows), -1), rows))
    more = session.start(1)
    found.append(session.read(OTHER, more))
    return found


def written(lm):
    requests = [Request(prompt, GenerationConfig(seed=1, max_new_bytes=30, valid_utf8=False)) for prompt in PROMPTS]
    engine = Engine(lm, drafter=Drafter(DraftConfig(by="entropy", max_draft=4, min_probability=0.0)))
    engine.add(requests)
    while engine.step():
        pass
    return [request.generation().data for request in requests]


@every_shape
@pytest.mark.parametrize("state", AROUND_DECODING)
def test_decoding_heeds_no_global_state(shape, state):
    lm = tiny_lm(shape=shape)
    expected, text = decoded(lm), written(lm)
    with AROUND_DECODING[state]():
        found, same_text = decoded(lm), written(lm)
    assert all(one.dtype == torch.float32 for one in found)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert same_text == text


@pytest.mark.parametrize("stored_as", ["bfloat16", "int8"])
@pytest.mark.parametrize("state", AROUND_DECODING)
def test_decoding_with_cheaper_weights_heeds_no_global_state(stored_as, state):
    lm = tiny_lm(shape="as-wide-as-vectors")
    with AROUND_DECODING[state]():
        quantize_weights_(lm, stored_as=stored_as)
        found = decoded(lm)
    again = tiny_lm(shape="as-wide-as-vectors")
    quantize_weights_(again, stored_as=stored_as)
    assert all(torch.equal(one, other) for one, other in zip(found, decoded(again), strict=True))


def trained(shape, *, autocast):
    """The loss and all gradients of a small batch."""
    model = tiny_blt(shape).train().requires_grad_()
    ids = packed_row(b"Tom had a ball.", b"", "Zoë ate 3".encode(), b"\xff\x00" * 5)
    ends = random_ends(*ids.shape)
    return model, ids, ends, autocast


def gradients(model, ids, ends, autocast):
    with torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext():
        logits = model(ids, Patches(ends=ends))
    loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:])
    return [loss, *torch.autograd.grad(loss, list(model.parameters()))]


@every_shape
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("state", STATES)
def test_training_heeds_no_global_state(shape, autocast, state):
    batch = trained(shape, autocast=autocast)
    expected = gradients(*batch)
    with STATES[state]():
        found = gradients(*batch)
    assert all(one.dtype == other.dtype for one, other in zip(found, expected, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
