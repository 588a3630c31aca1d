"""The model `blt` of the lm-evaluation-harness (EleutherAI, 0.4).

The harness finds models that are registered; it has no entry points for other packages. So its own command line is
started from here, and takes all of its options:

    python -m blt.interop.lm_eval --model blt --model_args pretrained=FOLDER --tasks hellaswag --batch_size auto

`--model_args` takes the arguments of `HarnessLM`. From Python, importing this module registers the model.

Texts are bytes: a context and its continuation are simply joined, and no boundary of tokens can fall between them.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch

from blt.api import ByteLM
from blt.codec import to_bytes
from blt.configuration import check
from blt.errors import BLTError, ConfigurationError, MissingExtraError, ModelFolderError
from blt.evaluation import evaluate
from blt.evaluation.continuations import score_continuations
from blt.generation import generate_batch

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    missing = MissingExtraError("lm-eval", extra="eval", purpose="the evaluation harness")
    if __name__ == "__main__":
        sys.stderr.write(f"blt: {missing}\n")
        sys.exit(2)
    raise missing from None

DEFAULT_MAX_TOKENS = 256
"""What the harness's own models write at most where a task does not say."""
ROWS_TO_GENERATE = 32
"""Written at once with `--batch_size auto`."""
_OPTIONS = {"temperature": None, "top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0}
"""Options of sampling that mean the same here, and what leaves each of them off."""

_INERT = (("num_beams", 1), ("num_beams", "1"), ("num_return_sequences", 1), ("early_stopping", False))
"""Options of searches that are not made here, at the values that ask for none; task files state some of them."""

Item = TypeVar("Item")


@register_model("blt")
class HarnessLM(LM):  # type: ignore[misc]  # the harness has no types
    """A `ByteLM` as the harness sees it."""

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int | str | None = "auto",
        max_batch_size: int | None = None,
        count_eos: bool = True,
        bytes_per_token: int | float = 4,
    ) -> None:
        """Load a model.

        Args:
            pretrained: a model folder, or a name on the Hub; the bundled model if not given.
            device: as PyTorch names it; the CPU if not given, and where there is no GPU, which the harness asks for by
                itself.
            dtype: `float32` or `bfloat16`.
            batch_size: rows at once; `auto`: as many as fit a fixed number of bytes.
            max_batch_size: rows at once at most, with `auto`.
            count_eos: let `loglikelihood_rolling` count the end of each text too, as `blt evaluate` does, so that
                `bits_per_byte` is the figure of its protocol `documents`; false: the bytes alone, as for models of
                tokens.
            bytes_per_token: `max_gen_toks` of a task counts tokens; the bytes generated for each.

        Raises:
            ConfigurationError: an argument that cannot be.
            ModelFolderError: no such model.
        """
        super().__init__()
        check(bytes_per_token > 0, f"bytes_per_token: {bytes_per_token}; above 0")
        rows = max_batch_size if batch_size is None or str(batch_size).startswith("auto") else int(batch_size)
        check(rows is None or rows >= 1, f"batch_size: {batch_size}; at least 1, or auto")
        self.lm = ByteLM.from_pretrained(pretrained, device=_usable(device), dtype=dtype)
        self.count_eos = count_eos
        self.bytes_per_token = bytes_per_token
        self._device = self.lm.device
        self._max_rows = rows

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return each continuation's log-likelihood in nats, and whether greedy decoding would write it."""
        pairs = [(to_bytes(context), to_bytes(target)) for context, target in (request.args for request in requests)]
        scored = score_continuations(self.lm, pairs, max_rows=self._max_rows)
        results = [(one.logprob, one.is_greedy) for one in scored]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the negative nats of each text from its start, of any length; with `count_eos`, of its end too."""
        texts = [to_bytes(request.args[0]) for request in requests]
        if self.count_eos:
            results = self._documents(texts)
        else:
            pairs = [(b"", text) for text in texts]
            results = [nats for nats, _ in score_continuations(self.lm, pairs, max_rows=self._max_rows)]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, result)
        return results

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Continue each context until one of its stop strings, which is left out."""
        results = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for numbers in groups.values():
            options = self._options(requests[numbers[0]].args[1])
            for some in _chunks(numbers, self._max_rows or ROWS_TO_GENERATE):
                written = generate_batch(self.lm, [requests[number].args[0] for number in some], **options)
                for number, generation in zip(some, written, strict=True):
                    if generation.error is not None:
                        raise ModelFolderError(f"request {number} cannot be continued: {generation.error}")
                    results[number] = generation.continuation
                    self.cache_hook.add_partial("generate_until", requests[number].args, generation.continuation)
        return results

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Turn a task's `generation_kwargs` into options of ours.

        Raises:
            ConfigurationError: one that has no meaning here.
        """
        given = dict(given)
        until = given.pop("until", None) or []
        length = given.pop("max_new_tokens", DEFAULT_MAX_TOKENS)
        tokens = _number("max_gen_toks", given.pop("max_gen_toks", length))
        check(math.isfinite(tokens) and tokens >= 0, f"generation_kwargs: max_gen_toks: at least 0, got {tokens}")
        is_sampled = given.pop("do_sample", bool(_number("temperature", given.get("temperature") or 0)))
        options = {key: given.pop(key, default) for key, default in _OPTIONS.items()}
        options = {key: None if value is None else _number(key, value) for key, value in options.items()}
        if options["top_k"] is not None:
            options["top_k"] = int(options["top_k"]) or None  # 0 is transformers' way to leave it off
        if options["repetition_penalty"] is None:
            options["repetition_penalty"] = _OPTIONS["repetition_penalty"]
        given = {key: value for key, value in given.items() if (key, value) not in _INERT}
        if given:
            raise ConfigurationError(
                f"generation_kwargs: {next(iter(given))!r} has no meaning for blt; known: until, max_gen_toks, "
                f"do_sample, {', '.join(_OPTIONS)}"
            )
        temperature = options.pop("temperature")
        return options | {
            "stop": [stop for stop in ([until] if isinstance(until, str) else until) if stop],
            "max_new_bytes": math.ceil(tokens * self.bytes_per_token),
            "temperature": (1.0 if temperature is None else temperature) if is_sampled else 0,
            "seed": 0,
        }

    def _documents(self, texts: Sequence[bytes]) -> list[float]:
        """Score whole documents by the very code of `blt evaluate`, which leaves empty ones out."""
        results = [0.0] * len(texts)
        full = [number for number, text in enumerate(texts) if text]
        if full:
            evaluation = evaluate(self.lm, [texts[number] for number in full], protocol="documents", bootstrap=0)
            for number, bits in zip(full, evaluation.bits_by_unit.tolist(), strict=True):
                results[number] = -bits * math.log(2)
        return results


def _number(name: str, value: Any) -> int | float:
    """Return a number that a task file may hold as a text.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else kind("no number")
        except ValueError:
            continue
    raise ConfigurationError(f"generation_kwargs: {name}: {value!r}; expected a number")


def _usable(device: str | None) -> str:
    is_missing = device is not None and device.startswith("cuda") and not torch.cuda.is_available()
    return "cpu" if device is None or is_missing else device


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def main() -> None:
    """Run the harness's own command line, which knows the model `blt` now."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except BLTError as error:
        sys.stderr.write(f"blt: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
