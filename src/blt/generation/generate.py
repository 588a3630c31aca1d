"""Continuing prompts with a `LanguageModel`."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Unpack

from blt.codec import Utf8Stream
from blt.errors import BLTError
from blt.generation.engine import Engine
from blt.generation.request import Generation, GenerationConfig, GenerationOptions, Request
from blt.lm import LanguageModel, StaticConfig


def generate(
    lm: LanguageModel,
    prompt: str | bytes = "",
    *,
    static: StaticConfig | None = None,
    **options: Unpack[GenerationOptions],
) -> Generation:
    """Continue a prompt.

    Args:
        lm: the model.
        prompt: any text or bytes; the empty one asks for a document from its start.
        static: write by compiled steps of fixed shapes, which pay on a GPU (`blt.lm.StaticConfig`).
        options: the fields of `GenerationConfig`: `max_new_bytes` (300), `temperature` (0.7; 0 is greedy), `top_k`,
            `top_p`, `min_p`, `repetition_penalty`, `repetition_window`, `presence_penalty`, `frequency_penalty`,
            `logit_bias` (by id), `valid_utf8` (by default on if the prompt is UTF-8), `regex` or `json_schema` (what is
            written matches it), `seed`, `stop` (one stop string or several, as text or bytes) and `logprobs`.

    Raises:
        ConfigurationError: an option that cannot be, or a regex or JSON schema that grows too complex on the way.
        ModelFolderError: the model's logits are no numbers.
    """
    (request,) = _continued(lm, [prompt], GenerationConfig.of(options), static=static)
    if request.error is not None:
        raise request.error
    return request.generation()


def generate_batch(
    lm: LanguageModel,
    prompts: Sequence[str | bytes],
    *,
    static: StaticConfig | None = None,
    **options: Unpack[GenerationOptions],
) -> list[Generation]:
    """Continue several prompts at once, of any lengths.

    Args:
        lm: the model.
        prompts: any texts or bytes.
        static: as for `generate`; its `num_rows` should be the number of prompts.
        options: as for `generate`; prompt number i is continued as it would be alone with seed + i.

    Returns:
        One for each prompt. What goes wrong with one of them ends it alone: its `stopped_by` is then `error`, and its
        `error` says why.

    Raises:
        ConfigurationError: an option that cannot be.
    """
    return [request.generation() for request in _continued(lm, prompts, GenerationConfig.of(options), static=static)]


def _continued(
    lm: LanguageModel, prompts: Sequence[str | bytes], config: GenerationConfig, *, static: StaticConfig | None
) -> list[Request]:
    """Continue prompts until all are over."""
    seeds = [None if config.seed is None else config.seed + number for number in range(len(prompts))]
    requests = [
        Request(prompt, dataclasses.replace(config, seed=seed)) for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    engine = Engine(lm, static=static)
    engine.add(requests)
    while engine.step():
        pass
    return requests


def stream(
    lm: LanguageModel,
    prompt: str | bytes = "",
    *,
    with_prompt: bool = False,
    static: StaticConfig | None = None,
    **options: Unpack[GenerationOptions],
) -> Iterator[str]:
    """Continue a prompt piece by piece; no piece is empty, splits a character or shows a part of a stop string.

    Args:
        lm: the model.
        prompt: any text or bytes.
        with_prompt: begin with the prompt, so that the pieces are `Generation.text` and not its `continuation`.
        static: as for `generate`.
        options: as for `generate`.

    Raises:
        ConfigurationError, ModelFolderError: as `generate`; what can only be noticed on the way comes after the pieces
            that were written before it.
    """
    return _texts(stream_bytes(lm, prompt, with_prompt=with_prompt, static=static, **options))


def stream_bytes(
    lm: LanguageModel,
    prompt: str | bytes = "",
    *,
    with_prompt: bool = False,
    static: StaticConfig | None = None,
    **options: Unpack[GenerationOptions],
) -> Iterator[bytes]:
    """Continue a prompt piece by piece, as the exact bytes; no piece is empty or shows a part of a stop string.

    Args:
        lm: the model.
        prompt: any text or bytes.
        with_prompt: begin with the prompt.
        static: as for `generate`.
        options: as for `generate`.

    Raises:
        ConfigurationError: an option that cannot be.
    """
    request = Request(prompt, GenerationConfig.of(options))
    return _pieces(Engine(lm, static=static), request, shown=request.prompt if with_prompt else b"")


def _pieces(engine: Engine, request: Request, *, shown: bytes) -> Iterator[bytes]:
    if shown:
        yield shown
    engine.add([request])
    num_shown = 0
    while engine.step():
        if piece := bytes(request.new_bytes[num_shown:]):
            yield piece
        num_shown += len(piece)
    if request.error is not None:
        raise request.error


def _texts(pieces: Iterator[bytes]) -> Iterator[str]:
    """Decode bytes as they come, a character at a time; an error comes after the text that was written before it."""
    utf8, stopped_by = Utf8Stream(), None
    try:
        for piece in pieces:
            if text := utf8.feed(piece):
                yield text
    except BLTError as error:
        stopped_by = error
    if text := utf8.finish():
        yield text
    if stopped_by is not None:
        raise stopped_by
