"""`blt bench`: how fast a model writes, reads or trains here."""

import dataclasses
import json
import statistics
import time
from typing import Any

import click
import torch

from blt.api import ByteLM
from blt.cli.options import device_option, dtype_option, json_option, model_option, refuse_unread, static_option
from blt.cli.types import Count
from blt.codec import encode
from blt.configuration import check
from blt.data import Batch
from blt.decoder import kernels, serves
from blt.generation import DraftConfig, Drafter
from blt.generation.speed import (
    TEXT,
    Limits,
    Speed,
    measure_decoding,
    measure_drafting,
    measure_limits,
    measure_limits_of,
    measure_prefill,
)
from blt.lm import StaticConfig, require_finite
from blt.lm.folder import LMConfig
from blt.model import entropy_preset, preset
from blt.model.cost import cost_of
from blt.patching import EntropyRule, calibrate, mean_patch_bytes, patch
from blt.training.loop import keep_freed_memory
from blt.training.objectives import BLTObjective
from blt.training.optimizers import AdamWConfig, build_optimizers

MEAN_PATCH_BYTES = 4.4
PROMPTS = ["Once upon a time", "Lily and Tom went to the park.", "The big dog was sad because"]


@click.command()
@model_option
@click.option("--preset", "preset_name", metavar="NAME", help="New weights of this shape, at 4.4 bytes per patch.")
@click.option("--what", type=click.Choice(["decode", "prefill", "train"]), default="decode", show_default=True)
@dtype_option("float32", "bfloat16", "int8", "int4")
@click.option("--bytes", "num_bytes", type=Count(8, 10**7), default=256, show_default=True, help="In each row.")
@click.option("--after", type=Count(), default=17, show_default=True, help="Decode: bytes of prompt.")
@click.option("--batch", type=Count(1, 4096), default=1, show_default=True, help="Rows; training has 8 at least.")
@click.option("--draft", type=click.Choice(["entropy", "decoder"]), help="Decode: draft bytes ahead, on real prompts.")
@static_option
@click.option("--max-draft", type=click.IntRange(1, 15), default=8, show_default=True, help="At once.")
@click.option("--repeats", type=Count(1, 10**6), default=5, show_default=True, help="Runs to take the median of.")
@click.option("--threads", type=Count(1, 1024), help="CPU threads; as many as PyTorch chooses if not given.")
@device_option
@json_option
@click.pass_context
def bench(
    context: click.Context,
    /,
    model: str | None,
    preset_name: str | None,
    what: str,
    dtype: str,
    num_bytes: int,
    after: int,
    batch: int,
    draft: str | None,
    is_static: bool,
    max_draft: int,
    repeats: int,
    threads: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure how fast a model writes (decode), reads a prompt (prefill) or trains, beside the machine's limits.

    Decoding reads the sample text byte by byte, and chooses each byte as generation does; with --draft the model
    continues prompts of its own instead.
    """
    _refuse_unread(context, what=what, drafts=draft is not None)
    check(model is None or preset_name is None, "--model and --preset: give one of them")
    check(
        what != "train" or dtype not in ("int8", "int4"),
        f"--dtype {dtype}: weights of whole numbers cannot be trained; use bfloat16",
    )
    batch = max(8, batch) if what == "train" else batch
    if threads is not None:
        torch.set_num_threads(threads)
    lm = model_to_measure(model, preset_name, dtype="float32" if what == "train" else dtype, device=device)
    products = torch.bfloat16 if what == "train" and dtype == "bfloat16" else None
    by_torch = what == "train" or is_static
    limits = measure_limits(lm.device, dtype=products) if by_torch else measure_limits_of(lm)
    if what == "train":
        speed = _training(lm, limits, batch=batch, num_bytes=num_bytes, repeats=repeats, bf16=dtype == "bfloat16")
    elif what == "prefill":
        speed = measure_prefill(lm, limits=limits, text=TEXT.encode(), num_bytes=num_bytes, repeats=repeats)
    elif draft is not None:
        drafter = Drafter(DraftConfig(by=draft, max_draft=max_draft))  # type: ignore[arg-type]
        speed = measure_drafting(lm, drafter=drafter, prompts=PROMPTS, num_bytes=num_bytes)
        plain = measure_drafting(lm, drafter=None, prompts=PROMPTS, num_bytes=num_bytes)
    else:
        static = StaticConfig(num_rows=batch, max_patches=after + num_bytes) if is_static else None
        speed = measure_decoding(
            lm,
            limits=limits,
            text=TEXT.encode(),
            num_bytes=num_bytes,
            batch=batch,
            repeats=repeats,
            after=after,
            static=static,
        )
    if speed.roofline_share is not None and speed.roofline_share > 1:
        raise click.ClickException(
            f"{speed.roofline_share:.0%} of what the machine allows: it was busy while that was measured; run again"
        )
    found = {"what": what} | _described(speed) | {"dtype": dtype, "threads": torch.get_num_threads(), "batch": batch}
    found |= {"device": device, "num_bytes": num_bytes} | dataclasses.asdict(limits)
    if what != "train":
        native = kernels() if serves(lm.blt, lm.entropy_model) and not is_static else None
        by_torch_as = "PyTorch, static steps" if is_static else "PyTorch"
        found["decoded_by"] = by_torch_as if native is None else f"native code, {native}"
    if what == "decode" and draft is not None:
        found |= {"draft": draft, "speed_up": speed.bytes_per_second / plain.bytes_per_second}
    click.echo(json.dumps(found) if as_json else _shown(found))


def _refuse_unread(context: click.Context, *, what: str, drafts: bool) -> None:
    """Refuse options of other measurements than the one that was asked for."""
    decodes = what == "decode"
    refuse_unread(context, "draft", "after", unless=decodes, reason="only --what decode reads it")
    refuse_unread(context, "is_static", unless=decodes, reason="only --what decode writes")
    refuse_unread(context, "is_static", unless=not drafts, reason="a static step reads one byte; leave --draft out")
    refuse_unread(context, "max_draft", unless=drafts, reason="needs --draft")
    refuse_unread(context, "batch", unless=what != "prefill", reason="--what prefill reads one row")
    reason = "--draft has prompts of its own, each continued once and alone"
    refuse_unread(context, "after", "batch", "repeats", unless=not drafts, reason=reason)


def model_to_measure(model: str | None, preset_name: str | None, *, dtype: str, device: str) -> ByteLM:
    """Return a model as `ByteLM.from_pretrained` does, or one of a preset's shape with new weights.

    The latter's threshold is calibrated on the sample text, so that patches have the length of a trained model's.
    """
    if preset_name is None:
        return ByteLM.from_pretrained(model, dtype=dtype, device=device)
    torch.manual_seed(0)
    config = LMConfig(
        blt=preset(preset_name), entropy_model=entropy_preset(preset_name), patch_rule=EntropyRule(threshold=0.0)
    )
    lm = ByteLM.new(config).eval()
    byte_ids = encode(TEXT, bos=True, eos=True)
    entropies = lm.entropies(byte_ids[None])
    assert entropies is not None
    wanted = MEAN_PATCH_BYTES
    lm.patch_rule = calibrate(lm.patch_rule, byte_ids=[byte_ids], entropies=[entropies[0]], mean_patch_bytes=wanted)
    return lm.to_type(dtype).to(device)


def _training(lm: ByteLM, limits: Limits, *, batch: int, num_bytes: int, repeats: int, bf16: bool) -> Speed:
    """Train on rows of the sample text by AdamW; patches come from stored entropies, as in training."""
    keep_freed_memory()
    config, rule = lm.blt.config, lm.patch_rule
    text = TEXT.encode() * (2 + num_bytes // len(TEXT))
    rows = torch.stack([encode(text[start : start + num_bytes + 1]) for start in range(batch)]).to(lm.device)
    rows_of_text = Batch.of(rows)
    byte_ids = rows_of_text.byte_ids
    entropies = lm.entropies(byte_ids)
    if entropies is not None:
        require_finite(entropies, "entropies")
    mean_patch = mean_patch_bytes(patch(byte_ids, rule, entropies=entropies), byte_ids)
    lm.blt.train()
    objective = BLTObjective(lm.blt, rule=rule, slots_multiple=1)
    optimizers = build_optimizers(lm.blt, AdamWConfig())
    batch_of_rows = dataclasses.replace(rows_of_text, entropies=entropies)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=bf16):
            nats = objective.loss_sum(batch_of_rows)
        nats.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if lm.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    require_finite(nats.detach().reshape(1), "losses")
    rate = byte_ids.numel() / statistics.median(seconds[1:])
    flops = cost_of(config, mean_patch_bytes=mean_patch, context_bytes=num_bytes).training_flops
    return Speed(
        bytes_per_second=rate, mean_patch_bytes=mean_patch, roofline_share=rate * flops / limits.flops_per_second
    )


def _described(speed: Speed) -> dict[str, Any]:
    described = dataclasses.asdict(speed)
    return {key: value for key, value in described.items() if value not in (None, {})}


def _shown(found: dict[str, Any]) -> str:
    """Return the figures as lines."""
    lines = [f"{found['bytes_per_second']:.0f} bytes/s, {found['mean_patch_bytes']:.2f} bytes per patch"]
    if "roofline_share" in found:
        lines.append(f"{found['roofline_share']:.0%} of what the machine allows:")
    read, computed = found["bytes_read_per_second"] / 1e9, found["flops_per_second"] / 1e9
    if "decoded_by" in found:
        lines.append(f"  decoded by {found['decoded_by']}")
    cached = found.get("cached_bytes_read_per_second")
    if cached is not None:
        lines.append(f"  reads {cached / 1e9:.1f} GB/s of the weights that every byte needs")
    lines.append(f"  reads {read:.1f} GB/s, computes {computed:.0f} GFLOP/s, {found['threads']} threads")
    if "bytes_per_pass" in found:
        lines.append(f"{found['bytes_per_pass']:.2f} bytes per pass, {found['speed_up']:.2f}× one byte per pass")
    for part, seconds in found.get("seconds_per_byte", {}).items():
        lines.append(f"  {part:<32}{seconds * 1e6:>9.0f} µs per byte")
    return "\n".join(lines)
