"""Constants of the build spec, taken from the code; a page says `{{ constants NAME }}`."""

import re
from collections.abc import Callable

from records import markdown

from blt.configuration import to_dict
from blt.evaluation import WINDOW
from blt.model import PRESETS, HashConfig, entropy_preset, preset
from blt.model.cost import cost_of, with_unit
from blt.nn import TransformerConfig
from blt.nn.configuration import FEED_FORWARD_MULTIPLE
from blt.ops import PRIMES
from blt.ops.muon import COEFFICIENTS
from blt.planning import MACHINES, Workload, budget_of, fastest, machine
from blt.training.optimizers import AdamWConfig, MuonConfig

_CONSTANT = re.compile(r"\{\{ constants (\w+) \}\}")
_SHAPE = TransformerConfig(dim=8, num_layers=1, num_heads=1)


def fill(text: str) -> str:
    """Replace every constant that a page asks for."""
    return _CONSTANT.sub(lambda match: CONSTANTS[match[1]](), text)


def primes() -> str:
    """Bases of the hash functions."""
    return "`" + "`, `".join(map(str, PRIMES)) + "`"


def polynomials() -> str:
    """Coefficients of Muon's iterations."""
    rows = [[str(number), *map(repr, row)] for number, row in enumerate(COEFFICIENTS, start=1)]
    return markdown(["iteration", "a", "b", "c"], rows)


def presets() -> str:
    """Every named shape."""
    rows = []
    for name, shape in PRESETS.items():
        stacks = (shape.local_encoder, shape.global_transformer, shape.local_decoder)
        layers = [f"{stack.num_layers} × {stack.dim}, {stack.num_heads} heads" for stack in stacks]
        tables = f"{len(shape.hash_embedding.ngram_sizes)} × {shape.hash_embedding.num_rows:,}"
        details = [str(shape.local_encoder.window), tables, str(shape.queries_per_patch), shape.decoder_cross_attention]
        rows.append([f"`{name}`", *layers, *details, "yes" if shape.tie_embeddings else "no"])
    header = ["preset", "encoder", "global", "decoder", "window", "n-gram rows", "k", "cross-attention", "tied"]
    return markdown(header, rows)


def sizes() -> str:
    """Parameters and FLOPs of every named shape."""
    rows = []
    for name, shape in PRESETS.items():
        cost = cost_of(shape, mean_patch_bytes=4.4, context_bytes=512)
        counts = (cost.num_parameters, cost.num_parameters_without_embeddings)
        rows.append([f"`{name}`", *(f"{count:,}" for count in counts), f"{cost.flops / 1e6:,.2f}"])
    header = ["preset", "parameters", "without embeddings", "forward MFLOPs per byte at 4.4 bytes per patch, 512 bytes"]
    return markdown(header, rows)


def optimizer(config: AdamWConfig | MuonConfig) -> str:
    """Defaults of an optimiser."""
    fields = {name: value for name, value in to_dict(config).items() if name not in ("type", "adamw")}
    return "Defaults: " + ", ".join(f"`{name}` {value}" for name, value in fields.items()) + "."


def machines() -> str:
    """Published figures of the named machines."""
    rows = []
    for name, on in MACHINES.items():
        peak, bandwidths = on.flops(bfloat16=True), (on.memory_bandwidth, on.bandwidth_inside, on.bandwidth_between)
        figures = [f"{on.memory / 1e9:.0f} GB", f"{peak / 1e12:,.0f} TFLOPS", f"{on.utilisation:.0%}"]
        figures += [f"{with_unit(each)}B/s" for each in bandwidths]
        rows.append([f"`{name}`", *figures, f"{on.ranks_per_node}", f"{on.watts:,.0f} W", on.source])
    links = ["memory", "within a node", "between nodes, per GPU"]
    return markdown(["machine", "per GPU", "bfloat16", "reached", *links, "GPUs per node", "per GPU", "source"], rows)


def plans() -> str:
    """The paper's shapes on 8 to 4,096 GPUs."""
    rows, on = [], machine("h100-sxm")
    for name in ("blt-1b", "blt-8b"):
        length = 4096
        workload = Workload(
            model=preset(name),
            entropy_model=entropy_preset(name),
            sequence_length=length,
            batch_size=2**24 // length,
        )
        for ranks in (8, 64, 512, 4096):
            for way in ("ddp", "fsdp"):
                found = fastest(workload, on, ranks=ranks, parallel=way)  # type: ignore[arg-type]
                settings, shards = found.workload, found.workload.shards_of(ranks)
                shown = [
                    f"`{name}`",
                    f"{ranks:,}",
                    way,
                    f"{shards:,}" if way == "fsdp" else "",
                    f"{settings.accumulation}",
                ]
                memory = f"{found.memory.total / 1e9:.1f} GB"
                if not found.fits:
                    rows.append([*shown, f"{memory}: too much", "", "", "", "", ""])
                    continue
                budget = budget_of(workload)
                rows.append(
                    [
                        *shown,
                        memory,
                        f"{with_unit(found.bytes_per_second())}B/s",
                        f"{found.communication_share():.1%}",
                        f"{found.communication_share(overlap=False):.1%}",
                        f"{found.seconds(budget) / 86400:.3g}",
                        f"{found.kilowatt_hours(budget):,.0f}",
                    ]
                )
    header = [
        "shape",
        "GPUs",
        "sharing",
        "shards",
        "parts",
        "memory of a GPU",
        "speed",
        "lost",
        "no overlap",
        "days",
        "kWh",
    ]
    return markdown(header, rows)


CONSTANTS: dict[str, Callable[[], str]] = {
    "adamw": lambda: optimizer(AdamWConfig()),
    "epsilon": lambda: f"ε = {_SHAPE.norm_epsilon:g} by default",
    "machines": machines,
    "multiple": lambda: str(FEED_FORWARD_MULTIPLE),
    "muon": lambda: optimizer(MuonConfig()),
    "plans": plans,
    "polynomials": polynomials,
    "presets": presets,
    "primes": primes,
    "rows": lambda: f"{HashConfig().num_rows:,}",
    "sizes": sizes,
    "window": lambda: str(WINDOW),
}
"""Every constant by the name that pages call it."""
