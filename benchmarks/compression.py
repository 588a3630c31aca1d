"""Lossless compression by a model against compressors of today: bits per byte, and kilobytes per second both ways.

    pip install brotli zstandard pyppmd
    python benchmarks/compression.py v2-valid.txt alice29.txt ... --out benchmarks/records/compression.json
    python benchmarks/compression.py v2-valid.txt --bytes 60000 --rates --out benchmarks/records/compression-speed.json

The same bytes are compressed by every side, so that none has seen more than another; text that the model was trained on
must not be among them. Each result is decompressed and compared. Of files of documents the record also says how many
bytes the bits of `blt evaluate` are, of the same model with the same weights. Rates are of one run each, on a machine
that does nothing else. JSONL files become text: the documents, each followed by the separator; `--of-each` takes so
many bytes of each only, so that a file of many languages gives a sample of all.
"""

import bz2
import importlib
import lzma
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from record import write_record

from blt.api import ByteLM
from blt.compression import Archive, compress, decompress
from blt.compression.lossless import SEPARATOR
from blt.data import read_documents
from blt.evaluation import evaluate

CLAIM = "What a model's predictions compress a text to, plain and learning while it codes, beside other compressors"
Pack = Callable[[bytes], bytes]


def peers() -> dict[str, tuple[Pack, Pack]]:
    """Return the compressors that are installed."""
    sides: dict[str, tuple[Pack, Pack]] = {
        "xz -9e": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
        "bzip2 -9": (bz2.compress, bz2.decompress),
    }
    for name, add in (("zstandard", _zstd), ("brotli", _brotli), ("pyppmd", _ppmd)):
        try:
            sides |= add(importlib.import_module(name))
        except ModuleNotFoundError:
            click.echo(f"{name}: not installed, left out")
    return sides


def _zstd(module: Any) -> dict[str, tuple[Pack, Pack]]:
    return {
        f"zstd --ultra -{level}": (module.ZstdCompressor(level=level).compress, module.ZstdDecompressor().decompress)
        for level in (19, 22)
    }


def _brotli(module: Any) -> dict[str, tuple[Pack, Pack]]:
    return {"brotli -q 11": (lambda data: module.compress(data, quality=11), module.decompress)}


def _ppmd(module: Any) -> dict[str, tuple[Pack, Pack]]:
    def pack(data: bytes) -> bytes:
        encoder = module.Ppmd7Encoder(8, 64 << 20)
        return len(data).to_bytes(4, "little") + bytes(encoder.encode(data)) + bytes(encoder.flush())

    def unpack(data: bytes) -> bytes:
        return bytes(module.Ppmd7Decoder(8, 64 << 20).decode(data[4:], int.from_bytes(data[:4], "little")))

    return {"PPMd H, order 8": (pack, unpack)}


def ours(lm: ByteLM) -> dict[str, tuple[Pack, Pack]]:
    """Return both protocols of a model."""
    return {
        f"blt, int8{', learning' if learns else ''}": (
            lambda data, learns=learns: compress(lm, data, learn=learns),
            lambda data: decompress(lm, Archive.unpack(data)),
        )
        for learns in (False, True)
    }


def text_of(file: Path, of_each: int | None) -> bytes:
    """Return the bytes of a file; of JSONL, also compressed, those of the documents."""
    if ".jsonl" not in file.suffixes:
        return file.read_bytes()
    documents = (document[:of_each] for document in read_documents(str(file)))
    return b"".join(document.decode(errors="ignore").encode() + SEPARATOR for document in documents)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--bytes", "num_bytes", type=int, help="Of each file; all if not given.")
@click.option("--of-each", type=int, help="Bytes of each document of a JSONL file; all if not given.")
@click.option("--rates", is_flag=True, help="Also kilobytes per second.")
@click.option("--model", help="The bundled model if not given.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(
    files: tuple[Path, ...],
    num_bytes: int | None,
    of_each: int | None,
    rates: bool,
    model: str | None,
    threads: int,
    out: Path | None,
) -> None:
    """Compress and decompress each file by each side."""
    torch.set_num_threads(threads)
    lm = ByteLM.from_pretrained(model, dtype="int8")
    sides = ours(lm) | peers()
    results: dict[str, Any] = {}
    for file in files:
        data = text_of(file, of_each)[:num_bytes]
        results[file.name] = {"bytes": len(data)}
        if SEPARATOR in data:
            found = evaluate(lm, data.split(SEPARATOR), bootstrap=0)
            results[file.name]["evaluated bytes"] = math.ceil(found.bits_by_unit.sum() / 8)
        for name, (pack, unpack) in sides.items():
            start = time.perf_counter()
            packed = pack(data)
            middle = time.perf_counter()
            if unpack(packed) != data:
                raise click.ClickException(f"{name}: {file.name} comes back as something else")
            seconds = (middle - start, time.perf_counter() - middle)
            results[file.name][name] = {
                "bytes": len(packed),
                "bits_per_byte": 8 * len(packed) / len(data),
            }
            if rates:
                results[file.name][name]["kilobytes_per_second"] = [len(data) / 1000 / each for each in seconds]
            click.echo(f"{file.name:<28}{name:<22}{results[file.name][name]}")
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
