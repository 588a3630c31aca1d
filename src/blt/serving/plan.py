"""From the fields of a request to what the engine continues."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from blt.configuration import check
from blt.errors import ConfigurationError
from blt.generation import GenerationConfig, Request
from blt.serving.config import ServingConfig
from blt.serving.errors import APIError
from blt.serving.protocol import SamplingFields

DEFAULT_MAX_TOKENS = 300
"""Bytes that are written where a request does not say."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a request asks for."""

    prompts: Sequence[bytes]
    """What is continued."""
    config: GenerationConfig
    """How; choice number i of each prompt has the seed + i."""
    num_candidates: int
    """Texts that are written for each prompt."""
    num_choices: int
    """Texts that are answered for each prompt."""
    threshold_factor: float
    """What the thresholds of the patch rule are multiplied by."""

    async def requests(self) -> list[Request]:
        """Return one request for each text: all of the first prompt, then all of the next."""
        if self.config.regex is None and self.config.json_schema is None:
            return self._requests()
        return await asyncio.to_thread(self._requests)  # compiling a grammar takes its time

    def _requests(self) -> list[Request]:
        seed = self.config.seed
        configs = [
            replace(self.config, seed=None if seed is None else seed + number) for number in range(self.num_candidates)
        ]
        return [Request(prompt, config) for prompt in self.prompts for config in configs]


async def plan_of(
    fields: SamplingFields,
    prompts: Sequence[bytes],
    *,
    limits: ServingConfig,
    max_tokens: int | None,
    logprobs: int | None,
    best_of: int | None = None,
    more_stops: Sequence[str] = (),
) -> Plan:
    """Return what a request asks for.

    Args:
        fields: how the prompts are continued.
        prompts: what is continued.
        limits: what is allowed.
        max_tokens: bytes to write at most; None: as many as is usual.
        logprobs: how many likely bytes are told in place of each; None: neither they nor its own log-probability.
        best_of: texts to write for each prompt, of which the n best are answered.
        more_stops: stop strings that the request does not name.

    Raises:
        APIError, ConfigurationError: a field that cannot be, or is beyond a limit.
    """
    _check_model(fields, limits)
    new_bytes = min(DEFAULT_MAX_TOKENS, limits.max_new_bytes) if max_tokens is None else max_tokens
    _check_lengths(prompts, new_bytes, limits)
    num_choices, num_candidates = _num_texts(fields, best_of)
    if fields.stream_options is not None and not fields.stream:
        raise APIError("stream_options: goes with stream alone; leave it out", param="stream_options")
    check(
        fields.repetition_window is None or fields.repetition_penalty is not None,
        "repetition_window: goes with repetition_penalty alone; leave it out, or give both",
    )
    options = _sampling(fields) | _constraint(fields)
    options["max_new_bytes"], options["stop"] = new_bytes, [*fields.stop, *more_stops]
    needs_logprobs = num_candidates > num_choices  # to tell which are best
    options["logprobs"] = 0 if needs_logprobs and logprobs is None else logprobs
    is_constrained = options["regex"] is not None or options["json_schema"] is not None
    config = await asyncio.to_thread(GenerationConfig, **options) if is_constrained else GenerationConfig(**options)
    return Plan(
        prompts=prompts,
        config=config,
        num_candidates=num_candidates,
        num_choices=num_choices,
        threshold_factor=fields.threshold_factor or 1.0,
    )


def _check_model(fields: SamplingFields, limits: ServingConfig) -> None:
    if fields.model is not None and fields.model != limits.model_name:
        message = f"model: there is no {fields.model!r} here; this server has {limits.model_name!r}"
        raise APIError(message, status=404, param="model", code="model_not_found")


def _check_lengths(prompts: Sequence[bytes], new_bytes: int, limits: ServingConfig) -> None:
    if new_bytes > limits.max_new_bytes:
        message = f"max_tokens: {new_bytes} bytes, of which this server writes {limits.max_new_bytes}"
        raise APIError(message, param="max_tokens")
    longest = max(map(len, prompts))
    if longest > limits.max_prompt_bytes:
        message = f"prompt: {longest} bytes, of which this server reads {limits.max_prompt_bytes}; send a shorter one"
        raise APIError(message, param="prompt", code="context_length_exceeded")


def _num_texts(fields: SamplingFields, best_of: int | None) -> tuple[int, int]:
    """Return how many texts are answered for each prompt, and how many are written."""
    num_choices = fields.n or 1
    num_candidates = max(num_choices, best_of or num_choices)
    if best_of is not None and best_of < num_choices:
        raise APIError(f"best_of: at least n, which is {num_choices}, got {best_of}", param="best_of")
    if num_candidates > num_choices and fields.stream:
        raise APIError("best_of: a stream cannot know which will be best; leave one of them out", param="best_of")
    return num_choices, num_candidates


def _sampling(fields: SamplingFields) -> dict[str, Any]:
    """Return options of `GenerationConfig`; what a request does not say is as OpenAI's API has it."""
    return {
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "top_k": fields.top_k,
        "top_p": fields.top_p,
        "min_p": fields.min_p,
        "repetition_penalty": 1.0 if fields.repetition_penalty is None else fields.repetition_penalty,
        "repetition_window": fields.repetition_window,
        "presence_penalty": fields.presence_penalty or 0.0,
        "frequency_penalty": fields.frequency_penalty or 0.0,
        "logit_bias": fields.logit_bias,
        "valid_utf8": fields.valid_utf8,
        "seed": fields.seed,
    }


def _constraint(fields: SamplingFields) -> dict[str, Any]:
    """Return the one regex or schema that the answer has to follow."""
    given = {"regex": fields.regex, "json_schema": fields.json_schema}
    form = fields.response_format
    if form is None or form.type == "text":
        return given
    if any(one is not None for one in given.values()):
        raise ConfigurationError("response_format: regex or json_schema is given as well; leave one out")
    schema: dict[str, Any] = {} if form.json_schema is None else form.json_schema.schema_
    return {"regex": None, "json_schema": schema}
