"""Rows of bytes, documents and rules for Hypothesis to choose from."""

from typing import Any

import torch
from hypothesis import strategies as st

from blt.codec import BOS_ID, EOS_ID, encode
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    PatchRule,
    SpaceRule,
    StaticRule,
)

nats = st.integers(0, 11).map(lambda halves: halves / 2)
"""Entropies and thresholds on one coarse grid, so that ties occur."""
byte_ids = st.integers(0, 259) | st.sampled_from([BOS_ID, EOS_ID]) | st.sampled_from(encode("a b, é\n7").tolist())
"""Any id, with document boundaries, words and spaces often enough to matter."""
max_lengths = st.none() | st.integers(1, 6)


def rules(max_lengths: st.SearchStrategy[int | None] = max_lengths) -> st.SearchStrategy[PatchRule]:
    """Every rule, with every kind of `max_length`, or with the given ones."""
    variants: dict[type, dict[str, Any]] = {
        EntropyRule: {"threshold": nats},
        EntropyRiseRule: {"threshold": nats.map(lambda value: value - 3)},
        EntropyAndRiseRule: {"threshold": nats, "rise_threshold": nats.map(lambda value: value - 3)},
        SpaceRule: {},
        StaticRule: {"length": st.integers(1, 7)},
        ByteRule: {},
    }
    return st.one_of([st.builds(rule, max_length=max_lengths, **fields) for rule, fields in variants.items()])


@st.composite
def batches(draw: st.DrawFn, *, max_rows: int = 3, min_size: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Byte ids and entropies of a few rows of the same length, with document boundaries anywhere."""
    num_rows, length = draw(st.integers(1, max_rows)), draw(st.integers(min_size, 24))
    size = num_rows * length
    ids = draw(st.lists(byte_ids, min_size=size, max_size=size))
    entropies = draw(st.lists(nats, min_size=size, max_size=size))
    shape = (num_rows, length)
    return torch.tensor(ids, dtype=torch.long).view(shape), torch.tensor(entropies, dtype=torch.float32).view(shape)


@st.composite
def documents(draw: st.DrawFn) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A few whole documents, from BOS to EOS, with their entropies."""
    found = []
    for data in draw(st.lists(st.binary(max_size=12), min_size=1, max_size=4)):
        ids = encode(data, bos=True, eos=True)
        found.append((ids, torch.tensor(draw(st.lists(nats, min_size=len(ids), max_size=len(ids))))))
    return found
