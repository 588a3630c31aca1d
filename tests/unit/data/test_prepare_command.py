import pytest

from blt.cli import main
from blt.data import Shards


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n<|endoftext|>\n".join(f"story {number}".encode() for number in range(100)))
    return path


def test_prepare_writes_shards_and_says_what_is_in_them(capsys, tmp_path, text):
    status, out, _ = run(capsys, text, "--out", tmp_path / "out", "--validation", "0.1", "--shard-mb", "0.0001")
    assert status == 0
    shards = Shards.open(tmp_path / "out")
    assert f"{shards.num_documents} documents" in out
    assert f"{shards.num_bytes} bytes" in out
    assert shards.checksum[:12] in out
    assert str(tmp_path / "out") in out
    assert len(list((tmp_path / "out" / "train").glob("*.bin"))) > 3
    status, out, _ = run(capsys, text, "--out", tmp_path / "out", "--validation", "0.1", "--shard-mb", "0.0001")
    assert status == 0
    assert out.startswith("already prepared, nothing to do")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.txt"], "blt: nothing.txt: does not exist; check the path"),
        ([], "blt: inputs: expected at least one file, or - or a data set"),
        (["a.txt", "--validation", "2"], "blt: validation: expected 0 or more and less than 1, got 2.0"),
    ],
)
def test_trouble_is_one_line_and_status_two(capsys, tmp_path, arguments, message):
    status, out, err = run(capsys, *arguments, "--out", tmp_path / "out")
    assert (status, out, err) == (2, "", message + "\n")
