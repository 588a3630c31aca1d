"""What a writer of folders may replace, and how the old one gives way to the new one."""

import errno
import os
import re
import threading
from pathlib import Path

import pytest

from blt.checkpoint import FolderKind, check_replaceable, folders, read_whole, recover_folder, write_file, write_folder
from blt.checkpoint.exchange import exchange
from blt.errors import DataError, ModelFolderError, OutputError

KIND = FolderKind(
    noun="folder of numbers",
    files=re.compile(r"mark|part/(number-\d+)?"),
    is_own=lambda folder: (folder / "mark").is_file(),
)


def fill_with(number):
    def fill(folder):
        write_file(folder / "mark", str(number).encode())
        (folder / "part").mkdir()
        write_file(folder / "part" / f"number-{number}", str(number).encode())

    return fill


def write(folder, number, **options):
    write_folder(folder, fill_with(number), kind=KIND, **options)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_absent_empty_and_own_folders_are_written_and_nothing_else_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty", "absent", "deep/er"):
        write(tmp_path / name, 1)
        write(tmp_path / name, 2)
        assert content(tmp_path / name) == {"mark": b"2", "part/number-2": b"2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absent", "deep", "empty"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda out: (out / "thesis.tex").write_text("years"), "it holds thesis.tex, which blt did not write"),
        (lambda out: (out / "part" / "notes.md").write_text("mine"), "it holds part/notes.md"),
        (lambda out: (out / "runs").mkdir(), "it holds runs/"),
        (lambda out: (out / "part" / "number-7").symlink_to("/etc/hostname"), "it holds part/number-7"),
        (lambda out: (out / "part" / "number-7").mkdir(), "it holds part/number-7"),
        (lambda out: os.mkfifo(out / "part" / "number-7"), "it holds part/number-7"),
        (lambda out: (out / "mark").unlink(), "or an incomplete one"),
    ],
    ids=["file", "file within", "folder", "link", "folder for a file", "pipe", "no mark"],
)
def test_a_folder_that_holds_anything_else_is_refused_and_stays(tmp_path, make, said):
    out = tmp_path / "out"
    write(out, 1)
    make(out)
    before = sorted(out.rglob("*"))
    with pytest.raises(ModelFolderError, match=re.escape(said)):
        write(out, 2)
    assert sorted(out.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_appears_while_the_new_one_is_written_is_not_deleted(tmp_path):
    out = tmp_path / "out"
    write(out, 1)

    def fill(folder):
        fill_with(2)(folder)
        (out / "thesis.tex").write_text("years of work")

    with pytest.raises(ModelFolderError, match=r"it holds thesis\.tex"):
        write_folder(out, fill, kind=KIND)
    assert content(out) == {"mark": b"1", "part/number-1": b"1", "thesis.tex": b"years of work"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_path_that_holds_a_source_or_lies_in_one_is_never_replaced(tmp_path):
    write(tmp_path / "a", 1)
    write(tmp_path / "a" / "part" / "b", 1)
    for out, source, said in (
        ("a", "a", "is what is read"),
        ("a", "a/mark", "holds what is read, mark"),
        ("a/part/b", "a", "lies in what is read"),
    ):
        kind = FolderKind(noun="thing", files=re.compile(".*"), is_own=lambda _: True, error=DataError)
        with pytest.raises(DataError, match=said):
            check_replaceable(tmp_path / out, kind, sources=["no such thing", "x" * 5000, tmp_path / source])
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ModelFolderError, match="is what is read"):
        write(tmp_path / "link", 2, sources=[tmp_path / "a"])
    assert content(tmp_path / "a")["mark"] == b"1"


@pytest.mark.parametrize(("name", "here"), [(".", "a"), ("..", "a/part"), ("../a", "a")])
def test_the_folder_that_a_command_runs_in_is_not_replaced(tmp_path, monkeypatch, name, here):
    write(tmp_path / "a", 1)
    monkeypatch.chdir(tmp_path / here)
    kind = FolderKind(
        noun="thing", files=re.compile(".*"), is_own=lambda _: True
    )  # anything, so that only this is told
    with pytest.raises(ModelFolderError, match="the folder that one works in"):
        check_replaceable(name, kind)


def test_the_root_is_not_replaced():
    with pytest.raises(ModelFolderError, match="/: is the folder that one works in, or contains it"):
        write(Path("/"), 1)


def test_an_empty_folder_that_a_command_runs_in_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFolderError, match="is the folder that one works in"):
        write(Path(), 1)
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link_and_what_it_names_is_written(tmp_path):
    for target in ("real", "dangling"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(target)
        if target == "real":
            write(tmp_path / "real", 1)
        write(link, 2)
        assert link.is_symlink()
        assert content(tmp_path / target)["mark"] == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "real", "to-dangling", "to-real"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ModelFolderError, match="is there and is no folder of numbers but a file"):
        write(tmp_path / "out", 1)


