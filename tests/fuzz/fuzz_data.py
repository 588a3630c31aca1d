"""What `blt prepare`, `evaluate` and `calibrate` read."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard
from tests.fuzz.harness import fuzzer

from blt.data import PrepareConfig, Shards, prepare, read_documents

_LINES = b'{"text": "One.\\n\\u00e9", "id": 1}\n\n{"text": "Two.", "meta": {"a": [1, 2.5e3, null, true]}}\r\n'
_STORY = b"One.\n<|endoftext|>\nTwo, \xc3\xa9 and \xff.\n<|endoftext|>\n\n<|endoftext|>\nThree.\n"
_BOMB = b"a" * (1 << 23)


def _read(data: bytes, path: Path, **options: object) -> int:
    """Read all documents of a file with these bytes, and return how long they are."""
    path.write_bytes(data)
    return sum(map(len, read_documents(path, **options)))


@fuzzer(seeds=lambda: [_LINES, b"\xef\xbb\xbf" + _LINES, b'{"text": null}\n{"text": "a", "text": "b"}\n[1]\n' + _LINES])
def jsonl(data: bytes, folder: Path) -> None:
    for skip_bad in (True, False):
        _read(data, folder / "a.JSONL", skip_bad=skip_bad, max_document_bytes=1 << 20)


@fuzzer(
    seeds=lambda: [
        *(_STORY, b"\xef\xbb\xbf" + _STORY, _STORY.replace(b"\n", b"\r\n"), _STORY.replace(b"\n", b"\r")),
        b"<|endoftext|> \t\nA<|endoftext|>B\n<|endoftext|>" + b"<|endoftext|>" * 20,
    ]
)
def text(data: bytes, folder: Path) -> None:
    """Nothing but separators, the newlines beside them and a byte order mark may be lost."""
    (folder / "a.txt").write_bytes(data)
    documents = read_documents(folder / "a.txt", max_document_bytes=1 << 22)
    assert _without_marks(b"\n".join(documents)) == _without_marks(data), "bytes were lost"


def _without_marks(text: bytes) -> bytes:
    return text.replace(b"<|endoftext|>", b"").translate(None, b"\r\n \t\xef\xbb\xbf")


def _parquets() -> list[bytes]:
    table = pyarrow.table({"text": ["One.", "", "Two, é.", None] * 5, "id": list(range(20))})
    raw = pyarrow.table({"text": pyarrow.array([b"\xff", b"x" * 300]).cast(pyarrow.large_binary())})
    names = pyarrow.table({"text": pyarrow.array(["a", "b"] * 500).dictionary_encode()})
    one = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000, pyarrow.int32()), ["a" * 1_500_000])
    bomb = pyarrow.table({"text": one})  # 3 GB in a few kB
    files = []
    for content, options in (
        (table, {}),
        (table, {"compression": "zstd", "row_group_size": 7, "data_page_version": "2.0"}),
        (table, {"compression": "gzip", "use_dictionary": False}),
        (raw, {"compression": "none"}),
        (names, {}),
        (bomb, {"store_schema": False}),
        (table.slice(0, 0), {}),
    ):
        file = io.BytesIO()
        pyarrow.parquet.write_table(content, file, **options)
        files.append(file.getvalue())
    return files


@fuzzer(seeds=_parquets)
def parquet(data: bytes, folder: Path) -> None:
    for skip_bad in (True, False):
        _read(data, folder / "a.parquet", skip_bad=skip_bad, max_document_bytes=1 << 20)


_PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def _packed() -> list[bytes]:
    """Each begins with a line that is the ending of its name."""
    packed = [
        (ending, pack(content))
        for ending, pack in _PACKERS.items()
        for content in (_STORY, _STORY * 20_000, _BOMB, b"")
    ]
    long_window = zstandard.ZstdCompressionParameters(window_log=27, write_checksum=True)
    packed.append((".zst", zstandard.ZstdCompressor(compression_params=long_window).compress(_STORY)))
    packed.append((".zst", b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(_STORY) * 3))
    packed.append((".xz", lzma.compress(_STORY, format=lzma.FORMAT_ALONE)))
    return [ending.encode() + b"\n" + data for ending, data in packed]


@fuzzer(seeds=_packed)
def compressed(data: bytes, folder: Path) -> None:
    ending, _, packed = data.partition(b"\n")
    if ending.decode("latin-1") in _PACKERS:
        _read(packed, folder / f"a.txt{ending.decode()}", max_document_bytes=1 << 20)


def _prepared() -> list[dict[str, bytes]]:
    """A folder that is finished, and one that was interrupted."""
    import tempfile

    import blt.data.output_folder

    folders = []
    for interrupted in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            (root / "a.txt").write_bytes(_STORY * 5)
            commit = blt.data.output_folder.OutputFolder.commit
            try:
                if interrupted:
                    blt.data.output_folder.OutputFolder.commit = _interrupt
                _prepare(root)
            except KeyboardInterrupt:
                pass
            finally:
                blt.data.output_folder.OutputFolder.commit = commit
            folders.append({str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    return folders


def _interrupt(folder: object) -> None:
    raise KeyboardInterrupt


def _prepare(root: Path) -> None:
    prepare(PrepareConfig(inputs=(str(root / "a.txt"),), out=str(root / "out"), validation=0.2, shard_bytes=60))


@fuzzer(seeds=_prepared)
def prepared(files: dict[str, bytes], folder: Path) -> None:
    """What a preparation left, finished or not: it is gone on with, begun anew, or refused."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    is_fresh = not any(name.startswith("out/") for name in files)
    _prepare(folder)
    if is_fresh:
        index = json.loads((folder / "out" / "index.json").read_bytes())
        for split in ("train", "validation"):
            if index["splits"][split]["num_documents"]:
                Shards.open(folder / "out", split=split).verify()
