"""Tiny models of odd shapes, rows of documents, and random boundaries for the laws."""

from itertools import pairwise

import pytest
import torch
from hypothesis import strategies as st

from blt.api import ByteLM
from blt.codec import BOS_ID, encode
from blt.entropy import EntropyConfig, EntropyModel
from blt.model import BLT, BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    PatchRule,
    SpaceRule,
    StaticRule,
)
from blt.shapes import Bool, Int, Tensor

SHAPES = {
    "one-query": BLTConfig(
        local_encoder=LocalConfig(dim=16, num_layers=1, num_heads=2, window=4),
        global_transformer=TransformerConfig(dim=16, num_layers=1, num_heads=2),
        local_decoder=LocalConfig(dim=16, num_layers=2, num_heads=1, window=6),
        hash_embedding=HashConfig(ngram_sizes=(3, 4), num_rows=61),
        queries_per_patch=1,
    ),
    "two-encoder-layers-untied": BLTConfig(
        local_encoder=LocalConfig(dim=24, num_layers=2, num_heads=3, window=7),
        global_transformer=TransformerConfig(dim=48, num_layers=2, num_heads=3),
        local_decoder=LocalConfig(dim=24, num_layers=1, num_heads=2, window=5),
        hash_embedding=HashConfig(ngram_sizes=(2, 8), num_rows=97, num_functions=2),
        queries_per_patch=2,
        tie_embeddings=False,
    ),
    "three-queries-read-first": BLTConfig(
        local_encoder=LocalConfig(dim=16, num_layers=1, num_heads=4, window=16),
        global_transformer=TransformerConfig(dim=32, num_layers=2, num_heads=4),
        local_decoder=LocalConfig(dim=16, num_layers=3, num_heads=2, window=4),
        hash_embedding=HashConfig(num_rows=50),
        queries_per_patch=3,
        decoder_cross_attention="first",
    ),
    "no-ngrams": BLTConfig(
        local_encoder=LocalConfig(dim=32, num_layers=2, num_heads=2, window=9),
        global_transformer=TransformerConfig(dim=24, num_layers=1, num_heads=2),
        local_decoder=LocalConfig(dim=32, num_layers=2, num_heads=4, window=8),
        hash_embedding=HashConfig(ngram_sizes=()),
        queries_per_patch=2,
        decoder_cross_attention="first",
        tie_embeddings=False,
    ),
    "as-wide-as-vectors": BLTConfig(  # what the fused functions of ops/native serve; the others are too narrow for them
        local_encoder=LocalConfig(dim=64, num_layers=1, num_heads=2, window=7),
        global_transformer=TransformerConfig(dim=96, num_layers=2, num_heads=3),
        local_decoder=LocalConfig(dim=64, num_layers=2, num_heads=2, window=20),
        hash_embedding=HashConfig(ngram_sizes=(3, 5), num_rows=64),
        queries_per_patch=2,
    ),
}
ENTROPY_SHAPE = EntropyConfig(dim=16, num_layers=2, num_heads=2, window=5)
TEXTS = (b"Tom had a red ball. ", "Zoë ate 3 crêpes, tout à coup – ok?".encode(), b"\xff\x00 no UTF-8 \xe2\x82")


def tiny_blt(shape: str = "one-query", *, seed: int = 0) -> BLT:
    """Return a BLT with random weights, norms included, so that each of them matters."""
    return _randomised(BLT(SHAPES[shape]), seed=seed)


def tiny_entropy_model(*, seed: int = 0) -> EntropyModel:
    """Return an entropy model with random weights, sharp enough that entropies vary by nats."""
    model = _randomised(EntropyModel(ENTROPY_SHAPE), seed=seed)
    with torch.no_grad():
        model.norm.weight.mul_(6)
    return model


def tiny_lm(rule: str = "entropy", *, shape: str = "one-query", seed: int = 0) -> ByteLM:
    """Return a whole language model with random weights."""
    entropy_model = tiny_entropy_model(seed=seed)
    return ByteLM(tiny_blt(shape, seed=seed), patch_rule=RULES[rule], entropy_model=entropy_model).eval()


def typical_entropy() -> float:
    """Return the median entropy of the entropy model of seed 0, which makes a threshold that many bytes cross."""
    return float(tiny_entropy_model().entropies(text_row(200)).median())


def text_row(length: int, *, seed: int = 0) -> Int[Tensor, "1 T"]:
    """Return a row of one document: BOS, some text, then random bytes; no EOS."""
    generator = torch.Generator().manual_seed(seed)
    noise = bytes(torch.randint(0, 256, (length,), generator=generator).tolist())
    return encode((b"".join(TEXTS) + noise)[: length - 1], bos=True)[None]


def random_ends(*shape: int, seed: int = 0, share: float = 0.3) -> Bool[Tensor, "B T"]:
    """Return hand-written boundaries that no rule would choose, also none at a BOS."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def packed_row(*documents: bytes, eos: bool = True) -> Int[Tensor, "1 T"]:
    """Lay documents end to end, each behind its BOS."""
    return torch.cat([encode(document, bos=True, eos=eos) for document in documents])[None]


def cut_documents(row: Int[Tensor, "1 T"]) -> list[slice]:
    """Return which part of a row each document is; what stands before the first BOS is one too."""
    starts = sorted({0, *(row[0] == BOS_ID).nonzero()[:, 0].tolist()})
    return [slice(start, stop) for start, stop in pairwise([*starts, row.shape[1]])]


@st.composite
def rows_and_ends(draw: st.DrawFn, *, max_length: int = 40) -> tuple[Int[Tensor, "1 T"], Bool[Tensor, "1 T"]]:
    """Draw a row of few different ids, special ones among them, and any boundaries at all."""
    length = draw(st.integers(2, max_length))
    ids = draw(st.lists(st.sampled_from((0, 1, 2, 3, 4, 36, 101, 102, 259)), min_size=length, max_size=length))
    ends = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    return torch.tensor([ids]), torch.tensor([ends])


def _randomised(model: torch.nn.Module, *, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[-1] ** -0.5)
    return model.eval().requires_grad_(False)


_TYPICAL = typical_entropy()
RULES: dict[str, PatchRule] = {
    "entropy": EntropyRule(threshold=_TYPICAL),
    "entropy-cut": EntropyRule(threshold=_TYPICAL + 0.5, max_length=3),
    "entropy-rise": EntropyRiseRule(threshold=0.1),
    "entropy-and-rise": EntropyAndRiseRule(threshold=_TYPICAL, rise_threshold=0.0),
    "space": SpaceRule(),
    "static": StaticRule(length=4),
    "byte": ByteRule(),
}
"""Every patch rule."""
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_rule_and_shape = pytest.mark.parametrize(
    ("rule", "shape"),
    sorted({(rule, list(SHAPES)[index % len(SHAPES)]) for index, rule in enumerate(RULES)})
    + [("entropy", shape) for shape in list(SHAPES)[1:]],
)
"""Every rule on some shape and every shape with entropies: a product of both would find no more."""
