"""`blt bench` on tiny models: what it prints, not how fast they are."""

import json

import pytest

from blt.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize("what", ["decode", "prefill", "train"])
def test_every_kind_of_speed_is_measured(what, tiny_folder, capsys):
    assert run("bench", "--model", tiny_folder, "--what", what, "--bytes", 32, "--repeats", 1, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == what
    assert found["bytes_per_second"] > 0
    assert found["mean_patch_bytes"] >= 1
    assert 0 < found["roofline_share"] < 1
    assert found["threads"] >= 1


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_decoding_is_shown_part_by_part_in_every_type(dtype, tiny_folder, capsys):
    assert run("bench", "--model", tiny_folder, "--bytes", 16, "--repeats", 1, "--batch", 2, "--dtype", dtype) == 0
    shown = capsys.readouterr().out
    for part in ("bytes/s", "GB/s", "entropy model", "local decoder", "decoded by"):
        assert part in shown


@pytest.mark.parametrize("draft", ["entropy", "decoder"])
def test_drafting_is_compared_with_one_byte_a_pass(draft, tiny_folder, capsys):
    arguments = ["--model", tiny_folder, "--bytes", 16, "--draft", draft]
    assert run("bench", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes_per_pass"] >= 1
    assert found["speed_up"] > 0


def test_a_preset_is_patched_at_its_mean_length(capsys):
    assert run("bench", "--preset", "tiny", "--bytes", 128, "--repeats", 1, "--json") == 0
    assert 3 < json.loads(capsys.readouterr().out)["mean_patch_bytes"] < 6.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "tiny", "--model", "x"], "give one of them"),
        (["--what", "train", "--dtype", "int8"], "cannot be trained"),
        (["--preset", "nothing"], "none of"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said, capsys):
    assert run("bench", *arguments) == 2
    assert said in capsys.readouterr().err
