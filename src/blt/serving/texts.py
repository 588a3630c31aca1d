"""What the page asks: how a text falls into patches, what it costs, what could stand in place of each byte."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

from blt import __version__
from blt.configuration import from_dict, to_dict
from blt.errors import ConfigurationError
from blt.evaluation.expectations import expected_bytes
from blt.generation import Alternative
from blt.inspection import Reading, flops_by_patch, read
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
        "flops": to_dict(flops_by_patch(lm, context_bytes=USUAL_CONTEXT)),
    }


async def show_patches(state: State, body: PatchRequest) -> dict[str, Any]:
    """Return the patches of a text, and what the model expects at every byte.

    Raises:
        APIError, ConfigurationError: a text that is too long, or a rule that cannot be.
    """
    data, rule = _checked(state, body)
    found = await state.worker.call(partial(read, state.lm, data, rule=rule, num_alternatives=body.alternatives))
    described = found.to_dict()
    if not body.alternatives:
        del described["alternatives"]
    return described | _patches(found)


async def show_alternatives(state: State, body: AlternativesRequest) -> dict[str, Any]:
    """Return what may follow a text.

    Raises:
        APIError, ConfigurationError: a text that is too long, or a rule that cannot be.
    """
    data, rule = _checked(state, body)
    found = await state.worker.call(partial(expected_bytes, state.lm, data, rule=rule))
    return {"alternatives": [_described(one) for one in found.alternatives_at(-1, body.count)]}


def _checked(state: State, body: TextFields) -> tuple[bytes, PatchRule | None]:
    """Return the bytes of a text, and the rule that was asked for.

    Raises:
        APIError: a text that is too long, or a rule that cannot be.
    """
    data, limit = body.data, state.config.max_read_bytes
    if len(data) > limit:
        raise APIError(f"the text has {len(data)} bytes, of which this server reads {limit}; send less of it")
    if body.rule is None:
        return data, None
    try:
        return data, from_dict(PatchRule, body.rule)
    except ConfigurationError as error:
        raise APIError(f"rule: {error}", param="rule") from None


def _patches(reading: Reading) -> dict[str, Any]:
    """Return where patches lie, and what they cost."""
    ends = list(reading.ends[1:])
    bounds = [0, *(number + 1 for number, is_end in enumerate(ends) if is_end)]
    if bounds[-1] < len(ends):
        bounds.append(len(ends))
    spans = list(pairwise(bounds))
    mean, cost = (len(ends) / len(spans) if spans else None), reading.flops
    per_byte = None if mean is None else cost.constant + cost.per_patch / mean + cost.per_patch_squared / mean**2
    return {
        "ends": ends,
        "patches": [{"start": start, "end": end, "is_complete": ends[end - 1]} for start, end in spans],
        "mean_patch_bytes": mean,
        "flops_per_byte": per_byte,
    }


def _described(one: Alternative) -> dict[str, Any]:
    data = b"" if one.byte is None else bytes([one.byte])
    return {
        "hex": data.hex(),
        "byte": one.byte,
        "probability": math.exp(one.logprob),
        "is_end": one.byte is None,
    }
