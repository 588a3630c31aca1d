import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_forward_scaling_writes_a_record_of_every_part_and_length(tmp_path):
    out = tmp_path / "records" / "scaling.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "forward_scaling.py"), "--preset", "tiny", "--threads", "1"]
    command += ["--lengths", "128,256,512", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "embedding and encoder" in done.stdout
    record = json.loads(out.read_text())
    assert record["claim"].startswith("Time and memory")
    assert record["command"].startswith("python benchmarks/forward_scaling.py --preset tiny")
    assert record["threads"] == 1
    assert {"commit", "date", "torch", "python", "device"} <= record.keys()
    rows = record["results"]["rows"]
    assert len(rows) == 9
    peaks = {(row["part"], row["bytes"]): row["peak_bytes"] for row in rows}
    for part in ("embedding and encoder", "decoder and logits"):
        assert peaks[part, 512] == pytest.approx(2 * peaks[part, 256], rel=0.1)
    assert peaks["decoder and logits", 512] > 512 * 260 * 4  # the logits alone


STORIES = "\n<|endoftext|>\n".join(
    f"{name} had a red ball and a blue kite. {name} liked the silver garden near the window."
    for name in ("Tom", "Lily")
)


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT / "benchmarks"
    )
    assert done.returncode == 0, done.stderr


def test_a_large_corpus_is_recorded_and_removed(tmp_path):
    small = ["--shards", 3, "--documents", 40, "--steps", 4]
    run("large_corpus.py", "--folder", tmp_path / "corpus", *small, "--out", tmp_path / "record.json")
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    assert [(each["shards"], each["documents"], each["bytes"]) for each in results] == [(3, 120, 120_000)] * 4
    assert [each["windows"] for each in results] == [-(-120_240 // length) for length in (512, 2048, 2048, 8192)]
    assert all(each["median milliseconds per batch"] > 0 for each in results)
    assert not (tmp_path / "corpus").exists()


def test_long_texts_are_recorded_in_every_type(tmp_path):
    how = ["--preset", "tiny", "--near", 9, "--far", 400, "--bytes", 5, "--rounds", 3, "--threads", 1]
    run("long_texts.py", *how, "--out", tmp_path / "record.json")
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    assert (results["near"], results["far"]) == (9, 9 + 2 * 262)  # the same place of a sample of 262 bytes
    for dtype in ("float32", "bfloat16", "int8", "int4"):
        found = results[dtype]
        assert len(found["ratio_of_each_round"]) == 3
        assert min(found["ratio_of_each_round"]) <= found["ratio"] <= max(found["ratio_of_each_round"])
        assert 0 < found["bytes_near"] < found["bytes_far"]
    assert results["int8"]["bytes_far"] < results["float32"]["bytes_far"]


def test_compression_is_recorded_beside_other_compressors(tiny_folder, tmp_path):
    (tmp_path / "stories.txt").write_text(STORIES)
    (tmp_path / "files.jsonl").write_text(json.dumps({"text": STORIES}) + "\n" + json.dumps({"text": "Öl" * 40}) + "\n")
    files = [tmp_path / "stories.txt", tmp_path / "files.jsonl"]
    options = ["--model", tiny_folder, "--out", tmp_path / "record.json", "--bytes", 80, "--of-each", 41, "--rates"]
    run("compression.py", *files, *options)
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    assert results["stories.txt"]["bytes"] == 80
    assert results["files.jsonl"]["bytes"] == 80
    assert results["files.jsonl"]["evaluated bytes"] > 0
    for each in results.values():
        assert {"blt, int8", "blt, int8, learning", "xz -9e"} <= each.keys()
        assert len(each["blt, int8"]["kilobytes_per_second"]) == 2


@pytest.fixture
def serving(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("serving")


def test_each_part_of_the_servers_record_keeps_the_command_that_measured_it(serving, tmp_path):
    path = tmp_path / "record.json"
    old = {"load": {"32": {"requests": 1}, "8": {"requests": 2}}, "disconnects": {"lost": 0}}
    path.write_text(json.dumps({"results": old}))
    first = serving.merged(path, {"load": {"8": {"requests": 3}}}, measured={"command": "one"})
    assert first["load"] == {"8": {"requests": 3, "measured": {"command": "one"}}, "32": {"requests": 1}}
    assert first["disconnects"] == {"lost": 0}
    assert serving.claim(first).startswith("blt serve under load beside the engine alone, with clients that go away; ")
    assert "did not keep" in serving.claim(first)
    path.write_text(json.dumps({"results": first}))
    again = {"load": {"32": {}}, "disconnects": {"lost": 1}}
    found = serving.merged(path, again, measured={"command": "other"})
    assert found["load"]["8"] == first["load"]["8"]
    assert found["load"]["32"] == {"measured": {"command": "other"}}
    assert found["disconnects"] == {"lost": 1, "measured": {"command": "other"}}
    assert serving.claim(found) == "blt serve under load beside the engine alone, with clients that go away"
    committed = json.loads((ROOT / "benchmarks/records/serving-cpu.json").read_text())
    assert committed["claim"] == serving.claim(committed["results"])


def test_claims_are_put_to_the_test_and_recorded(tiny_folder, tmp_path):
    from blt.evaluation.probe_tasks import CUTE, TASKS

    (tmp_path / "stories.txt").write_text(STORIES)
    for name in CUTE:
        (tmp_path / f"{name}.tsv").write_text("names\n" + "\t".join(TASKS[name].shots[0]) + "\n")
    for claim, options in (("certified", []), ("noise", []), ("probe", ["--cute", tmp_path, "--rows", 1])):
        out = tmp_path / f"{claim}.json"
        run("proof.py", claim, tmp_path / "stories.txt", "--model", tiny_folder, "--out", out, *options)
        results = json.loads(out.read_text())["results"]
        assert results["num_documents_given"] == 2
        assert {"certified": "certified", "noise": "noised", "probe": "tasks"}[claim] in results
