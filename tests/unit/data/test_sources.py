import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import pyarrow
import pyarrow.parquet
import pytest

from blt.data import PrepareConfig, Shards, prepare
from blt.data.sources import find_sources
from blt.errors import ConfigurationError, DataError

THREE = b"a\n<|endoftext|>\nb\n<|endoftext|>\nc\n"


def config_of(*inputs, out, **options):
    return PrepareConfig(inputs=tuple(map(str, inputs)), out=str(out), **({"validation": 0.0} | options))


def documents_of(folder):
    shards = Shards.open(folder)
    return [shards.document(number).tobytes() for number in range(shards.num_documents)]


def blt(command, **options):
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.mark.parametrize(
    "command",
    [
        "blt prepare <(cat three.txt) --out out --validation 0",
        "cat three.txt | blt prepare /dev/stdin --out out --validation 0",
        "cat three.txt | blt prepare - --out out --validation 0",
        "mkfifo pipe; cat three.txt > pipe & blt prepare pipe --out out --validation 0",
        "blt prepare /dev/stdin --out out --validation 0 < three.txt",
    ],
)
def test_what_can_be_read_only_once_is_read_once(tmp_path, command):
    (tmp_path / "three.txt").write_bytes(THREE)
    command = command.replace("blt prepare", f"{sys.executable} -m blt prepare")
    result = blt(command, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert documents_of(tmp_path / "out") == [b"a", b"b", b"c"]
    assert {path.name for path in tmp_path.iterdir()} - {"pipe"} == {"out", "three.txt"}


def test_several_pipes_of_every_format_are_read_in_order(tmp_path):
    files = {"a.jsonl": b'{"text": "a"}\n', "b.parquet": b"", "c.txt": b"c"}
    pyarrow.parquet.write_table(pyarrow.table({"text": ["b"]}), tmp_path / "whole")
    files["b.parquet"] = (tmp_path / "whole").read_bytes()
    threads = []
    for name, content in files.items():
        os.mkfifo(tmp_path / name)
        threads.append(threading.Thread(target=(tmp_path / name).write_bytes, args=(content,)))
        threads[-1].start()
    prepare(config_of(*(tmp_path / name for name in files), out=tmp_path / "out"))
    for thread in threads:
        thread.join()
    assert documents_of(tmp_path / "out") == [b"a", b"b", b"c"]


def test_a_pipe_that_is_given_twice_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a pipe, which can be read only once"):
        prepare(config_of(tmp_path / "pipe", tmp_path / "pipe", out=tmp_path / "out"))


def test_a_device_without_end_is_refused(tmp_path):
    with pytest.raises(DataError, match="/dev/zero: is a device; give a file"):
        prepare(config_of("/dev/zero", out=tmp_path / "out"))


def test_closed_standard_input_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: is closed; give a file"):
        prepare(config_of("-", out=tmp_path / "out"))


def test_empty_inputs_among_others_are_passed_over_and_told(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(b"")
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(b"\n\n")
    (tmp_path / "d.txt").write_bytes(b"story")
    names = ("a.txt", "b.parquet", "c.jsonl", "d.txt")
    prepare(config_of(*(tmp_path / name for name in names), out=tmp_path / "out"))
    assert documents_of(tmp_path / "out") == [b"story"]
    assert [message.rpartition("; ")[2] for message in caplog.messages] == ["passed over"] * 3
    for name in names[:3]:
        assert f"{tmp_path / name}: " in caplog.text
    with pytest.raises(DataError, match=r"is empty|has no documents"):
        prepare(config_of(*(tmp_path / name for name in names[:3]), out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_folder_gives_its_files_in_order_and_tells_what_it_leaves_out(tmp_path, caplog):
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    contents = {"z.txt": "z", "a.JSONL": '{"text": "a"}', "b/c.text": "c", "b/d.py": "d", ".git/e.txt": "e"}
    for name, content in contents.items():
        (folder / name).write_text(content)
    prepare(config_of(folder, out=tmp_path / "out"))
    assert documents_of(tmp_path / "out") == [b"a", b"c", b"z"]
    sources = json.loads((tmp_path / "out" / "index.json").read_text())["sources"]
    assert [source["name"] for source in sources] == ["texts/a.JSONL", "texts/b/c.text", "texts/z.txt"]
    assert caplog.messages == [f"{folder}: files of other endings are passed over: 1 .py; name those that are wanted"]
    prepare(config_of(folder, out=tmp_path / "all", format="text"))
    assert documents_of(tmp_path / "all") == [b'{"text": "a"}', b"c", b"d", b"z"]


def test_a_folder_of_another_kind_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: is a folder with no files to read \(none\)"):
        prepare(config_of(tmp_path / "empty", out=tmp_path / "out"))
    (tmp_path / "empty" / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"only 1 \.csv"):
        prepare(config_of(tmp_path / "empty", out=tmp_path / "out"))
    (tmp_path / "a.txt").write_text("x")
    prepare(config_of(tmp_path / "a.txt", out=tmp_path / "out"))
    with pytest.raises(DataError, match=r"out: is blt-shards, which `blt prepare` wrote"):
        prepare(config_of(tmp_path / "out", out=tmp_path / "other"))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match="give it as --dataset"):
        prepare(config_of(tmp_path / "saved", out=tmp_path / "other"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split: means nothing without a data set"),
        ({"dataset_config": "x"}, "dataset_config: means nothing without a data set"),
        ({"inputs": (), "dataset": "x", "format": "jsonl"}, "format: jsonl means nothing for a data set"),
        ({"max_document_bytes": 0}, "max_document_bytes: expected at least 1"),
    ],
)
def test_options_that_nothing_would_read_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        PrepareConfig(**{"inputs": ("a.txt",), "out": "out"} | options)


def test_options_of_rows_are_refused_where_no_input_has_rows(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.jsonl").write_text('{"story": "y"}')
    with pytest.raises(DataError, match=r"a\.txt: is plain text, for which --text-field means nothing"):
        prepare(config_of(tmp_path / "a.txt", out=tmp_path / "out", text_field="story"))
    prepare(config_of(tmp_path / "a.txt", tmp_path / "b.jsonl", out=tmp_path / "out", text_field="story"))
    assert documents_of(tmp_path / "out") == [b"x", b"y"]


def test_a_file_that_changes_between_its_checksum_and_its_reading_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with ExitStack() as stack:
        [source] = find_sources(config_of(tmp_path / "a.txt", out="out"), None, lambda _: None, stack)
        (tmp_path / "a.txt").write_text("other")
        with pytest.raises(DataError, match=r"a\.txt: changed while it was read; run the same command again"):
            list(source.read(lambda _: None))


def test_a_folder_of_texts_is_no_data_set(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("One.\nTwo.\n")
    with pytest.raises(DataError, match="is a folder of texts; give it as an input, since --dataset would cut it"):
        prepare(PrepareConfig(dataset=str(tmp_path / "texts"), out=str(tmp_path / "out")))
