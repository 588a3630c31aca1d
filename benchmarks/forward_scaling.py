"""Time and memory of one forward pass, part by part, at growing lengths of text.

    python benchmarks/forward_scaling.py --out benchmarks/records/forward-scaling.json

Patches have 4 and 5 bytes in turn, 4.4 on average, in one document of random bytes. Time is the median of the repeats.
Memory is the most that the part's own tensors held at once, inputs and weights left out: on a GPU as its allocator
counts it, on a CPU as the sum of living tensors (what a kernel takes and gives back within itself is not seen).
"""

import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blt.codec import BOS_ID, BYTE_OFFSET
from blt.model import BLT, preset
from blt.model.hash_embedding import ngram_hashes
from blt.model.layout import lay_out
from blt.patching import Patches
from blt.shapes import Int, Tensor

CLAIM = "Time and memory of one forward pass grow linearly with the text in the local parts"
PATCH_LENGTHS = (4, 4, 5, 4, 5)


class LivingTensors(TorchDispatchMode):
    """Adds up the bytes of the tensors made inside it while they live, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what is new in its result."""
        made = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in given:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, num_bytes: int) -> None:
        self.now -= num_bytes


def one_document(length: int, device: str) -> tuple[Int[Tensor, "1 T"], Patches]:
    """Make a BOS, random bytes, and patches of 4.4 bytes on average."""
    generator = torch.Generator().manual_seed(0)
    byte_ids = torch.randint(BYTE_OFFSET, BYTE_OFFSET + 256, (1, length), generator=generator)
    byte_ids[0, 0] = BOS_ID
    ends = torch.zeros(1, length, dtype=torch.bool)
    stops = torch.tensor(PATCH_LENGTHS * (length // sum(PATCH_LENGTHS) + 1)).cumsum(0)
    ends[0, stops[stops < length]] = True  # after the BOS, which ends its own patch
    ends[0, 0] = True
    return byte_ids.to(device), Patches(ends=ends.to(device))


def parts_of(model: BLT, length: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return each part of the forward pass as something to run, with its inputs ready."""
    byte_ids, patches = one_document(length, device)
    layout = lay_out(byte_ids, patches)

    def encode() -> Any:
        hashes = ngram_hashes(byte_ids, layout.positions, model.config.hash_embedding)
        return model.local_encoder(model.hash_embedding(byte_ids, hashes), layout)

    byte_states, patch_states = encode()
    latents = model.global_transformer(patch_states, layout)
    return {
        "embedding and encoder": encode,
        "global transformer": lambda: model.global_transformer(patch_states, layout),
        "decoder and logits": lambda: model.logits(model.local_decoder(byte_states, latents, layout)),
    }


def seconds_of(run: Callable[[], Any], *, repeats: int, device: str) -> float:
    """Return the median time of a part, once warm."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes_of(run: Callable[[], Any], *, device: str) -> int:
    """Return the most that a part's own tensors hold at once."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with LivingTensors() as tensors:
        run()
    return tensors.most


@torch.no_grad()
def measure(name: str, lengths: list[int], *, repeats: int, device: str) -> list[dict[str, Any]]:
    """Measure every part at every length."""
    torch.manual_seed(0)
    model = BLT(preset(name)).eval().to(device)
    rows = []
    for length in lengths:
        for part, run in parts_of(model, length, device).items():
            seconds = seconds_of(run, repeats=repeats, device=device)
            rows.append(
                {"part": part, "bytes": length, "seconds": seconds, "peak_bytes": peak_bytes_of(run, device=device)}
            )
    return rows


def with_growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add how much each part grew from the shortest length, per byte: 1 is linear."""
    first = {row["part"]: row for row in reversed(rows)}
    return [
        row
        | {
            f"{figure}_growth_per_byte": row[figure]
            / first[row["part"]][figure]
            * first[row["part"]]["bytes"]
            / row["bytes"]
            for figure in ("seconds", "peak_bytes")
        }
        for row in rows
    ]


@click.command()
@click.option("--preset", "name", default="tinystories-55m", show_default=True, help="Shape of the model; new weights.")
@click.option("--lengths", default="1024,4096,16384", show_default=True, help="Bytes of text, with commas between.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Runs to take the median of.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; as many as PyTorch chooses if not given.")
@click.option("--device", default="cpu", show_default=True, help="As PyTorch names it.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(name: str, lengths: str, repeats: int, threads: int | None, device: str, out: Path | None) -> None:
    """Measure one forward pass, part by part, at growing lengths of text."""
    if threads is not None:
        torch.set_num_threads(threads)
    rows = with_growth(measure(name, [int(part) for part in lengths.split(",")], repeats=repeats, device=device))
    click.echo(f"{'part':<24}{'bytes':>8}{'seconds':>11}{'per byte':>10}{'peak MB':>11}{'per byte':>10}")
    for row in rows:
        figures = f"{row['seconds']:>11.4f}{row['seconds_growth_per_byte']:>9.2f}×"
        figures += f"{row['peak_bytes'] / 1e6:>11.2f}{row['peak_bytes_growth_per_byte']:>9.2f}×"
        click.echo(f"{row['part']:<24}{row['bytes']:>8,}{figures}")
    click.echo("per byte: against the shortest text; 1 is linear growth")
    if out is not None:
        write_record(out, claim=CLAIM, device=device, results={"preset": name, "repeats": repeats, "rows": rows})


if __name__ == "__main__":
    main()
