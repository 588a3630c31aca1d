"""How fast a model reads and writes here, part by part, beside what this machine allows."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from blt.codec import encode
from blt.decoder import GenerationRow, packed_model, product_rate, reading_rate, serves
from blt.generation.drafting import Drafter
from blt.generation.engine import BYTES_PER_STEP, Engine, bytes_per_step
from blt.generation.request import GenerationConfig, Request
from blt.generation.sampling import Sampler, SamplingConfig
from blt.lm import DecodingSession, LanguageModel, StaticConfig, require_finite
from blt.lm.torch_decoding import TorchDecoding
from blt.model.cost import Cost, cost_of
from blt.nn import HostInts, QuantizedLinear
from blt.patching import count_text

TEXT = (
    "Once upon a time there was a little girl named Lily. She loved to play in the park with her red ball, and one day "
    'she saw a big dog. "Can I play too?" said the dog. Lily smiled. They ran and jumped until the sun went down; then '
    "they went home and ate warm soup.\n"
)
"""What is read where no text is given."""
_Logits = npt.NDArray[np.float32]
"""`R V`."""
PER_PATCH = "global transformer"
"""The part whose weights are read once per patch; those of the others are counted as read for every byte."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this machine can do, measured on the spot."""

    bytes_read_per_second: float
    """Where the native decoder runs, of reading all of its weights again and again, which may fit into a cache of this
    machine or not; else of summing float32 numbers that fit into no cache."""
    flops_per_second: float
    """Of products: by the native decoder, of its own kind, with weights in a cache; else of large matrices."""
    cached_bytes_read_per_second: float | None = None
    """Of reading again and again those weights alone that every byte needs; the global transformer's are held to lie
    where all weights lie. None by PyTorch."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured."""

    bytes_per_second: float
    """Median."""
    mean_patch_bytes: float
    """Of the bytes that were read."""
    roofline_share: float | None = None
    """Of the bytes per second that the limits allow, if each needed weight is read once per pass; None where bytes are
    drafted."""
    seconds_per_byte: dict[str, float] = field(default_factory=dict)
    """Part by part; the rest is the host's."""
    bytes_per_pass: float | None = None
    """Written per pass of the whole model, where bytes are drafted."""


def measure_limits(device: torch.device, *, dtype: torch.dtype | None = None) -> Limits:
    """Measure the machine: each figure the best of some tries.

    Args:
        device: to measure.
        dtype: of the matrices that are multiplied; float32 on a CPU and bfloat16 on a GPU if not given.
    """
    numbers = torch.randn(32 << 20, device=device)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    rates = []
    for num, width, out in ((2048, 2048, 2048), (1024, 768, 2048)):
        states, weight = (torch.randn(rows, width, device=device).to(dtype) for rows in (num, out))
        seconds = min(_seconds(lambda x=states, w=weight: F.linear(x, w), device, times=20))  # type: ignore[misc]
        rates.append(2 * num * width * out / seconds)
    return Limits(
        bytes_read_per_second=numbers.nbytes / min(_seconds(numbers.sum, device, times=9)),
        flops_per_second=max(rates),
    )


def measure_limits_of(lm: LanguageModel) -> Limits:
    """Measure the machine for a model's decoding: for weights of its very type and size where it is native."""
    if not serves(lm.blt, lm.entropy_model):
        return measure_limits(lm.device)
    threads = torch.get_num_threads()
    blt, entropy = _packed_bytes(lm)
    shape = _cost(lm, mean_patch=1.0, context=1)
    rarely = sum(part.num_hidden for part in shape.parts if part.name == PER_PATCH)
    always = int(blt * (1 - rarely / _num_weights(shape))) + entropy
    linear = torch.nn.Linear(64, 64, bias=False)
    like = lm.blt.local_decoder.from_global.weight
    assert isinstance(like, torch.Tensor)
    stored = {torch.int8: "int8", torch.uint8: "int4", torch.bfloat16: "bfloat16"}.get(like.dtype)
    kind = linear if stored is None else QuantizedLinear(linear, stored_as=stored)  # type: ignore[arg-type]
    return Limits(
        bytes_read_per_second=reading_rate(blt + entropy, num_threads=threads),
        flops_per_second=product_rate(kind, num_threads=threads),
        cached_bytes_read_per_second=reading_rate(always, num_threads=threads),
    )


def _packed_bytes(lm: LanguageModel) -> tuple[int, int]:
    packed = packed_model(lm.blt, lm.entropy_model if lm.patch_rule.needs_entropies else None)
    assert packed is not None
    return packed.num_bytes


def _num_weights(cost: Cost) -> int:
    """Count the weights of a BLT's matrices, the output included."""
    return sum(part.num_hidden + int(part.products / 2) * (part.name == "output") for part in cost.parts)


