import gzip
import io
import subprocess
import sys
import time

import pytest
import zstandard

from blt.data import read_documents
from blt.data.zstandard_stream import ZstandardStream
from blt.errors import DataError


def test_zstandard_that_holds_much_in_little_is_unpacked_block_by_block():
    packed = zstandard.compress(bytes(1 << 28))
    assert len(packed) < 1 << 16
    stream = ZstandardStream(io.BufferedReader(io.BytesIO(packed)))
    most = total = 0
    while count := stream.readinto(bytearray(1 << 22)):
        most, total = max(most, count), total + count
    assert total == 1 << 28
    assert most <= 1 << 17


def test_zstandard_frames_of_every_make_are_read(tmp_path):
    story = b"One story. " * 100_000
    skipped = b"\x5a\x2a\x4d\x18\x06\0\0\0zstd\xfd\x2f"
    frames = [skipped]
    for options in (
        {},
        {"write_checksum": True, "write_content_size": False},
        {"write_content_size": False, "window_log": 10},
        {"write_content_size": True, "window_log": 27, "compression_level": 19},
    ):
        parameters = zstandard.ZstdCompressionParameters(**options)
        frames += [zstandard.ZstdCompressor(compression_params=parameters).compress(story), skipped]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    assert b"".join(read_documents(tmp_path / "a.txt.zst")) == story * 4


def test_zstandard_is_unpacked_in_time_in_proportion(tmp_path):
    def seconds(num_documents):
        path = tmp_path / "a.txt.zst"
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
            for _ in range(num_documents):
                writer.write(b"a" * (1 << 20) + b"\n<|endoftext|>\n")
        start = time.process_time()
        assert sum(1 for _ in read_documents(path)) == num_documents
        return time.process_time() - start

    seconds(8)
    assert seconds(256) < 16 * max(seconds(32), 0.05)  # in the square, it would be 64 times


BOMB = """
import resource, sys
from pathlib import Path
from blt.data import read_documents
from blt.errors import DataError
pages = int(Path("/proc/self/statm").read_text().split()[0])  # what is imported takes some
limit = pages * resource.getpagesize() + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    for _ in read_documents(sys.argv[1]): pass
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["one.txt", "one.jsonl"])
def test_a_document_that_does_not_fit_into_memory_is_one_line_that_names_it(tmp_path, name, ending):
    path = tmp_path / (name + ending)
    with gzip.open(path, "wb", 1) if ending == ".gz" else zstandard.open(path, "wb") as file:
        file.write(b'{"text": "' if "jsonl" in name else b"")
        for _ in range(900):
            file.write(b"a" * (1 << 20))
    result = subprocess.run([sys.executable, "-c", BOMB, path], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(str(path))
    assert "memory" in result.stdout
    assert ("line 1" if "jsonl" in name else "document 1") in result.stdout


def test_a_name_that_no_file_can_have_is_told():
    with pytest.raises(DataError, match="is no path"):
        list(read_documents("a\0b"))
