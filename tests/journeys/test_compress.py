import pytest

from blt.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("Tom had a red ball. Anna ran. " * 12)
    return path


def test_a_file_is_compressed_beside_itself_and_restored(tiny_folder, text_file, tmp_path):
    text = text_file.read_bytes()
    assert run("compress", text_file, "--learn", "--model", tiny_folder) == 0
    compressed = tmp_path / "stories.txt.blt"
    assert compressed.stat().st_size < len(text)
    assert text_file.read_bytes() == text
    text_file.unlink()
    assert run("decompress", compressed, "--model", tiny_folder) == 0
    assert text_file.read_bytes() == text


def test_what_is_there_is_replaced_only_where_that_is_asked_for(tiny_folder, text_file, tmp_path, capsys):
    target = tmp_path / "stories.txt.blt"
    target.write_text("mine")
    assert run("compress", text_file, "--model", tiny_folder) == 2
    assert "--force to replace it" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert run("compress", text_file, "--model", tiny_folder, "--force") == 0
    assert target.read_bytes()[:4] == b"BLTz"


def test_damage_is_one_line_and_leaves_nothing(tiny_folder, text_file, tmp_path, capsys):
    target = tmp_path / "stories.txt.blt"
    assert run("compress", text_file, "--learn", "--model", tiny_folder) == 0
    data = bytearray(target.read_bytes())
    data[-20] ^= 4
    target.write_bytes(data)
    text_file.unlink()
    assert run("decompress", target, "--model", tiny_folder) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "damaged in block 1 of 1" in error
    assert not text_file.exists()
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "."], "is a folder"),
        (["compress", "nothing.txt"], "No such file"),
        (["compress", "stories.txt", "--level", "4"], "4 is not in the range"),
        (["compress", "stories.txt", "--dtype", "int4"], "int4"),
        (["decompress", "stories.txt"], "does not end in .blt"),
        (["decompress", "stories.txt", "-o", "out"], "no file of `blt compress`"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(text_file, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(text_file.parent)
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
