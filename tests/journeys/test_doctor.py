import json
import shutil

import pytest
import torch

from blt.cli import main
from blt.ops.native import build


@pytest.fixture(autouse=True)
def _as_in_a_new_process():
    build.outcome.cache_clear()
    build.cache_folder.cache_clear()
    yield
    build.outcome.cache_clear()
    build.cache_folder.cache_clear()


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    return stop.value.code


def found(capsys):
    assert run("--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here")
def test_the_doctor_says_which_kernels_run_and_how_they_were_compiled(capsys):
    said = found(capsys)
    assert said["pytorch"] == torch.__version__
    assert said["threads"]["used"] == torch.get_num_threads()
    assert [each["purpose"] for each in said["kernels"]] == ["decoding", "training"]
    for each in said["kernels"]:
        assert each["used"]
        assert each["path"].startswith(said["cache_folder"]["path"])
        assert each["compiled_by"]
        assert each["flags"]
    assert said["bfloat16_products"]
    assert said["extras"]["data"].keys() == {"datasets", "pyarrow", "zstandard"}
    assert run() == 0
    shown = capsys.readouterr().out
    assert "decoding        by C++ (decoder.cpp), compiled" in shown
    assert "PyTorch " + torch.__version__ in shown


def test_the_doctor_tells_the_compilers_own_message_and_tries_again(tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken-c++"
    broken.write_text('#!/bin/sh\necho start >> "$0.starts"\necho "cc1plus: fatal error: no licence" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in (1, 2):
        said = found(capsys)
        assert [each["used"] for each in said["kernels"]] == [False, False]
        assert all("cc1plus: fatal error: no licence" in each["reason"] for each in said["kernels"])
        build.outcome.cache_clear()
        starts = len((tmp_path / "broken-c++.starts").read_text().split())
        assert starts == number * 3  # one for each source, and one for the version
    assert run() == 0
    assert "by PyTorch, more slowly: " in capsys.readouterr().out


def test_the_doctor_tells_why_a_cache_folder_does_not_serve(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BLT_NATIVE", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    said = found(capsys)
    assert "Not a directory" in said["cache_folder"]["refused"]
    assert said["kernels"][0]["reason"] == "the environment variable BLT_NATIVE is 0"
