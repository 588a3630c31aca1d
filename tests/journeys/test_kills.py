"""Every writing command, stopped at some of its file operations; `python tests/kill_everywhere.py` walks them all."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from blt.cli import main
from blt.training import validation
from kill_everywhere import COMMANDS
from tiny_training import made_up_documents, write_recipe, write_text

HARNESS = Path(__file__).parent.parent / "kill_everywhere.py"


@pytest.mark.parametrize("way", ["killed", "full"])
def test_nothing_is_lost_and_the_same_command_ends_as_if_undisturbed(way):
    command = [sys.executable, str(HARNESS), "--moments", "2", "--only", way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(COMMANDS)
    assert all(int(line.split(": ")[1].split()[0]) >= 2 for line in lines)


def test_the_harness_notices_a_writer_that_is_not_whole_or_absent():
    torn = """
import kill_everywhere as harness
from blt.inspection import html_page
from blt.cli import patch
patch.write_page = lambda path, content, sources=(): path.write_bytes(content)
harness.run()
"""
    command = [sys.executable, "-c", torn, "--only", "killed", "patch --html"]
    options = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": f"{HARNESS.parent}:{source()}"}, **options)
    assert done.returncode == 1
    assert "out.html is neither the old one nor the new one" in done.stderr


def source():
    return os.environ.get("PYTHONPATH", "")


@contextmanager
def small_disk(folder, size):
    """Mount a file system of some size, which only root can do."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system (root)")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_is_one_line_with_the_file_and_the_way_out(tiny_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(validation, "SAMPLE_BYTES", 8)
    recipe = write_recipe(tmp_path)
    text = write_text(tmp_path / "long.txt", made_up_documents(300))
    small = tmp_path / "small"
    commands = [
        ("convert", tiny_folder, "--out", small / "theirs"),
        (
            "calibrate",
            "--data",
            text,
            "--mean-patch",
            4,
            "--limit",
            3,
            "--model",
            tiny_folder,
            "--out",
            small / "saved",
        ),
        ("prepare", text, "--validation", "0.2", "--out", small / "data"),
        ("patch", "Tom saw a dog.", "--model", tiny_folder, "--html", small / "page.html"),
        ("train", recipe, "--device", "cpu", "--out", small / "run", "--sample_prompt", "Tom"),
    ]
    for command in commands:
        for size in ("8k",) if command[0] == "train" else ("4k", "28k"):
            with small_disk(small, size) as resize:
                capfd.readouterr()
                if run(*command) == 0:  # that much was enough
                    continue
                said = capfd.readouterr().err.splitlines()[-1]
                assert said.startswith(f"blt: {small}"), (command, size, said)
                assert "No space left on device; make room and run the same command again" in said
                assert ".unfinished" not in said
                left = sum(path.stat().st_size for path in small.rglob("*.started"))
                assert left == 0
                resize("16m")
                assert run(*command) == 0, (command, size)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_data_on_a_read_only_mount_are_ready(tmp_path, capfd):
    text = write_text(tmp_path / "a.txt", made_up_documents(20))
    prepare = ("prepare", text, "--validation", "0.2", "--out", tmp_path / "small" / "data")
    with small_disk(tmp_path / "small", "4m"):
        assert run(*prepare) == 0
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "small"], check=True)
        assert run(*prepare) == 0
        assert "already prepared, nothing to do" in capfd.readouterr().out
        assert run(*prepare, "--overwrite") == 2
        assert "read-only; choose another --out" in capfd.readouterr().err