def test_a_full_disk_names_the_file_that_was_meant_and_the_way_out(tmp_path):
    write(tmp_path / "out", 1)

    def fill(folder):
        with folders.named_failures(folder / "part"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as error:
        write_folder(tmp_path / "out", fill, kind=KIND)
    way_out = "No space left on device; make room and run the same command again"
    assert str(error.value) == f"{tmp_path / 'out' / 'part'}: {way_out}"
    assert error.value.errno == errno.ENOSPC
    assert content(tmp_path / "out")["mark"] == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_at_every_moment_a_reader_gets_the_old_one_or_the_new_one(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    out, seen, is_over = tmp_path / "out", set(), threading.Event()
    write(out, 0)

    def read(folder):
        number = int((folder / "mark").read_text())
        return number, int((folder / "part" / f"number-{number}").read_text())

    def read_often():
        while not is_over.is_set():
            seen.add(read_whole(out, read))

    reader = threading.Thread(target=read_often)
    reader.start()
    for number in range(1, 60):
        write(out, number)
    is_over.set()
    reader.join()
    assert len(seen) > 1
    assert all(first == second for first, second in seen)


def test_a_replacement_killed_between_two_renames_is_undone_by_whoever_comes_next(tmp_path):
    for next_one in (recover_folder, lambda out: write(out, 2)):
        out = tmp_path / "out"
        write(out, 1)
        out.rename(tmp_path / ".out.replaced")
        next_one(out)
        assert content(out)["mark"] in (b"1", b"2")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_change_places_or_nothing_happens(tmp_path):
    write(tmp_path / "a", 1)
    write(tmp_path / "b", 2)
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "c")
    if exchange(tmp_path / "a", tmp_path / "b"):
        assert content(tmp_path / "a")["mark"] == b"2"
        assert content(tmp_path / "b")["mark"] == b"1"


def test_an_error_of_a_folder_that_stays_is_told_once(tmp_path):
    calls = []

    def read(folder):
        calls.append(folder)
        raise ModelFolderError("broken")

    with pytest.raises(ModelFolderError, match="broken"):
        read_whole(tmp_path, read)
    assert len(calls) == 1


def test_two_writers_of_one_folder_take_turns(tmp_path):
    writers = [threading.Thread(target=write, args=(tmp_path / "out", number)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    number = int(content(tmp_path / "out")["mark"])
    assert content(tmp_path / "out") == {"mark": b"%d" % number, f"part/number-{number}": b"%d" % number}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_reader_waits_for_a_replacement_that_is_slow_between_its_two_renames(tmp_path, monkeypatch):
    """The writer of another process is stopped there for longer than a read takes, as on a busy machine."""
    out = tmp_path / "out"
    write(out, 1)
    replaced = tmp_path / ".out.replaced"
    looks = iter([lambda: out.rename(replaced), lambda: None, lambda: replaced.rename(out)])
    monkeypatch.setattr(folders, "recover_folder", lambda folder: next(looks, lambda: None)())
    assert read_whole(out, lambda folder: (folder / "mark").read_text()) == "1"


def test_a_folder_that_is_missing_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "out", lambda folder: (folder / "mark").read_text())
