"""A recipe's mixture: what is read of each source, and which of its documents stand for it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blt.data import Shards
from blt.data.mixture import MixedSource
from blt.training.recipe import DataConfig


def mixed_sources(data: DataConfig, train: Shards) -> list[MixedSource]:
    """Return the sources of a mixture; none for a recipe with a single folder.

    Args:
        data: the recipe's.
        train: the sources' splits, joined in their order.
    """
    if not data.sources:
        return []
    return [
        MixedSource(
            ids=part.ids,
            weight=float(len(part.ids)) if source.weight is None else source.weight,
            epochs=source.epochs,
        )
        for source, part in zip(data.sources, train.parts, strict=True)
    ]


def spans_of_documents(train: Shards, sources: Sequence[MixedSource], *, count: int) -> NDArray[np.int64]:
    """Return where the first documents lie in the id stream: of a mixture, of each source by its weight.

    Args:
        train: the documents.
        sources: the mixture; none: they are no mixture.
        count: how many documents, or as many as there are; at least one of each source.

    Returns:
        Start and stop of each, N × 2.
    """
    total = sum(source.weight for source in sources)
    shares = [source.weight / total for source in sources] or [1.0]
    documents = [part.documents for part in train.parts] if sources else [range(train.num_documents)]
    spans = []
    for share, numbers in zip(shares, documents, strict=True):
        offsets = train.id_offsets(numbers.start, numbers.start + min(max(1, round(share * count)), len(numbers)))
        spans.append(np.stack([offsets[:-1], offsets[1:]], axis=1))
    return np.concatenate(spans)
