"""Bytes per second of writing, against peers, interleaved in one go.

    pip install transformers
    python benchmarks/decoding.py --out benchmarks/records/decoding.json

Peers: transformers' `BltForCausalLM` without its cache, which is the only mode in which it is right, and a
`LlamaForCausalLM` of as many parameters with its cache, at 4 bytes per token. All have new weights, and thresholds that
give 4.4 bytes per patch on the sample text; what new weights write may have other patches, so decoding is measured on
the sample text too. Each round runs every side once; figures are medians over the rounds.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.cli.bench import model_to_measure
from blt.codec import encode
from blt.generation import Engine, GenerationConfig, Request
from blt.generation.speed import TEXT, Speed, measure_decoding, measure_limits

CLAIM = "The exact cached decoder against transformers' BLT without cache and a Llama of equal size with its cache"
PROMPT = b"Once upon a time,"
BYTES_PER_TOKEN = 4


def transformers_blt_model() -> Any:
    """Build the reference shape with a threshold that gives 4.4 bytes per patch on the sample text."""
    from transformers import BltConfig, BltForCausalLM

    torch.manual_seed(0)
    local = {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "cross_attn_k": 3,
        "hidden_size_global": 768,
        "intermediate_size": 704,
    }
    model = BltForCausalLM(
        BltConfig(
            cross_attn_k=3,
            patching_mode="entropy",
            max_position_embeddings=4096,
            encoder_hash_byte_group_size=[3, 4, 5, 6, 7, 8],
            encoder_hash_byte_group_vocab=4096,
            patcher_config={
                "hidden_size": 256,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 704,
            },
            encoder_config={"num_hidden_layers": 1, **local},
            decoder_config={"num_hidden_layers": 4, **local},
            global_config={
                "hidden_size": 768,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "intermediate_size": 2048,
            },
        )
    ).eval()
    ids = encode(TEXT)[None]
    with torch.no_grad():
        entropies = model.model.patcher(ids)[0]
    threshold = entropies.flatten().quantile(1 - 1 / 4.4).item()
    model.config.patching_threshold = model.model.config.patching_threshold = threshold
    return model


def transformers_blt() -> Callable[[int], None]:
    return _generates(transformers_blt_model(), encode(PROMPT)[None], use_cache=False)


def transformers_llama(dtype: torch.dtype) -> Callable[[int], None]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=640,
        intermediate_size=1728,
        num_hidden_layers=11,
        num_attention_heads=10,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval().to(dtype)
    run = _generates(model, torch.randint(0, 4096, (1, 4)), use_cache=True)
    return lambda num_bytes: run(num_bytes // BYTES_PER_TOKEN)


def _generates(model: Any, prompt: torch.Tensor, *, use_cache: bool) -> Callable[[int], None]:
    mask = torch.ones_like(prompt)

    def run(count: int) -> None:
        model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
        )

    return run


def ours(lm: ByteLM, *, batch: int = 1) -> Callable[[int], None]:
    """Write greedily; EOS is as unlikely as any other byte of new weights, and counted as what was written."""

    def run(num_bytes: int) -> None:
        config = GenerationConfig(max_new_bytes=num_bytes, temperature=0, valid_utf8=False)
        engine, requests = Engine(lm), [Request(PROMPT, config) for _ in range(batch)]
        engine.add(requests)
        while engine.step():
            pass
        assert all(request.stopped_by == "length" for request in requests)

    return run


@click.command()
@click.option("--bytes", "num_bytes", default=256, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(num_bytes: int, rounds: int, threads: int, out: Path | None) -> None:
    """Measure all sides in turn."""
    torch.set_num_threads(threads)
    types = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
    models = {
        name: model_to_measure(None, "tinystories-55m", dtype=dtype, device="cpu") for name, dtype in types.items()
    }
    sides = {f"blt {name}": ours(lm) for name, lm in models.items()}
    sides |= {
        "transformers BLT, no cache, fp32": transformers_blt(),
        "transformers Llama, cache, fp32": transformers_llama(torch.float32),
        "transformers Llama, cache, bf16": transformers_llama(torch.bfloat16),
    }
    for run in sides.values():
        run(16)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run(num_bytes)
            rates[name].append(num_bytes / (time.perf_counter() - start))
    found = {name: statistics.median(values) for name, values in rates.items()}
    limits, text = measure_limits(torch.device("cpu")), TEXT.encode()
    measured: dict[str, list[Speed]] = {}
    for _ in range(rounds):
        for dtype, batch, after, bytes_there in (
            ("fp32", 1, 17, num_bytes),
            ("fp32", 32, 17, num_bytes),
            ("fp32", 1, 100, 128),
            ("fp32", 1, 10_000, 128),
            ("bf16", 1, 17, num_bytes),
            ("int8", 1, 17, num_bytes),
        ):
            speed = measure_decoding(
                models[dtype], limits=limits, text=text, num_bytes=bytes_there, batch=batch, repeats=1, after=after
            )
            measured.setdefault(f"{dtype}, batch {batch}, after {after}", []).append(speed)
    forced = {
        name: sorted(speeds, key=lambda speed: speed.bytes_per_second)[len(speeds) // 2]
        for name, speeds in measured.items()
    }
    for name, rate in found.items():
        click.echo(f"{name:<40}{rate:>9.1f} bytes/s")
    for name, speed in forced.items():
        click.echo(f"{name:<40}{speed.bytes_per_second:>9.1f} bytes/s, {speed.roofline_share:.0%} of the limit")
    if out is not None:
        results = {
            "bytes_per_second": found,
            "rounds": rates,
            "limits": dataclasses.asdict(limits),
            "on the sample text": {name: dataclasses.asdict(speed) for name, speed in forced.items()},
        }
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
