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
