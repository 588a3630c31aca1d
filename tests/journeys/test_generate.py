"""`blt generate`, as a person calls it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from blt.api import ByteLM
from blt.cli import main
from blt.generation import stream_bytes


@pytest.fixture
def run(capfdbinary):
    """Return a function that runs a command line and gives status, output and errors."""

    def call(*arguments: str) -> tuple[int, bytes, bytes]:
        with pytest.raises(SystemExit) as stopped:
            main(["generate", *arguments])
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def test_the_prompt_is_continued_and_the_same_seed_gives_the_same_text(run, tiny_folder):
    options = ("--max-new", "40", "--temperature", "0.9", "--seed", "0", "--model", str(tiny_folder))
    status, text, errors = run("--prompt", "Once upon a time", *options)
    assert (status, errors) == (0, b"")
    assert text.startswith(b"Once upon a time")
    assert len(text) > len(b"Once upon a time") + 20
    assert run("--prompt", "Once upon a time", *options)[1] == text
    assert run("--prompt", "Once upon a time", *options, "--seed", "1")[1] != text


def test_json_is_one_object_with_the_same_text(run, tiny_folder):
    options = ("--prompt", "Tom", "--max-new", "30", "--seed", "4", "--top-k", "20", "--model", str(tiny_folder))
    shown = run(*options)[1].decode()
    status, output, _ = run(*options, "--json")
    found = json.loads(output)
    assert status == 0
    assert set(found) == {"prompt", "text", "continuation", "num_new_bytes", "stopped_by"}
    assert found["text"] + "\n" == shown
    assert found["text"].startswith(found["prompt"])
    assert found["num_new_bytes"] <= 30


def test_a_prompt_file_may_hold_any_bytes(run, tiny_folder, tmp_path):
    (tmp_path / "prompt").write_bytes("Zoë ".encode() + b"\0\xff!")
    status, text, _ = run("--prompt-file", str(tmp_path / "prompt"), "--max-new", "3", "--model", str(tiny_folder))
    assert status == 0
    assert text.decode().startswith("Zoë \0\ufffd!")


def test_a_stop_string_may_be_given_more_than_once(run, tiny_folder):
    stops = [part for letter in map(chr, range(1, 128)) for part in ("--stop", letter)]
    _, output, _ = run("--prompt", "Tom", "--seed", "0", *stops, "--model", str(tiny_folder), "--json")
    found = json.loads(output)
    assert found["stopped_by"] in ("stop", "eos")
    assert not any(0 < ord(letter) < 128 for letter in found["continuation"])


def test_every_option_of_sampling_can_be_given_and_matters(run, tiny_folder):
    common = (
        "--prompt",
        "Tom Tom",
        "--max-new",
        "40",
        "--temperature",
        "1",
        "--seed",
        "0",
        "--model",
        str(tiny_folder),
    )
    options = [(), ("--min-p", "0.9"), ("--repetition-penalty", "9"), ("--no-valid-utf8",)]
    options.append(("--repetition-penalty", "9", "--repetition-window", "1"))
    texts = [run(*common, *given)[1] for given in options]
    assert len(set(texts)) == len(texts)
    assert run(*common, "--valid-utf8")[1] == texts[0]


def test_what_is_shown_after_text_is_text_unless_that_is_switched_off(run, tiny_folder):
    options = ("--prompt", "Tom", "--max-new", "60", "--temperature", "2", "--seed", "0", "--model", str(tiny_folder))
    assert "\ufffd" not in run(*options)[1].decode()
    assert "\ufffd" in run(*options, "--no-valid-utf8")[1].decode()


def test_logprobs_are_shown_in_json(run, tiny_folder):
    options = ("--prompt", "Tom", "--max-new", "5", "--seed", "0", "--model", str(tiny_folder))
    found = json.loads(run(*options, "--json", "--logprobs", "2")[1])
    assert bytes(entry["byte"] for entry in found["logprobs"]).decode() == found["continuation"]
    for entry in found["logprobs"]:
        assert set(entry) == {"byte", "logprob", "top"}
        assert [set(other) for other in entry["top"]] == [{"byte", "logprob"}] * 2
        assert entry["logprob"] <= entry["top"][0]["logprob"] < 0


def test_the_continuation_matches_a_regex(run, tiny_folder):
    regex = "[a-f]{4}: (yes|no)"
    _, output, _ = run("--prompt", "Tom", "--regex", regex, "--seed", "0", "--json", "--model", str(tiny_folder))
    assert re.fullmatch(regex, json.loads(output)["continuation"])


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_the_bundled_model_writes_json_that_a_schema_admits(run, tmp_path, seed):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    given = json.dumps(SCHEMA) if seed % 2 else str(tmp_path / "schema.json")
    _, output, _ = run("--prompt", "Tom was a boy. ", "--json-schema", given, "--seed", str(seed), "--json")
    found = json.loads(output)
    person = json.loads(found["continuation"])
    assert found["stopped_by"] == "eos"
    assert set(person) == {"name", "age"}
    assert len(person["name"]) <= 20
    assert 1 <= person["age"] <= 99


def test_json_that_is_cut_short_says_so_and_is_a_beginning(run):
    options = ("--prompt", "Tom", "--json-schema", json.dumps(SCHEMA), "--max-new", "9", "--json", "--seed", "0")
    found = json.loads(run(*options)[1])
    assert found["stopped_by"] == "length"
    assert found["continuation"].startswith("{")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--temperature", "-1"), b"temperature"),
        (("--top-p", "2"), b"top_p"),
        (("--top-k", "0"), b"top_k"),
        (("--max-new", "-5"), b"max_new_bytes"),
        (("--min-p", "1.5"), b"min_p"),
        (("--repetition-penalty", "0"), b"repetition_penalty"),
        (("--repetition-window", "0"), b"repetition_window"),
        (("--regex", "(ab"), b"unclosed group"),
        (("--json-schema", '{"type": "thing"}'), b"thing"),
        (("--json-schema", "/no/such/file"), b"/no/such/file"),
        (("--json-schema", sys.executable), b"is not UTF-8"),
        (("--logprobs", "3"), b"--json"),
        (("--logprobs", "-3", "--json"), b"logprobs"),
        (("--stop", ""), b"stop"),
        (("--model", "/no/such/folder"), b"/no/such/folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(run, options, complaint):
    status, output, errors = run("--prompt", "Tom", *options)
    assert (status, output) == (2, b"")
    assert complaint in errors
    assert errors.count(b"\n") == 1


def test_two_prompts_are_refused(run, tiny_folder):
    status, _, errors = run("--prompt", "Tom", "--prompt-file", str(tiny_folder / "config.json"))
    assert status == 2
    assert b"give one of them" in errors


def test_python_m_blt_generate_means_the_same_and_takes_bytes_that_are_no_text(run, tiny_folder):
    options = ["--max-new", "5", "--temperature", "0", "--model", str(tiny_folder)]
    command = [sys.executable, "-m", "blt.generate", "--prompt", b"Tom \xff", *options]
    finished = subprocess.run(command, capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert finished.stdout == run("--prompt", os.fsdecode(b"Tom \xff"), *options)[1]


def test_ctrl_c_ends_a_text_without_a_traceback(tiny_folder):
    command = [sys.executable, "-m", "blt", "generate", "--prompt", "Tom", "--max-new", "100000000"]
    stops_early = ["--temperature", "0", "--model", str(tiny_folder)]
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # even where these tests ignore it
    with subprocess.Popen([*command, *stops_early], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **heed) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"Tom"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.split() == [b"stopped"]


def test_raw_shows_the_exact_bytes_and_nothing_after_them(run, tiny_folder, tmp_path):
    (tmp_path / "prompt").write_bytes(b"Zo\xff\xc3")
    options = ("--prompt-file", str(tmp_path / "prompt"), "--max-new", "60", "--temperature", "2", "--seed", "0")
    status, shown, errors = run(*options, "--raw", "--model", str(tiny_folder))
    lm = ByteLM.from_pretrained(tiny_folder)
    expected = lm.generate(b"Zo\xff\xc3", max_new_bytes=60, temperature=2.0, seed=0).data
    assert (status, shown, errors) == (0, expected, b"")
    assert "\ufffd" in expected.decode(errors="replace")
    pieces = list(stream_bytes(lm, b"Zo\xff\xc3", max_new_bytes=60, temperature=2.0, seed=0))
    assert b"Zo\xff\xc3" + b"".join(pieces) == expected
    assert all(pieces)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--raw", "--json"), b"--raw: JSON holds text"),
        (("--repetition-window", "5"), b"--repetition-window: needs --repetition-penalty"),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(run, options, complaint):
    status, output, errors = run("--prompt", "Tom", *options)
    assert (status, output) == (2, b"")
    assert complaint in errors
