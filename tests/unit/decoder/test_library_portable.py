"""The portable build of the native decoder: the same bits whatever it was compiled for."""

import ctypes
import platform

import numpy as np
import pytest
import torch

from blt.codec import encode
from blt.decoder import library as c
from blt.decoder.decoding import NativeDecoding
from blt.decoder.packed import PackedModel
from blt.lm import DecodingSession
from blt.ops.native.compiler import PORTABLE_FLAGS, find_compiler

pytestmark = pytest.mark.skipif(c.library() is None, reason="no compiler here")
TEXT = "Once upon a time, there was a bär named Õla — 你好. " * 3


@pytest.fixture(scope="module", params=[8, 16], ids=lambda lanes: f"{lanes} lanes")
def generic(request, tmp_path_factory):
    """The portable decoder for the least processor of this kind, with another optimisation and width of vectors."""
    path = tmp_path_factory.mktemp("generic") / "decoder.so"
    march = ("-march=x86-64",) if platform.machine() == "x86_64" else ()
    flags = (
        "-O1",
        "-std=c++17",
        "-fPIC",
        "-shared",
        "-pthread",
        *march,
        *PORTABLE_FLAGS,
        f"-DBLT_LANES={request.param}",
    )
    find_compiler().compile(c.CORE / "decoder.cpp", flags, into=path)
    return c.declared(ctypes.CDLL(str(path)))


def logits_by(library, lm, *, threads, at_once):
    packed = PackedModel(library, lm.blt, lm.entropy_model, portable=True)
    decoding = NativeDecoding(packed, lm.patch_rule, max_rollback=16, num_threads=threads)
    ids = torch.stack([encode(TEXT[start:], bos=True)[:120] for start in (0, 7, 31)])
    rows = decoding.start(len(ids))
    return np.concatenate([decoding.read(part, rows).numpy() for part in ids.split(at_once, dim=1)], axis=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_generic_build_gives_the_bits_of_the_build_for_this_processor(tiny_lm, generic, dtype):
    lm = tiny_lm.to_type(dtype)
    expected = logits_by(c.library(portable=True), lm, threads=1, at_once=1)
    for threads, at_once in ((1, 1), (2, 16), (4, 5)):
        found = logits_by(generic, lm, threads=threads, at_once=at_once)
        assert (found.view(np.uint32) == expected.view(np.uint32)).all()
        found = logits_by(c.library(portable=True), lm, threads=threads, at_once=at_once)
        assert (found.view(np.uint32) == expected.view(np.uint32)).all()


def test_the_portable_decoder_agrees_with_the_model(tiny_lm):
    session = DecodingSession(tiny_lm, portable=True)
    ids = encode(TEXT, bos=True)[None]
    found = session.read(ids, session.start(1))
    with torch.inference_mode():
        expected = tiny_lm(ids)
    assert (found - expected).abs().max() < 1e-4


def test_both_builds_serve_one_model_side_by_side(tiny_lm):
    fast, portable = DecodingSession(tiny_lm), DecodingSession(tiny_lm, portable=True)
    ids = encode(TEXT, bos=True)
    first, second = fast.add([ids])[1], portable.add([ids])[1]
    assert (first - second).abs().max() < 1e-4
    assert (DecodingSession(tiny_lm).add([ids])[1] == first).all()
