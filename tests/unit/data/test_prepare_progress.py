import json

import pytest

from blt.data import PrepareConfig, Shards, prepare
from blt.data.prepare_progress import read_progress, write_progress
from blt.data.prepare_run import PrepareRun
from blt.errors import DataError

STORIES = [f"{number} ".encode() * 40 for number in range(200)]


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A preparation that stopped with finished shards and an open one, and how to go on with it."""
    (tmp_path / "a.txt").write_bytes(b"\n<|endoftext|>\n".join(STORIES))
    config = PrepareConfig(
        inputs=(str(tmp_path / "a.txt"),), out=str(tmp_path / "out"), shard_bytes=6000, validation=0.3
    )
    notes = []
    note = PrepareRun._note

    def stop(run):
        note(run)
        notes.append(1)
        if len(notes) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PrepareRun, "_note", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    return config


def finish(config, folder):
    prepare(config)
    documents = []
    for split in ("train", "validation"):
        shards = Shards.open(folder, split=split)
        shards.verify()
        documents += [shards.document(number).tobytes() for number in range(shards.num_documents)]
    assert sorted(documents) == sorted(STORIES)


def test_an_interrupted_run_goes_on_without_a_word(interrupted, tmp_path, caplog):
    finish(interrupted, tmp_path / "out")
    assert not caplog.messages


@pytest.mark.parametrize("name", ["shard-00000.bin", "shard-00000.ends", "open.bin", "open.ends"])
@pytest.mark.parametrize("damage", ["zeros", "one bit", "cut", "missing"])
def test_damaged_shards_are_found_and_the_run_starts_over_and_says_so(interrupted, tmp_path, caplog, name, damage):
    unfinished = tmp_path / ".out.unfinished"
    if name.startswith("open"):  # the validation split has one shard so far, which is open
        path = unfinished / "validation" / name.replace("open", "shard-00000")
    else:
        path = unfinished / "train" / name
    content = path.read_bytes()
    assert content
    if damage == "missing":
        path.unlink()
    else:
        changed = {"zeros": bytes(len(content)), "one bit": bytes([content[0] ^ 1]) + content[1:], "cut": content[:-1]}
        path.write_bytes(changed[damage])
    finish(interrupted, tmp_path / "out")
    [message] = caplog.messages
    assert "an interrupted run cannot be gone on with" in message
    assert path.name in message
    assert message.endswith("preparing from the start")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: b"[]",
        lambda text: b"[" * 200_000,
        lambda text: b"\xff" + text,
        lambda text: text[:-9],
        lambda text: json.dumps(json.loads(text) | {"documents": json.loads(text)["documents"] + 1}).encode(),
        lambda text: json.dumps(json.loads(text) | {"documents": "x"}).encode(),
        lambda text: json.dumps(json.loads(text) | {"source": "x"}).encode(),
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "sha256"}).encode(),
    ],
)
def test_a_damaged_note_of_progress_is_a_fresh_start_that_is_told(interrupted, tmp_path, caplog, change):
    path = tmp_path / ".out.unfinished" / "progress.json"
    path.write_bytes(change(path.read_bytes()))
    finish(interrupted, tmp_path / "out")
    [message] = caplog.messages
    assert "cannot be gone on with (progress.json" in message


def test_other_settings_than_those_of_the_interrupted_run_are_told(interrupted, tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(b"\n<|endoftext|>\n".join([*STORIES[1:], STORIES[0]]))
    finish(interrupted, tmp_path / "out")
    assert "it had other inputs or settings" in caplog.text


def test_progress_comes_back_as_it_was_noted(tmp_path):
    assert read_progress(tmp_path / "progress.json") is None
    write_progress(tmp_path / "progress.json", {"source": 1, "splits": {"train": []}})
    assert read_progress(tmp_path / "progress.json") == {"source": 1, "splits": {"train": []}}
    (tmp_path / "progress.json").write_text('{"source": 1}')
    with pytest.raises(DataError, match="is damaged or of another version"):
        read_progress(tmp_path / "progress.json")


def test_a_validation_split_that_comes_out_empty_is_told(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("one story")
    prepare(PrepareConfig(inputs=(str(tmp_path / "a.txt"),), out=str(tmp_path / "out"), validation=0.01))
    assert "none of 1 documents fell to validation; give more, another --seed, or a larger" in caplog.text


def test_a_folder_that_cannot_be_written_is_left_alone_or_told(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one story")
    config = PrepareConfig(inputs=(str(tmp_path / "a.txt"),), out=str(tmp_path / "out"), validation=0.0)
    prepare(config)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as on a mount that is read-only, also for root
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only")))
    assert prepare(config).was_already_prepared
    with pytest.raises(DataError, match=r"other: cannot be written, .* is read-only; choose another --out"):
        prepare(PrepareConfig(inputs=config.inputs, out=str(tmp_path / "other")))
