"""How much slower a byte is read, one a pass, far into a text than at its beginning, and what the text then takes.

    python benchmarks/long_texts.py --out benchmarks/records/long-texts-cpu.json

The weights are new; the text is the sample of `blt bench`, repeated. The same bytes of it are read near its beginning
and far into it, in turns, so that patches are the same and what else the machine does weighs on both alike; a ratio is
the median over rounds, not one of two medians.
"""

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.cli.bench import model_to_measure
from blt.codec import encode
from blt.decoder import kernels
from blt.generation.speed import TEXT
from blt.lm import DecodingSession
from blt.shapes import Tensor

CLAIM = "A byte far into a text takes little longer than one near its beginning"
SAMPLE = TEXT.encode()
TYPES = ("float32", "bfloat16", "int8", "int4")


class Reader:
    """A text that is read byte by byte from some position on."""

    def __init__(self, lm: ByteLM, ids: Tensor, *, position: int) -> None:
        self.session = DecodingSession(lm)
        self.rows, _ = self.session.add([ids[:position]])
        self.rest = iter(ids[position:].tolist())

    def seconds_per_byte(self, num_bytes: int) -> float:
        """Read that many bytes more."""
        some = [torch.tensor([[each]]) for each in itertools.islice(self.rest, num_bytes)]
        start = time.perf_counter()
        for byte_id in some:
            self.session.read(byte_id, self.rows)
        return (time.perf_counter() - start) / len(some)


def measure(lm: ByteLM, *, near: int, far: int, num_bytes: int, rounds: int) -> dict[str, Any]:
    """Read near the beginning and far from it in turns."""
    ids = encode(SAMPLE * ((far + num_bytes) // len(SAMPLE) + 2), bos=True)
    seconds = []
    for _ in range(rounds):
        readers = [Reader(lm, ids, position=position) for position in (near, far)]
        memory = [sum(reader.session.num_bytes().values()) for reader in readers]
        seconds.append([reader.seconds_per_byte(num_bytes) for reader in readers])
    return {
        "microseconds_near": 1e6 * statistics.median(one for one, _ in seconds),
        "microseconds_far": 1e6 * statistics.median(other for _, other in seconds),
        "ratio": statistics.median(other / one for one, other in seconds),
        "ratio_of_each_round": [other / one for one, other in seconds],
        "bytes_near": memory[0],
        "bytes_far": memory[1],
    }


@click.command()
@click.option("--preset", default="tinystories-55m", show_default=True, help="Shape; its weights are new.")
@click.option("--near", default=100, show_default=True, help="Position.")
@click.option("--far", default=10_000, show_default=True, help="Position, moved on to the same place of the sample.")
@click.option("--bytes", "num_bytes", default=len(SAMPLE), show_default=True, help="Of a round.")
@click.option("--rounds", default=6, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(*, preset: str, near: int, far: int, threads: int, out: Path, **how: int) -> None:
    """Measure every type of weights."""
    torch.set_num_threads(threads)
    far = near - (near - far) // len(SAMPLE) * len(SAMPLE)
    results: dict[str, Any] = {"kernels": kernels(), "preset": preset, "near": near, "far": far}
    for dtype in TYPES:
        lm = model_to_measure(None, preset, dtype=dtype, device="cpu")
        results[dtype] = measure(lm, near=near, far=far, **how)
        click.echo(f"{dtype}: {results[dtype]}")
    write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
