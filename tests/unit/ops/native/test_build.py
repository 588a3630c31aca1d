"""Compiling and loading C++: from whom, from where, and what is said where it fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blt.ops.native import build, compiler, library_cache

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here")
SOURCE = '#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n'


@pytest.fixture(autouse=True)
def _as_in_a_new_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("BLT_NATIVE", raising=False)
    forget()
    yield
    forget()


def forget():
    build.outcome.cache_clear()
    build.cache_folder.cache_clear()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "small.cpp").write_text(SOURCE)
    (tmp_path / "sources" / "answer.h").write_text("#define ANSWER 42\n")
    return tmp_path / "sources"


def outcome(folder):
    """What a new process would find."""
    forget()
    return build.outcome("small", folder=folder, openmp=False)


def answer(folder):
    library = outcome(folder).library
    return None if library is None else library.answer()


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def counting(path, text):
    """A compiler that notes each of its starts."""
    return script(path, f'echo start >> "{path}.starts"\n{text}')


def starts(path):
    noted = Path(f"{path}.starts")
    return len(noted.read_text().split()) if noted.exists() else 0


def test_a_source_of_any_folder_is_compiled_once_and_said_so_in_one_line(folder, capfd, tmp_path):
    first = outcome(folder)
    assert first.library.answer() == 42
    assert first.is_new
    said = capfd.readouterr().err
    assert said == f"blt: compiling small.cpp for this machine, once, into {tmp_path / 'cache/blt'}\n"
    assert not outcome(folder).is_new
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("openmp", [False, True])
def test_a_source_has_threads(folder, openmp):
    (folder / "small.cpp").write_text(
        "#include <thread>\n"
        '#include "answer.h"\n'
        'extern "C" int answer() { int found = 0; std::thread([&] { found = ANSWER; }).join(); return found; }\n'
        '#ifdef _OPENMP\nextern "C" int shares_threads() { return 1; }\n#endif\n'
    )
    library = build.load("small", folder=folder, openmp=openmp)
    assert library.answer() == 42
    assert hasattr(library, "shares_threads") == openmp


def test_a_changed_header_or_compiler_is_another_library(folder, tmp_path, monkeypatch):
    assert answer(folder) == 42
    (folder / "answer.h").write_text("#define ANSWER 43\n")
    assert answer(folder) == 43
    before = outcome(folder).path
    wrapper = script(tmp_path / "my-c++", 'exec c++ "$@"')
    monkeypatch.setenv("CXX", str(wrapper))
    wrapped = outcome(folder)
    assert wrapped.path != before
    script(wrapper, 'exec c++ -DUPGRADED "$@"')
    assert outcome(folder).path != wrapped.path


@pytest.mark.parametrize("text", ["env g++", "g++ -m64", "'{folder}/a b/c++' -O1"])
def test_a_compiler_may_be_several_words(folder, tmp_path, monkeypatch, text):
    (tmp_path / "a b").mkdir()
    script(tmp_path / "a b" / "c++", 'exec c++ "$@"')
    monkeypatch.setenv("CXX", text.format(folder=tmp_path))
    assert answer(folder) == 42


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/no/such/compiler", "/no/such/compiler cannot be started: No such file or directory"),
        ("g++ 'half", 'the environment variable CXX is "g++ \'half": No closing quotation'),
    ],
)
def test_a_compiler_that_is_none_is_named(folder, monkeypatch, capfd, text, reason):
    monkeypatch.setenv("CXX", text)
    found = outcome(folder)
    assert found.library is None
    assert found.reason == reason
    assert reason in capfd.readouterr().err


def test_without_a_compiler_the_way_out_is_told_once(folder, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install one, or set CXX" in outcome(folder).reason
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("blt: PyTorch computes, more slowly: no C++ compiler found")
    shutil.copy(folder / "small.cpp", folder / "other.cpp")
    forget()
    assert "install one, or set CXX" in build.outcome("other", folder=folder, openmp=False).reason
    assert capfd.readouterr().err == ""


def test_a_compiler_that_fails_is_started_once_and_said_once(folder, tmp_path, monkeypatch, capfd):
    broken = counting(tmp_path / "full-c++", "echo 'fatal error: No space left on device' >&2; exit 1")
    monkeypatch.setenv("CXX", str(broken))
    assert answer(folder) is None
    assert starts(broken) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2  # that it compiles, and that it could not
    assert f"{broken}: fatal error: No space left on device" in said[1]
    assert "blt doctor" in said[1]
    again = outcome(folder)
    assert again.library is None
    assert "No space left on device" in again.reason
    assert starts(broken) == 1
    assert capfd.readouterr().err == ""


def test_a_failure_is_tried_again_when_asked_for_and_after_a_day(folder, tmp_path, monkeypatch):
    broken = counting(tmp_path / "c++", "exit 1")
    monkeypatch.setenv("CXX", str(broken))
    failed = outcome(folder)
    assert "exit status 1" in failed.reason
    forget()
    assert build.try_again("small", folder=folder, openmp=False).library is None
    assert starts(broken) == 2
    noted = failed.path.with_suffix(".failed")
    assert json.loads(noted.read_text())["message"] == failed.reason
    noted.write_text(json.dumps({"message": "old", "time": 0}))
    assert answer(folder) is None
    assert starts(broken) == 3


def test_a_source_that_does_not_compile_gives_the_first_error(folder, capfd):
    (folder / "small.cpp").write_text("int answer() { return missing; }\n")
    found = outcome(folder)
    assert found.library is None
    assert "error: 'missing' was not declared" in found.reason.replace("‘", "'").replace("’", "'")
    assert found.reason in capfd.readouterr().err


def test_flags_that_a_compiler_does_not_know_are_left_out(folder, tmp_path, monkeypatch):
    old = script(tmp_path / "c++", 'case "$*" in *native*) echo "bad flag" >&2; exit 1;; esac; exec c++ "$@"')
    monkeypatch.setenv("CXX", str(old))
    found = outcome(folder)
    assert found.library.answer() == 42
    assert not any("native" in flag for flag in found.built.flags)


def test_a_compiler_that_does_not_end_is_ended_with_what_it_has_started(folder, tmp_path, monkeypatch):
    slow = counting(tmp_path / "c++", f"sleep 60 & echo $! > {tmp_path}/started; wait")
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(compiler, "TIME_LIMIT", 0.5)
    assert "did not end within 0.5 seconds" in outcome(folder).reason
    assert starts(slow) == 1
    started = Path(f"/proc/{(tmp_path / 'started').read_text().strip()}/stat")
    assert not started.exists() or started.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("flaw", ["cut", "zeros", "empty", "no checksum", "others may write", "link", "folder"])
def test_a_library_that_is_not_whole_or_not_ones_own_is_compiled_anew(folder, flaw):
    path = outcome(folder).path
    whole = path.read_bytes()
    broken = {"cut": whole[:1000], "zeros": whole[: len(whole) // 2] + bytes(len(whole) // 2), "empty": b""}
    if flaw in broken:
        path.unlink()  # the one that is loaded here stays as it is
        path.write_bytes(broken[flaw])
    elif flaw == "no checksum":
        path.with_suffix(".json").unlink()
    elif flaw == "others may write":
        path.chmod(0o666)
    elif flaw == "link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    else:
        path.with_suffix(".json").unlink()
        path.with_suffix(".json").mkdir()
        assert outcome(folder).library is None  # it cannot be replaced; that is said, and nothing of it is loaded
        return
    found = outcome(folder)
    assert found.is_new
    assert found.library.answer() == 42
    assert path.stat().st_mode & 0o022 == 0
    assert not outcome(folder).is_new


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["library", "folder"])
def test_a_library_of_another_user_is_never_loaded(folder, tmp_path, monkeypatch, what):
    monkeypatch.setattr(library_cache.tempfile, "tempdir", str(tmp_path))
    path = outcome(folder).path
    evil = tmp_path / "evil.cpp"
    evil.write_text(
        '#include <cstdlib>\n__attribute__((constructor)) static void run() { setenv("FOREIGN", "1", 1); }\n'
    )
    path.unlink()
    subprocess.run(["c++", "-shared", "-fPIC", evil, "-o", path], check=True)
    sum_of = library_cache.hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": sum_of, "compiler": "", "flags": [], "seconds": 0}))
    os.chown(path if what == "library" else path.parent, 65534, 65534)
    found = outcome(folder)
    assert found.is_new
    assert found.library.answer() == 42
    assert "FOREIGN" not in os.environ
    if what == "folder":
        assert found.path.parent == tmp_path / "blt-0"


def test_the_cache_is_closed_to_others(folder, tmp_path):
    (tmp_path / "cache" / "blt").mkdir(parents=True)
    (tmp_path / "cache" / "blt").chmod(0o777)
    path = outcome(folder).path
    assert path.parent == tmp_path / "cache" / "blt"
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_relative_cache_folder_is_ignored(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "clone")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert outcome(folder).path.parent == tmp_path / "home/.cache/blt"
    assert not (tmp_path / "clone").exists()


@pytest.mark.parametrize("flaw", ["no home", "a file", "no room"])
def test_without_a_cache_folder_a_private_temporary_one_serves(folder, tmp_path, monkeypatch, capfd, flaw):
    monkeypatch.setattr(library_cache.tempfile, "tempdir", str(tmp_path))
    if flaw == "no home":

        def no_home():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(library_cache.Path, "home", no_home)
    elif flaw == "a file":
        (tmp_path / "cache").write_text("")
    else:
        full = {str(tmp_path / "cache" / "blt"): 1000}
        real = shutil.disk_usage
        monkeypatch.setattr(
            library_cache.shutil, "disk_usage", lambda path: real(path)._replace(free=full.get(str(path), 1 << 40))
        )
    found = outcome(folder)
    assert found.library.answer() == 42
    assert found.path.parent == tmp_path / f"blt-{os.geteuid()}"
    assert ", since " in capfd.readouterr().err
    assert not outcome(folder).is_new  # nor does a second process compile


def test_where_nothing_serves_a_library_lives_as_long_as_its_process(folder, tmp_path):
    program = (
        "import tempfile, pathlib; from blt.ops.native import build, library_cache\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "def refuse(folder): raise OSError('closed')\n"
        "library_cache._make_private = refuse\n"
        f"found = build.outcome('small', folder=pathlib.Path({str(folder)!r}), openmp=False)\n"
        "print(found.path.parent, found.library.answer())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    where, answered = done.stdout.split()
    assert answered == "42"
    assert not Path(where).exists()


def test_no_native_code_where_that_is_asked_for(folder, monkeypatch):
    monkeypatch.setenv("BLT_NATIVE", "0")
    assert outcome(folder).reason == "the environment variable BLT_NATIVE is 0"


def test_two_processes_at_once_compile_once(folder, tmp_path, monkeypatch):
    slow = counting(tmp_path / "slow-c++", 'sleep 0.5; exec c++ "$@"')
    monkeypatch.setenv("CXX", str(slow))
    program = (
        "import pathlib; from blt.ops.native import build\n"
        f"found = build.outcome('small', folder=pathlib.Path({str(folder)!r}), openmp=False)\n"
        "print(found.library.answer(), found.is_new)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = sorted(process.communicate()[0].split() for process in processes)
    assert answers == [["42", "False"], ["42", "True"]]
    assert starts(slow) == 3  # whether it works, the source, and its version


def test_old_libraries_make_room(folder, monkeypatch):
    monkeypatch.setattr(library_cache, "KEPT", 2)
    paths = []
    for number in range(4):
        (folder / "answer.h").write_text(f"#define ANSWER {number}\n")
        paths.append(outcome(folder).path)
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert sorted(path.name for path in paths[0].parent.glob("*.json")) == sorted(
        path.with_suffix(".json").name for path in paths[2:]
    )


def test_the_library_of_threads_is_that_of_pytorch():
    names = [Path(flag).name for flag in compiler.flag_sets(openmp=True)[0] if not flag.startswith("-")]
    assert all(name.startswith(("libgomp", "libomp", "libiomp")) for name in names)
