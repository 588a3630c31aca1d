import errno
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blt.data import PrepareConfig, Shards, prepare
from blt.data.output_folder import OutputFolder
from blt.data.shard_writer import ShardWriter
from blt.data.splits import is_for_validation
from blt.errors import ConfigurationError, DataError
from prepared_folders import as_version_1

STORIES = [f"story {number} of {number % 7}".encode() * (1 + number % 5) for number in range(300)]


@pytest.fixture
def inputs(tmp_path):
    """Two inputs in two formats."""
    text, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    text.write_bytes(b"\n<|endoftext|>\n".join(STORIES[:200]))
    lines.write_text("".join(json.dumps({"text": story.decode()}) + "\n" for story in STORIES[200:]))
    return (str(text), str(lines))


def config_of(inputs, out, **options):
    return PrepareConfig(**{"inputs": inputs, "out": str(out), "validation": 0.2, "shard_bytes": 1000} | options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def documents_of(folder, split="train"):
    shards = Shards.open(folder, split=split)
    return [shards.document(number).tobytes() for number in range(shards.num_documents)]


def test_both_splits_hold_every_document_in_order(tmp_path, inputs):
    summary = prepare(config_of(inputs, tmp_path / "out"))
    chosen = [is_for_validation(story, fraction=0.2, seed=0) for story in STORIES]
    assert documents_of(tmp_path / "out") == [
        story for story, is_held_out in zip(STORIES, chosen, strict=True) if not is_held_out
    ]
    assert documents_of(tmp_path / "out", "validation") == list(itertools.compress(STORIES, chosen))
    assert 30 < summary.splits["validation"]["num_documents"] < 90
    assert summary.splits["train"]["num_shards"] > 5
    assert not summary.was_already_prepared
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.jsonl", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.json", "train", "validation"]


