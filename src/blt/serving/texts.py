"""What the page asks: how a text falls into patches, what it costs, what could stand in place of each byte."""

import asyncio
import math
from functools import partial
from itertools import pairwise
from typing import Any

from blt import __version__
from blt.configuration import from_dict, to_dict
from blt.errors import ConfigurationError
from blt.evaluation.reading import Reading, read_text
from blt.generation import Alternative
from blt.lm import LanguageModel
from blt.model.cost import cost_of
from blt.patching import PatchRule
from blt.serving.errors import APIError
from blt.serving.protocol import AlternativesRequest, PatchRequest, TextFields
from blt.serving.state import State

USUAL_CONTEXT = 512
"""Bytes of a text for which costs are told where no text is given."""


def describe_model(state: State) -> dict[str, Any]:
    """Return what the page has to know of the model."""
    lm, limits = state.lm, state.config
    return {
        "id": limits.model_name,
        "version": __version__,
        "rule": to_dict(lm.patch_rule),
        "has_entropy_model": lm.entropy_model is not None,
        "max_bytes": limits.max_read_bytes,
        "max_alternatives": 257,
        "max_tokens": limits.max_new_bytes,
        "flops": flops(lm, context_bytes=USUAL_CONTEXT),
    }


def flops(lm: LanguageModel, *, context_bytes: int) -> dict[str, Any]:
    """Return FLOPs per byte as a polynomial of patches per byte (p): constant + per_patch · p + per_patch_squared · p².

    The global transformer runs once per patch, and looks back at a number of patches: nothing else depends on p. So
    the costs at three mean patch lengths (1, 2 and 4 bytes) tell all of it.
    """
    config = lm.config
    at_1, at_2, at_4 = (
        cost_of(
            config.blt, mean_patch_bytes=mean, context_bytes=context_bytes, entropy_model=config.entropy_model
        ).flops_with_entropy_model
        for mean in (1.0, 2.0, 4.0)
    )
    squared = (8 * at_1 - 24 * at_2 + 16 * at_4) / 3
    linear = (at_1 - at_2) / 0.5 - 1.5 * squared
    return {
        "context_bytes": context_bytes,
        "constant": at_1 - linear - squared,
        "per_patch": linear,
        "per_patch_squared": squared,
    }


async def show_patches(state: State, body: PatchRequest) -> dict[str, Any]:
    """Return the patches of a text, and what the model expects at every byte.

    Raises:
        APIError, ConfigurationError: a text that is too long, or a rule that cannot be.
    """
    reading, rule = await _read(state, body)
    return await asyncio.to_thread(_patches, state.lm, reading, rule, body)


async def show_alternatives(state: State, body: AlternativesRequest) -> dict[str, Any]:
    """Return what may follow a text.

    Raises:
        APIError, ConfigurationError: a text that is too long, or a rule that cannot be.
    """
    reading, _ = await _read(state, body)
    return {"alternatives": [_described(one) for one in reading.alternatives_at(-1, body.count)]}


async def _read(state: State, body: TextFields) -> tuple[Reading, PatchRule]:
    data, limit = body.data, state.config.max_read_bytes
    if len(data) > limit:
        raise APIError(f"the text has {len(data)} bytes, of which this server reads {limit}; send less of it")
    rule = state.lm.patch_rule
    if body.rule is not None:
        try:
            rule = from_dict(PatchRule, body.rule)
        except ConfigurationError as error:
            raise APIError(f"rule: {error}", param="rule") from None
    return await state.worker.call(partial(read_text, state.lm, data, rule=rule)), rule


def _patches(lm: LanguageModel, reading: Reading, rule: PatchRule, body: PatchRequest) -> dict[str, Any]:
    bits = reading.bits_by_byte().tolist()
    ends = reading.ends[1:].tolist()
    num_bytes = len(ends)
    stops = [number + 1 for number, is_end in enumerate(ends) if is_end]
    bounds = [0, *stops] if stops[-1:] == [num_bytes] or num_bytes == 0 else [0, *stops, num_bytes]
    spans = list(pairwise(bounds))
    mean = num_bytes / len(spans) if spans else None
    cost = flops(lm, context_bytes=body.context_bytes or max(1, num_bytes))
    described = {
        "hex": reading.data.hex(),
        "rule": to_dict(rule),
        "start_entropy": None if reading.entropies is None else float(reading.entropies[0]),
        "entropies": None if reading.entropies is None else reading.entropies[1:].tolist(),
        "ends": ends,
        "patches": [{"start": start, "end": end, "is_complete": ends[end - 1]} for start, end in spans],
        "surprise": bits[:-1],
        "end_surprise": bits[-1],
        "mean_patch_bytes": mean,
        "flops": cost,
        "flops_per_byte": None if mean is None else _flops_at(cost, mean),
    }
    if body.alternatives:
        found = reading.alternatives(body.alternatives)
        described["alternatives"] = [[[one.byte, math.exp(one.logprob)] for one in some] for some in found]
    return described


def _flops_at(cost: dict[str, Any], mean: float) -> float:
    value = cost["constant"] + cost["per_patch"] / mean + cost["per_patch_squared"] / mean**2
    return float(value)


def _described(one: Alternative) -> dict[str, Any]:
    data = b"" if one.byte is None else bytes([one.byte])
    return {
        "hex": data.hex(),
        "byte": one.byte,
        "probability": math.exp(one.logprob),
        "is_end": one.byte is None,
    }
