import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fuzz.harness import Fuzzer, run

from blt.errors import DataError


def run_on(check, seeds, tmp_path, *, seconds=2):
    fuzzer = Fuzzer(name="planted", check=check, seeds=lambda: seeds, strategy=None)
    return run(fuzzer, seconds=seconds, failures=tmp_path / "failures")


def test_a_short_pass_of_every_fuzzer_finds_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", os.environ.get("BLT_FUZZ_SECONDS", "2")]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=280
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(result.stdout.splitlines()) >= 5


def test_what_a_fuzzer_may_do_is_no_failure(tmp_path):
    def check(data, folder):
        if data == b"0":
            sys.exit(2)
        raise DataError("refused")

    outcome = run_on(check, [b"0", b"1"], tmp_path)
    assert outcome.failure is None
    assert outcome.num_inputs > 2
    assert not (tmp_path / "failures").exists()


def test_a_traceback_is_found_and_its_input_made_small(tmp_path):
    def check(data, folder):
        if b"\n\n\n" in data:
            raise KeyError("three")

    outcome = run_on(check, [b"a\n" * 50], tmp_path, seconds=20)
    assert outcome.failure == "KeyError: 'three'"
    assert len(outcome.saved.read_bytes()) < 100
    assert b"\n\n\n" in outcome.saved.read_bytes()
    assert "in check" in outcome.saved.with_suffix(".txt").read_text()


def test_a_crash_is_found_and_its_input_made_small(tmp_path):
    def check(data, folder):
        if b"x" in data:
            ctypes.string_at(0)

    outcome = run_on(check, [b"a" * 100 + b"x" + b"b" * 100], tmp_path)
    assert outcome.failure == "SIGSEGV"
    assert outcome.saved.read_bytes() == b"x"


def test_a_failing_file_of_a_folder_is_kept_with_the_folder(tmp_path):
    def check(files, folder):
        if files.get("b/c", b"").startswith(b"c"):
            raise ValueError("c")

    outcome = run_on(check, [{"a": b"a", "b/c": b"c"}], tmp_path)
    assert (outcome.failure, (outcome.saved / "b" / "c").read_bytes()) == ("ValueError: c", b"c")


@pytest.mark.parametrize(
    ("check", "failure"),
    [
        (lambda data, folder: bytearray(3 << 30), "MemoryError"),
        (lambda data, folder: sys.exit(1), "AssertionError: ended with status 1"),
        (lambda data, folder: (_ for _ in ()).throw(DataError("")), "AssertionError: DataError is not one line: ''"),
        (lambda data, folder: time.sleep(60), "tests.fuzz.harness._TooLongError: longer than 0.5 s"),
    ],
)
def test_memory_status_silence_and_time_are_failures(tmp_path, monkeypatch, check, failure):
    monkeypatch.setattr("tests.fuzz.harness.SECONDS_PER_INPUT", 0.5)
    assert run_on(check, [b"a"], tmp_path).failure == failure


def test_time_for_which_a_process_is_stopped_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.harness.SECONDS_PER_INPUT", 1)

    def check(data, folder):
        if data == b"a":
            going_on = f"kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}"
            subprocess.run(["sh", "-c", going_on], check=True)

    assert run_on(check, [b"a"], tmp_path, seconds=0).failure is None