def test_the_index_names_inputs_settings_and_checksums(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["settings"]["validation"] == 0.2
    assert index["sources"][0] == {
        "name": "a.txt",
        "num_bytes": Path(inputs[0]).stat().st_size,
        "sha256": hashlib.sha256(Path(inputs[0]).read_bytes()).hexdigest(),
    }
    shards = Shards.open(tmp_path / "out")
    assert (
        shards.checksum == Shards.from_documents(documents_of(tmp_path / "out")).checksum == shards.compute_checksum()
    )
    shards.verify()


def test_the_split_of_a_document_hangs_on_its_bytes_and_the_seed_alone():
    chosen = [is_for_validation(story, fraction=0.5, seed=0) for story in STORIES]
    assert chosen == [is_for_validation(story, fraction=0.5, seed=0) for story in STORIES]
    assert chosen != [is_for_validation(story, fraction=0.5, seed=1) for story in STORIES]
    assert not any(is_for_validation(story, fraction=0.0, seed=0) for story in STORIES)


@pytest.mark.parametrize("ending", [".bin", ".ends"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_shard_is_refused(tmp_path, inputs, ending, damage):
    prepare(config_of(inputs, tmp_path / "out"))
    path = tmp_path / "out" / "train" / f"shard-00002{ending}"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if damage == "changed" else content[:-8])
    with pytest.raises(DataError, match=rf"shard-00002{ending}: (has changed|has \d+ bytes, index|missing)"):
        Shards.open(tmp_path / "out").verify()


def test_a_finished_folder_is_left_alone(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert prepare(config_of(inputs, tmp_path / "out")).was_already_prepared
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(DataError, match=r"was prepared with other seed \(0, now 1\); choose another --out"):
        prepare(config_of(inputs, tmp_path / "out", seed=1))
    with pytest.raises(DataError, match="was prepared with other inputs"):
        prepare(config_of(inputs[:1], tmp_path / "out"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.jsonl", "out"]


def test_a_finished_folder_of_the_first_version_is_left_alone_too(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out"))
    as_version_1(tmp_path / "out")
    before = contents(tmp_path / "out")
    summary = prepare(config_of(inputs, tmp_path / "out"))
    assert summary.was_already_prepared
    assert summary.splits["train"]["num_shards"] > 5
    assert contents(tmp_path / "out") == before
    with pytest.raises(DataError, match=r"was prepared with other seed \(0, now 1\)"):
        prepare(config_of(inputs, tmp_path / "out", seed=1))


def test_overwrite_replaces_a_finished_folder(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out", seed=1))
    prepare(config_of(inputs, tmp_path / "out", overwrite=True))
    prepare(config_of(inputs, tmp_path / "fresh"))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.jsonl", "fresh", "out"]


def test_a_folder_of_something_else_is_never_touched(tmp_path, inputs):
    out = tmp_path / "out"
    out.mkdir()
    prepare(config_of(inputs[:1], out))  # an empty folder is as good as none
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(DataError, match=r"has no index.json.*; nothing was changed: choose another --out"):
        prepare(config_of(inputs, tmp_path / "thesis", overwrite=True))
    with pytest.raises(DataError, match="is a file"):
        prepare(config_of(inputs, inputs[0], overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.jsonl", "out", "thesis"]


@pytest.mark.parametrize("failing_write", [0, 1, 5, 17, 40, 41, 42, 43])
def test_a_full_disk_leaves_a_state_to_go_on_from(tmp_path, inputs, monkeypatch, failing_write):
    prepare(config_of(inputs, tmp_path / "whole"))
    syncs = itertools.count()
    real_sync = os.fsync

    def fsync(descriptor):
        if next(syncs) == failing_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(DataError, match="No space left on device; make room and run the same command again"):
            prepare(config_of(inputs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    prepare(config_of(inputs, tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


KILL_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from blt.data import PrepareConfig, prepare

os.fsync = lambda descriptor: None  # a kill loses nothing that was written, and disks may be slow

def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

def die_at(moment):
    events = iter(range(moment))
    def watch(event, arguments):
        touches = event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
        if touches and str(root) in str(arguments[0]) and next(events, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

root, inputs = Path(sys.argv[1]), tuple(sys.argv[2:])
out, whole, old = root / "out", contents(root / "whole"), contents(root / "old")
config = PrepareConfig(inputs=inputs, out=str(out), validation=0.2, shard_bytes=4000, overwrite=True)
names = {path.name for path in root.iterdir()}
moment = 12
for has_old, stride in ((False, 2), (True, 1)):
    for moment in range(moment - 12, 1000, stride):  # with an old folder, only the last moments differ
        shutil.rmtree(out, ignore_errors=True)
        if has_old:
            shutil.copytree(root / "old", out)
        child = os.fork()
        if child == 0:
            die_at(moment)
            prepare(config)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), (moment, status)
        if status == 0:
            break
        if out.exists():
            assert contents(out) in (whole, old), ("torn", has_old, moment)
        prepare(config)
        assert contents(out) == whole, ("not the same", has_old, moment)
        assert {path.name for path in root.iterdir()} - {"out"} == names, ("left behind", has_old, moment)
    print(moment, "kills")
"""


def test_a_kill_at_any_moment_leaves_a_state_from_which_the_same_command_gives_the_same_bytes(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "whole", shard_bytes=4000))
    prepare(config_of(inputs[:1], tmp_path / "old", shard_bytes=4000))
    command = [sys.executable, "-c", KILL_EVERYWHERE, str(tmp_path), *inputs]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    fresh, overwriting = (int(line.split()[0]) for line in result.stdout.splitlines())
    assert 20 < fresh < overwriting < 1000


@pytest.mark.parametrize(("shard_bytes", "most_repeated"), [(1000, 80), (1_000_000, 100)])
def test_an_interrupted_run_goes_on_after_its_last_shard_or_input(
    tmp_path, inputs, monkeypatch, shard_bytes, most_repeated
):
    appended = []
    real_append = ShardWriter.append

    def append(writer, document):
        if len(appended) == 250:
            raise KeyboardInterrupt
        appended.append(document)
        real_append(writer, document)

    monkeypatch.setattr(ShardWriter, "append", append)
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(inputs, tmp_path / "out", shard_bytes=shard_bytes))
    assert appended == STORIES[:250]
    appended[:] = []
    prepare(config_of(inputs, tmp_path / "out", shard_bytes=shard_bytes))
    assert 50 <= len(appended) <= most_repeated
    assert appended == STORIES[-len(appended) :]


@pytest.mark.parametrize("damaged", ["train/shard-00000.bin", "train/shard-00000.ends", "progress.json"])
def test_an_interrupted_run_whose_files_were_damaged_starts_over(tmp_path, inputs, monkeypatch, damaged):
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "commit", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(inputs, tmp_path / "out", shard_bytes=1_000_000))
    path = tmp_path / ".out.unfinished" / damaged
    path.write_bytes(path.read_bytes()[:-8])
    prepare(config_of(inputs, tmp_path / "out", shard_bytes=1_000_000))
    prepare(config_of(inputs, tmp_path / "fresh", shard_bytes=1_000_000))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_an_old_folder_that_was_about_to_give_way_comes_back(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / ".out.replaced")  # as a kill between the two renames leaves it
    with pytest.raises(DataError, match="was prepared with other seed"):
        prepare(config_of(inputs, tmp_path / "out", seed=3))
    assert prepare(config_of(inputs, tmp_path / "out")).was_already_prepared


def test_a_run_with_other_inputs_does_not_go_on_with_an_interrupted_one(tmp_path, inputs, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "commit", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(inputs, tmp_path / "out"))
    prepare(config_of(inputs[1:], tmp_path / "out"))
    prepare(config_of(inputs[1:], tmp_path / "fresh"))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_two_runs_on_one_folder_do_not_meet(tmp_path, inputs):
    folder = OutputFolder(tmp_path / "out")
    with folder.locked(), pytest.raises(DataError, match="another process is preparing it"):
        prepare(config_of(inputs, tmp_path / "out"))
    prepare(config_of(inputs, tmp_path / "out"))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b'{"text": "x"}\n{"te', {"format": "jsonl"}, "line 2 is not JSON"),
        (b"one story", {"validation": 0.999999}, "every document fell to validation"),
        (b"", {}, "is empty"),
    ],
)
def test_a_run_that_fails_on_its_inputs_leaves_nothing_behind(tmp_path, content, options, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(config_of((str(tmp_path / "a.txt"),), tmp_path / "out", **options))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_later_input_that_cannot_be_read_is_told_before_anything_is_written(tmp_path, inputs):
    stages = []
    with pytest.raises(DataError, match=r"typo\.txt: does not exist"):
        prepare(config_of((*inputs, "typo.txt"), tmp_path / "out"), progress=lambda p: stages.append(p.stage))
    assert set(stages) == {"checking"}


def test_standard_input_is_read_once_and_known_again(tmp_path, monkeypatch):
    for was_already_prepared in (False, True):
        text = b"\n<|endoftext|>\n".join(STORIES)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        summary = prepare(config_of(("-",), tmp_path / "out"))
        assert summary.was_already_prepared == was_already_prepared
    assert sorted(documents_of(tmp_path / "out") + documents_of(tmp_path / "out", "validation")) == sorted(STORIES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_ends_at_the_size_of_the_inputs(tmp_path, inputs):
    seen = []
    prepare(config_of(inputs, tmp_path / "out"), progress=seen.append)
    assert [progress.stage for progress in seen] == sorted(progress.stage for progress in seen)
    assert seen[-1].num_documents == len(STORIES)
    assert seen[-1].num_bytes == seen[-1].total_bytes == sum(Path(path).stat().st_size for path in inputs)


def test_a_split_without_documents_is_told_apart_from_a_missing_one(tmp_path, inputs):
    prepare(config_of(inputs, tmp_path / "out", validation=0.0))
    with pytest.raises(DataError, match="the split 'validation' has no documents; choose another --validation"):
        Shards.open(tmp_path / "out", split="validation")
    with pytest.raises(DataError, match="has no split 'test'; it has train, validation"):
        Shards.open(tmp_path / "out", split="test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "expected at least one file"),
        ({"inputs": ("-", "-")}, "- can be given only once"),
        ({"validation": 1.0}, "validation: expected 0 or more and less than 1, got 1.0"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"shard_bytes": 0}, "shard_bytes: expected at least 1"),
    ],
)
def test_an_impossible_configuration_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        PrepareConfig(**{"inputs": ("a",), "out": "out"} | options)
