import json

import pytest

from blt.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("Tom had a red ball.\n<|endoftext|>\nAnna ran.\n<|endoftext|>\nÉmile était là.\n")
    return path


def test_evaluate_prints_one_json_object(tiny_folder, text_file, capsys):
    assert run("evaluate", "--model", tiny_folder, "--data", text_file, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["protocol"] == "documents"
    assert values["num_documents"] == 3
    assert values["num_bytes"] == 19 + 9 + 18
    assert values["interval_low"] <= values["bits_per_byte"] <= values["interval_high"]
    assert {"mean_patch_bytes", "seconds", "data_checksum", "threshold", "model_fingerprint"} <= values.keys()


def test_evaluate_both_puts_windows_beside_documents(tiny_folder, text_file, capsys):
    assert run("evaluate", "--model", tiny_folder, "--data", text_file, "--protocol", "both", "--json", "--units") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["protocol"] == "documents"
    assert values["windows"]["protocol"] == "windows"
    assert values["windows"]["num_bytes"] == values["num_bytes"] == sum(values["bytes_by_unit"])


def test_evaluate_prints_a_table_for_people_and_reads_only_as_many_documents_as_asked(tiny_folder, text_file, capsys):
    arguments = ["--model", tiny_folder, "--data", text_file, "--limit", 2, "--bootstrap", 0, "--protocol", "both"]
    assert run("evaluate", *arguments) == 0
    shown = capsys.readouterr().out
    assert "28 bytes in 2 documents" in shown
    assert shown.count("bits per byte") == 2
    assert "nan" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing.txt"], "nothing.txt: does not exist"),
        (["--data", "empty.txt"], "empty.txt: is empty"),
        (["--data", "hollow.txt"], "hollow.txt: has no documents"),
        (["--data", "bad.jsonl"], "line 1 is not JSON"),
        (["--data", "."], "is a folder"),
        (["--data", "stories.txt", "--model", "nowhere"], "nowhere: no such folder"),
        (["--data", "stories.txt", "--model", "stories.txt"], "stories.txt: a file"),
        (["--data", "stories.txt", "--protocol", "pages"], "'pages' is not one of"),
        (["--data", "stories.txt", "--limit", "0"], "0 is not in the range"),
        (["--data", "stories.txt", "--device", "abacus"], "'abacus' cannot be used"),
        ([], "Missing option '--data'"),
    ],
)
def test_bad_input_is_told_in_one_line_with_exit_status_2(text_file, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(text_file.parent)
    (text_file.parent / "empty.txt").touch()
    (text_file.parent / "hollow.txt").write_text("<|endoftext|>\n<|endoftext|>\n")
    (text_file.parent / "bad.jsonl").write_text("{\n")
    assert run("evaluate", *arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert message in shown.err.splitlines()[-1]


def test_certified_figures_stand_beside_the_plain_ones(tiny_folder, text_file, capsys):
    arguments = ["evaluate", "--model", tiny_folder, "--data", text_file, "--certified"]
    assert run(*arguments, "--json", "--units") == 0
    values = json.loads(capsys.readouterr().out)
    certified = values["certified"]
    assert certified["plain_bits_per_byte"] == values["bits_per_byte"]
    assert certified["bits_per_byte"] == 8 * certified["num_coded_bytes"] / values["num_bytes"]
    assert len(certified["conditions"]) == 4
    assert run(*arguments, "--bootstrap", 0) == 0
    shown = capsys.readouterr().out
    assert "coded, and decoded to the same bytes" in shown
    assert "to the plain figure" in shown
    for condition in ("strictly causal", "full normalised distribution", "scored before any update", "one pass"):
        assert f"  {condition}: " in shown


def test_certified_figures_that_do_not_decode_are_none(tiny_folder, text_file, capsys, monkeypatch):
    monkeypatch.setattr("blt.evaluation.certified.rans.encode", lambda *_: [bytes(64)])
    assert run("evaluate", "--model", tiny_folder, "--data", text_file, "--certified", "--json") == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "decoding gave other bytes than the text" in shown.err


def test_windows_are_not_certified(tiny_folder, text_file, capsys):
    arguments = ["--model", tiny_folder, "--data", text_file, "--certified", "--protocol", "windows"]
    assert run("evaluate", *arguments) == 2
    assert "codes whole documents" in capsys.readouterr().err


@pytest.fixture
def longer_file(tmp_path):
    stories = [f"{name} had a red ball and a blue kite, and they played with it all day." for name in ("Tom", "Anna")]
    path = tmp_path / "longer.txt"
    path.write_text("\n<|endoftext|>\n".join([*stories, "Short."]))
    return path


def test_noise_shows_what_every_perturbation_costs_at_every_place(tiny_folder, longer_file, capsys):
    arguments = ["evaluate", "--model", tiny_folder, "--data", longer_file, "--noise", "--bootstrap", 20]
    assert run(*arguments, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    places = [(one["perturbation"], one["place"]) for one in values["noised"]]
    names = ["antspeak", "drop", "randomcase", "repeat", "uppercase"]
    assert places == [(name, place) for name in names for place in ("prompt", "continuation", "both")]
    assert (values["num_documents"], values["num_left_out"], values["chance"]) == (2, 1, 0.5)
    assert values["clean"]["lost"]["other"] == {"value": 0, "low": 0, "high": 0}
    assert {"model_fingerprint", "data_checksum", "average", "seed"} <= values.keys()
    assert run(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 1 + 15 + 1 + 1
    assert lines[2].split()[:2] == ["antspeak", "prompt"]
    assert "chance 50%" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise", "--certified"], "one at a time"),
        (["--noise", "--protocol", "windows"], "--noise has no use for it"),
        (["--noise", "--units", "--json"], "--noise has no use for it"),
        (["--noise"], "pairs need 2"),
    ],
)
def test_what_noise_cannot_do_is_refused(tiny_folder, text_file, capsys, arguments, message):
    assert run("evaluate", "--model", tiny_folder, "--data", text_file, *arguments) == 2
    assert message in capsys.readouterr().err