def measure_decoding(
    lm: LanguageModel,
    *,
    limits: Limits,
    text: bytes,
    num_bytes: int,
    batch: int,
    repeats: int,
    after: int = 17,
    static: StaticConfig | None = None,
) -> Speed:
    """Read a text byte by byte in every row, choosing each byte as generation does.

    What is chosen is not read; so the patches are those of the text, whatever the weights. Each row begins at another
    place of the text, so that their patches do not end together.

    Args:
        lm: the model.
        limits: of this machine.
        text: to read; repeated where it is shorter than prompt and bytes.
        num_bytes: to read in each row, on average.
        batch: rows.
        repeats: runs to take the median of.
        after: bytes of prompt.
        static: read by static steps, which are not timed part by part.
    """
    begun = [_Begun.of(text, start=number * len(text) // batch, after=after) for number in range(batch)]
    seconds: list[float] = []
    parts: dict[str, float] = {}
    session = DecodingSession(lm)
    num_ends = _read_by_host(session, *_joined(session, begun), begun, num_bytes)
    session = DecodingSession(lm, static=static)  # one, since static steps are compiled for it
    for number in range(repeats + 2):  # the first warms up, the last is timed part by part
        rows, logits = _joined(session, begun)
        with _timed_parts(session, parts if number > repeats and static is None else None):
            start = time.perf_counter()
            (_read_natively if session.is_native else _read_by_host)(session, rows, logits, begun, num_bytes)
            seconds.append(time.perf_counter() - start)
        session.remove(rows)
    mean_patch = batch * num_bytes / max(1, num_ends)
    rate = batch * num_bytes / statistics.median(seconds[1:-1])
    return Speed(
        bytes_per_second=rate,
        mean_patch_bytes=mean_patch,
        roofline_share=rate / _limit(lm, limits, mean_patch=mean_patch, batch=batch, context=after + num_bytes),
        seconds_per_byte={part: spent / (num_bytes * batch) for part, spent in parts.items()},
    )


class _Begun(NamedTuple):
    """A row of a measurement: what it has read, and what it reads then, again and again."""

    prompt: bytes
    rest: bytes

    @classmethod
    def of(cls, text: bytes, *, start: int, after: int) -> "_Begun":
        turned = text[start:] + text[:start]
        data = turned * (1 + after // len(turned))
        return cls(data[: after - 1], data[after - 1 :] + data[: after - 1])

    def part(self, first: int, length: int) -> bytes:
        """Return a slice of what it reads."""
        first %= len(self.rest)
        return (self.rest[first:] + self.rest * (1 + length // len(self.rest)))[:length]


def _joined(session: DecodingSession, begun: Sequence[_Begun]) -> tuple[HostInts, _Logits]:
    """Run the prefill of every row's prompt."""
    rows, logits = session.add([encode(row.prompt, bos=True) for row in begun])
    return rows, logits.cpu().numpy()


def _read_by_host(
    session: DecodingSession, rows: HostInts, logits: _Logits, begun: Sequence[_Begun], num_bytes: int
) -> int:
    """Choose bytes, and read the texts' in their place; return how many patches ended."""
    samplers, num_ends = [Sampler(SamplingConfig(temperature=0)) for _ in rows], 0
    texts = torch.stack([encode(row.part(0, num_bytes)) for row in begun])  # R T
    for byte_ids in texts.T:
        for sampler, scores, byte_id in zip(samplers, logits, byte_ids.tolist(), strict=True):
            sampler.choose(scores)
            sampler.read(byte_id)
        logits = session.read(byte_ids[:, None], rows)[:, 0].cpu().numpy()
        num_ends += int(session.ends.sum())
    return num_ends


def _read_natively(
    session: DecodingSession, rows: HostInts, logits: _Logits, begun: Sequence[_Begun], num_bytes: int
) -> None:
    """Run the same in the native decoder, with as many bytes per step as an engine gives it.

    Its rows come on unevenly: all of them read until they have read as many bytes together as they are to.
    """
    room = len(begun) * (num_bytes + BYTES_PER_STEP)  # one row may read nearly all of it, if the others wait
    sampling = Sampler(SamplingConfig(temperature=0, valid_utf8=False)).plain(room=room)
    assert sampling is not None
    native_rows = [GenerationRow(row, scores, sampling) for row, scores in zip(rows.tolist(), logits, strict=True)]
    read, left = [0] * len(begun), len(begun) * num_bytes
    while left > 0:
        step = min(bytes_per_step(len(begun)), left)
        forced = [row.part(first, step) for row, first in zip(begun, read, strict=True)]
        written, _ = session.generate(native_rows, max_bytes=step, forced=forced)
        read = [first + len(part) for first, part in zip(read, written, strict=True)]
        left -= sum(map(len, written))


def measure_drafting(
    lm: LanguageModel, *, drafter: Drafter | None, prompts: list[str], num_bytes: int, **options: Any
) -> Speed:
    """Continue prompts, one after another, each byte the model's own; all without EOS, so that lengths are equal."""
    seconds, passes, written, ends, patches = 0.0, 0, 0, 0, 0
    for seed, prompt in enumerate(["warm up", *prompts]):
        request = Request(prompt, GenerationConfig(max_new_bytes=num_bytes, seed=seed, **options))
        engine = Engine(lm, drafter=drafter)
        engine.add([request])
        start = time.perf_counter()
        while engine.step():
            pass
        if request.error is not None:
            raise request.error
        if prompt != "warm up" or len(prompts) == 0:
            seconds, passes, written = (
                seconds + time.perf_counter() - start,
                passes + engine.num_passes,
                written + len(request.new_bytes),
            )
            row = encode(request.generation().data, bos=True)[None].to(lm.device)
            counted = count_text(lm.patches(row), row)
            ends, patches = ends + counted[0], patches + counted[1]
    return Speed(
        bytes_per_second=written / seconds,
        mean_patch_bytes=ends / max(1, patches),
        bytes_per_pass=written / passes,
    )


def measure_prefill(lm: LanguageModel, *, limits: Limits, text: bytes, num_bytes: int, repeats: int) -> Speed:
    """Read a prompt in one parallel pass."""
    ids = encode((text * (1 + num_bytes // len(text)))[: num_bytes - 1], bos=True)
    row = ids[None].to(lm.device)
    num, patches = count_text(lm.patches(row), row)
    require_finite(DecodingSession(lm).add([ids])[1], "logits")
    seconds = _seconds(lambda: DecodingSession(lm).add([ids]), lm.device, times=repeats + 1)[1:]
    rate, mean_patch = num_bytes / statistics.median(seconds), num / max(1, patches)
    flops = _cost(lm, mean_patch=mean_patch, context=num_bytes).flops_with_entropy_model
    return Speed(
        bytes_per_second=rate, mean_patch_bytes=mean_patch, roofline_share=rate * flops / limits.flops_per_second
    )


def _limit(lm: LanguageModel, limits: Limits, *, mean_patch: float, batch: int, context: int) -> float:
    """Return the bytes per second that reading each needed weight once per pass, or computing with it, allows."""
    cost = _cost(lm, mean_patch=mean_patch, context=context)
    is_native = limits.cached_bytes_read_per_second is not None
    # How often a pass needs the global transformer. In the native decoder rows wait for each other: at best, all of
    # their patches end together.
    patch_ends = 1 / mean_patch if is_native else 1 - (1 - 1 / mean_patch) ** batch
    blt_bytes, entropy_bytes = _packed_bytes(lm) if is_native else (0, 0)
    stored = blt_bytes / _num_weights(cost) if is_native else _bytes_per_weight(lm)
    seconds = 0.0
    for part in cost.parts:
        weights, rate = part.products / 2, limits.cached_bytes_read_per_second or limits.bytes_read_per_second
        if part.name == PER_PATCH:
            weights, rate = weights * mean_patch * patch_ends, limits.bytes_read_per_second
        seconds += weights * stored / rate
    if cost.entropy_model is not None:
        read = entropy_bytes if is_native else cost.entropy_model.products / 2 * (2 if stored == 2 else 4)
        seconds += read / (limits.cached_bytes_read_per_second or limits.bytes_read_per_second)
    flops = cost.flops_with_entropy_model if lm.patch_rule.needs_entropies else cost.flops
    return 1 / max(seconds / batch, flops / limits.flops_per_second)


def _cost(lm: LanguageModel, *, mean_patch: float, context: int) -> Cost:
    entropy = lm.config.entropy_model if lm.patch_rule.needs_entropies else None
    return cost_of(lm.blt.config, mean_patch_bytes=max(1.0, mean_patch), context_bytes=context, entropy_model=entropy)


def _bytes_per_weight(lm: LanguageModel) -> int:
    weight = lm.blt.local_decoder.from_global
    assert isinstance(weight, (torch.nn.Linear, QuantizedLinear))
    return weight.weight.element_size()


def _seconds(run: Callable[[], object], device: torch.device, *, times: int) -> list[float]:
    found = []
    for _ in range(times):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - start)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _timed_parts(session: DecodingSession, spent: dict[str, float] | None) -> Iterator[None]:
    """Add up where a session's time goes, if that is asked for; parts that contain others are left out."""
    if spent is None:
        yield
        return
    if session.is_native:
        before = session.seconds() or {}
        yield
        after = session.seconds() or {}
        spent.update({name: after[name] - before[name] for name in after})
        return
    # A measurement from outside: the parts are private, since nothing else may call them on their own.
    decoding = session._decoding  # noqa: SLF001
    assert isinstance(decoding, TorchDecoding)
    blt, entropy_state = session.lm.blt, decoding._entropy  # noqa: SLF001
    parts: list[tuple[str, Any, str]] = [
        ("embedding", blt.hash_embedding, "forward"),
        ("local encoder", blt.local_encoder, "forward"),
        ("global transformer", blt.global_transformer, "forward"),
        ("local decoder", blt.local_decoder, "forward"),
    ]
    if entropy_state is not None:
        parts.append(("entropy model", entropy_state, "read"))
    for name, owner, method in parts:
        setattr(owner, method, _timed(getattr(owner, method), name, spent))
    yield
    for _, owner, method in parts:
        delattr(owner, method)


def _timed(run: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        found = run(*arguments, **options)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return found

    return timed


__all__ = [
    "TEXT",
    "Limits",
    "Speed",
    "measure_decoding",
    "measure_drafting",
    "measure_limits",
    "measure_limits_of",
    "measure_prefill",
]
