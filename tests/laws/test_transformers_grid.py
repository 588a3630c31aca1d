"""Agreement with transformers over every combination of shapes that differ in kind, and over odd ones drawn at random.

Each model has random weights, and a threshold amid the entropies of the text, so that its patches are of all lengths.
"""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.interop import read_transformers
from blt.model import HashConfig, LocalConfig, TransformerConfig
from blt.patching import Patches
from transformers_models import (
    IDS,
    Theirs,
    deviation,
    logits_of,
    our_lm,
    ours,
    own_patch_lengths,
    patch_lengths,
    random_ends,
    with_epsilon,
    written,
)

TOLERANCE = 1e-4
HEADS = (1, 2, 3, 4, 6)  # all divide the width of 24
REST = list(itertools.product((False, True), (1, 2, 3)))

every_kind = pytest.mark.parametrize(("k", "encoder_layers"), list(itertools.product((1, 2, 3, 4), (1, 2, 3))))


def agree(lm, model):
    """Hold that logits agree on patches that no rule chose, and that each makes the same patches by itself."""
    ends = random_ends(seed=1)
    assert deviation(lm.blt(IDS, Patches(ends=ends)), logits_of(model, IDS, ends)) < TOLERANCE
    mine = lm.patches(IDS)
    lengths, theirs = patch_lengths(mine.ends), own_patch_lengths(model, IDS)
    assert torch.equal(lengths[lengths > 0], theirs[theirs > 0])
    assert 5 < lengths.shape[1] < IDS.shape[1]
    assert deviation(lm(IDS), logits_of(model, IDS)) < TOLERANCE


def agrees_when_read(shape):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        model = shape.save(scratch)
        agree(read_transformers(scratch), model)


def agrees_when_written(shape):
    """Rescaling a residual is exact but for the ε of norms, so that of such a model is next to nothing here."""
    torch.manual_seed(0)
    if shape.cross_attention_residual == "once":
        shape = with_epsilon(shape, 1e-9)
    lm = our_lm(shape)
    with tempfile.TemporaryDirectory() as scratch:
        agree(lm, written(lm, Path(scratch) / "theirs"))


@every_kind
def test_every_kind_of_model_of_theirs_agrees_here(k, encoder_layers):
    for number, (cross, functions) in enumerate(REST):
        heads = HEADS[(k + encoder_layers + number) % 5], 4, HEADS[(k + number) % 5], 2
        shape = Theirs(
            k=k,
            encoder_layers=encoder_layers,
            encoder_cross=cross,
            decoder_cross=cross ^ (k % 2 == 0),
            functions=functions,
            local_dim=48,
            heads=heads,
        )
        agrees_when_read(shape)


@every_kind
def test_every_kind_of_model_of_ours_agrees_there(k, encoder_layers):
    for number, (cross, functions) in enumerate(REST):
        local = LocalConfig(dim=48, num_layers=2, num_heads=HEADS[(k + number) % 5], window=16)
        encoder = dataclasses.replace(local, num_layers=encoder_layers, num_heads=HEADS[(k + encoder_layers) % 5])
        shape = ours(
            queries_per_patch=k,
            local_encoder=encoder,
            local_decoder=local,
            decoder_cross_attention="every" if cross else "first",
            hash_embedding=HashConfig(ngram_sizes=(3, 4), num_rows=61, num_functions=functions),
            cross_attention_residual="once" if (k + number) % 2 else "twice",
        )
        agrees_when_written(shape)


@st.composite
def odd_stacks(draw, *, dim=None):
    """Draw the fields of a stack: heads divide the width, and each is even.

    Below a width of 8 a state can be so near to zero that its norm makes rounding visible: both models then differ from
    the same model in double precision by as much as from one another.
    """
    dim = dim or 2 * draw(st.integers(4, 20))
    return {
        "dim": dim,
        "num_heads": draw(st.sampled_from([heads for heads in range(1, 7) if dim % (2 * heads) == 0])),
        "num_layers": draw(st.integers(1, 3)),
        "feed_forward_dim": draw(st.integers(1, 70)),
    }


@st.composite
def odd_shapes(draw):
    """Draw fields, as plain values."""
    encoder = draw(odd_stacks())
    return {
        "encoder": encoder,
        "latent": draw(odd_stacks()),
        "decoder": draw(odd_stacks(dim=encoder["dim"])),
        "window": draw(st.integers(1, 100)),
        "hashing": {
            "ngram_sizes": tuple(draw(st.lists(st.integers(2, 9), min_size=1, max_size=4, unique=True))),
            "num_rows": draw(st.integers(1, 90)),
            "num_functions": draw(st.integers(1, 3)),
        },
        "k": draw(st.integers(1, 4)),
        "every": draw(st.booleans()),
        "tied": draw(st.booleans()),
        "theta": draw(st.sampled_from([100.0, 10000.0, 500000.0])),
    }


@settings(max_examples=25, deadline=None)
@given(drawn=odd_shapes(), residual=st.sampled_from(["once", "twice"]))
def test_odd_models_of_ours_agree_there(drawn, residual):
    shape = ours(
        local_encoder=LocalConfig(**drawn["encoder"], window=drawn["window"]),
        global_transformer=TransformerConfig(**drawn["latent"]),
        local_decoder=LocalConfig(**drawn["decoder"], window=drawn["window"]),
        hash_embedding=HashConfig(**drawn["hashing"]),
        queries_per_patch=drawn["k"],
        decoder_cross_attention="every" if drawn["every"] else "first",
        cross_attention_residual=residual,
        tie_embeddings=drawn["tied"],
        rope_theta=drawn["theta"],
    )
    agrees_when_written(shape)


@settings(max_examples=25, deadline=None)
@given(drawn=odd_shapes(), encoder_cross=st.booleans(), share=st.booleans())
def test_odd_models_of_theirs_agree_here(drawn, encoder_cross, share):
    stacks = drawn["encoder"], drawn["latent"], drawn["decoder"]
    shape = Theirs(
        k=drawn["k"],
        encoder_layers=drawn["encoder"]["num_layers"],
        encoder_cross=encoder_cross,
        decoder_layers=drawn["decoder"]["num_layers"],
        decoder_cross=drawn["every"],
        functions=drawn["hashing"]["num_functions"],
        ngrams=list(drawn["hashing"]["ngram_sizes"]),
        local_dim=drawn["encoder"]["dim"],
        global_dim=drawn["latent"]["dim"],
        heads=(*(stack["num_heads"] for stack in stacks), 2),
        key_value_heads=(1, 1, 1, 1) if share else (None, None, None, None),
        hidden=(*(stack["feed_forward_dim"] for stack in stacks), 21),
        window=drawn["window"],
        tied=drawn["tied"],
        theta=drawn["theta"],
    )
    agrees_when_read(shape)
