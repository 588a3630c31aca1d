"""Compress all kinds of files on any number of threads, and damage compressed files in every way.

    python tests/compress_everywhere.py zoo                   made-up files of all kinds, by the bundled model
    python tests/compress_everywhere.py zoo alice29.txt …     and these
    python tests/compress_everywhere.py faults                1,000 faults for each protocol (minutes)

`zoo`: compressing and decompressing is the identity, whatever the number of threads on either way, the compressed bytes
do not depend on it, and no file grows by more than 0.1% and 64 bytes.

`faults`: a fault flips a bit, cuts the file or swaps two blocks of it; a swap comes in two ways, with the header as it
was and with one that describes the swapped blocks and has the right checksum. Each fault must be noticed: an error in
one line, and no output. A small model that the script trains first is used, since every fault takes a whole decoding.
"""

import argparse
import dataclasses
import math
import random
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch

from blt.api import ByteLM
from blt.codec import encode
from blt.compression import Archive, compress, decompress
from blt.compression.lossless import compress_blocks
from blt.errors import BLTError
from tiny_config import TINY_CONFIG

PROTOCOLS = {"plain": False, "learning": True}
THREADS = (1, 2, 4)
STORY = b"Tom and Lily sat under the tree. "


def main() -> None:
    """Run one of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    zoo = verbs.add_parser("zoo")
    zoo.add_argument("files", nargs="*", type=Path)
    zoo.add_argument("--model", help="the bundled model if not given")
    zoo.add_argument("--bytes", type=int, help="of each file; all if not given")
    zoo.add_argument("--protocol", choices=PROTOCOLS, action="append", help="all if not given")
    zoo.add_argument("--only", action="store_true", help="the files alone, not what is made up")
    faults = verbs.add_parser("faults")
    faults.add_argument("--faults", type=int, default=1000, help="for each protocol")
    given = parser.parse_args()
    if given.verb == "zoo":
        animals = ({} if given.only else made_up()) | {
            path.name: path.read_bytes()[: given.bytes] for path in given.files
        }
        lm = ByteLM.from_pretrained(given.model, dtype="int8")
        for name, data in animals.items():
            for protocol in given.protocol or PROTOCOLS:
                size = walk_animal(lm, data, learn=PROTOCOLS[protocol])
                print(f"{name:<24}{protocol:<10}{len(data):>10,} bytes → {size:>10,}", flush=True)
    else:
        for protocol, learn in PROTOCOLS.items():
            tried = walk_faults(small_model(), learn=learn, count=given.faults)
            print(f"{protocol:<10}{sum(tried.values()):,} faults, each noticed: {dict(tried)}", flush=True)


def made_up(size: int = 6000) -> dict[str, bytes]:
    """Return files of all kinds, by their names."""
    draw = random.Random(0)
    text = "Ein Bär trank Öl, und 你好 rief Émile. ".encode() * (size // 40)
    pixels = bytes(
        (x * y // 3 + channel * 40) & 255 for y in range(size // 96) for x in range(32) for channel in range(3)
    )
    sparse = bytearray(size)
    for _ in range(size // 300):
        sparse[draw.randrange(size)] = draw.randrange(256)
    return {
        "empty": b"",
        "one byte": b"\xff",
        "random": draw.randbytes(size),
        "sparse": bytes(sparse),
        "image, PPM": b"P6 32 %d 255\n" % (size // 96) + pixels,
        "image, PNG": png(pixels, width=32),
        "UTF-16": text.decode().encode("utf-16")[:size],
        "UTF-8": text,
        "stories": b"\n<|endoftext|>\n".join([STORY * 5] * (size // 180)),
        "separators": b"\n<|endoftext|>\n" * (size // 60),
        "separators in part": b"<|endoftext|>\n<|endoftext|\n" * (size // 60),
        "every byte": bytes(range(256)) * (size // 512),
    }


def png(pixels: bytes, *, width: int) -> bytes:
    """Return an RGB image as PNG."""
    height = len(pixels) // (3 * width)
    rows = b"".join(b"\0" + pixels[3 * width * y : 3 * width * (y + 1)] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def walk_animal(lm: ByteLM, data: bytes, *, learn: bool) -> int:
    """Compress and decompress on every number of threads; return the compressed size."""
    before, found = torch.get_num_threads(), set()
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            found.add(compress(lm, data, learn=learn))
        assert len(found) == 1, "the compressed bytes depend on the number of threads"
        (compressed,) = found
        for threads in THREADS:
            torch.set_num_threads(threads)
            assert decompress(lm, Archive.unpack(compressed)) == data, f"not the identity on {threads} threads"
    finally:
        torch.set_num_threads(before)
    assert len(compressed) <= len(data) * 1.001 + 64, "the file grew"
    return len(compressed)


def small_model() -> ByteLM:
    """Train a tiny model on a story, so that it shrinks what is like it."""
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG)
    optimizer = torch.optim.Adam([weight for weight in lm.parameters() if weight.requires_grad], lr=0.01)
    ids = encode(STORY * 3, bos=True, eos=True)[None]
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(lm(ids[:, :-1])[0], ids[0, 1:]).backward()
        optimizer.step()
    return lm.eval()


def walk_faults(lm: ByteLM, *, learn: bool, count: int, size: int = 150) -> Counter[str]:
    """Try faults one by one in a file of four blocks of `size` bytes; return how many there were of each kind."""
    draw, blocks = random.Random(7), 4
    text = b"".join(draw.choices((b"Tom ", b"Lily ", b"sat under ", b"the tree. "), k=size * blocks))[: size * blocks]
    symbols = np.frombuffer(text, np.uint8).astype(np.int16)
    compressed = compress_blocks(
        lm, np.split(symbols, blocks), data=text, separator=b"", context=0, rows=32, learn=learn, threshold=math.nan
    )
    archive = Archive.unpack(compressed)
    assert archive.model is not None
    assert len(archive.blocks) == blocks
    assert decompress(lm, archive) == text
    tried: Counter[str] = Counter()
    for kind, damaged in some_faults(compressed, draw):
        if tried.total() == count:
            break
        if damaged == compressed:
            continue
        tried[kind] += 1
        try:
            found = decompress(lm, Archive.unpack(damaged))
        except BLTError:  # its message is one line, whatever it repeats (`errors.one_line`)
            continue
        raise AssertionError(f"{kind}: not noticed; the output is {'right' if found == text else 'wrong'}")
    return tried


def some_faults(data: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Return files with one fault each, without end."""
    archive = Archive.unpack(data)
    assert archive.model is not None
    start = len(data) - sum(map(len, archive.blocks))
    while True:
        at = draw.randrange(len(data))
        yield "flip", data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        yield "cut", data[:at]
        first, second = sorted(draw.sample(range(len(archive.blocks)), 2))
        blocks, table = list(archive.blocks), list(archive.model.blocks)
        blocks[first], blocks[second] = blocks[second], blocks[first]
        yield "swap", data[:start] + b"".join(blocks)
        table[first], table[second] = table[second], table[first]
        model = dataclasses.replace(archive.model, blocks=table)
        yield "swap, described", dataclasses.replace(archive, model=model, blocks=blocks).pack()
        size, places = draw.randrange(1, 200), sorted(draw.randrange(start, len(data)) for _ in range(2))
        one, two = places[0], max(places[1], min(places[0] + size, len(data)))
        yield (
            "swap of pieces",
            data[:one] + data[two : two + size] + data[one + size : two] + data[one : one + size] + data[two + size :],
        )


if __name__ == "__main__":
    main()
