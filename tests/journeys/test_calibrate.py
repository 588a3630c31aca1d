import json

import pytest

from blt.api import ByteLM
from blt.cli import main
from blt.patching import ByteRule, EntropyAndRiseRule


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "stories.txt"
    story = "Once upon a time, in a small house, there was a boy named Tim. One day, Tim saw a red ball.\n"
    path.write_text("<|endoftext|>\n".join(story[start:] for start in range(40)))
    return path


@pytest.mark.parametrize("rule", ["entropy", "entropy-rise", "entropy-and-rise"])
def test_calibrate_saves_a_model_whose_patches_have_the_wanted_length(tiny_folder, text_file, tmp_path, capsys, rule):
    out = tmp_path / "calibrated"
    arguments = ["--model", tiny_folder, "--data", text_file, "--mean-patch", 4.4, "--rule", rule, "--out", out]
    assert run("calibrate", *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean_patch_bytes"] == pytest.approx(4.4, abs=0.1)
    assert found["num_documents"] == 40
    assert ByteLM.from_pretrained(out).patch_rule.threshold == found["threshold"]
    assert run("evaluate", "--model", out, "--data", text_file, "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["mean_patch_bytes"] == pytest.approx(found["mean_patch_bytes"])
    assert measured["data_checksum"] == found["data_checksum"]


def test_calibrate_tells_a_person_the_threshold_and_leaves_the_model_as_it_was(tiny_folder, text_file, capsys):
    before = (tiny_folder / "config.json").read_bytes()
    assert run("calibrate", "--model", tiny_folder, "--data", text_file, "--mean-patch", 3, "--limit", 5) == 0
    shown = capsys.readouterr().out
    assert "nats, for EntropyRule(" in shown
    assert "in 5 documents" in shown
    assert (tiny_folder / "config.json").read_bytes() == before


def test_calibrate_keeps_the_other_fields_of_the_model_s_rule(tiny_lm, text_file, tmp_path):
    tiny_lm.patch_rule = EntropyAndRiseRule(threshold=1.0, rise_threshold=-0.5, max_length=9)
    tiny_lm.save_pretrained(tmp_path / "model")
    arguments = ["--model", tmp_path / "model", "--data", text_file, "--mean-patch", 4, "--out", tmp_path / "out"]
    assert run("calibrate", *arguments) == 0
    rule = ByteLM.from_pretrained(tmp_path / "out").patch_rule
    assert rule == EntropyAndRiseRule(threshold=rule.threshold, rise_threshold=-0.5, max_length=9)
    assert run("calibrate", *arguments, "--max-length", 7, "--rise-threshold", 0.01) == 0
    rule = ByteLM.from_pretrained(tmp_path / "out").patch_rule
    assert rule == EntropyAndRiseRule(threshold=rule.threshold, rise_threshold=0.01, max_length=7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean-patch", "4"], "Missing option '--data'"),
        (["--data", "stories.txt"], "Missing option '--mean-patch'"),
        (["--data", "stories.txt", "--mean-patch", "0.5"], "0.5 is not in the range"),
        (["--data", "stories.txt", "--mean-patch", "500"], "no threshold gives 500 bytes per patch"),
        (["--data", "stories.txt", "--mean-patch", "4", "--rule", "space"], "'space' is not one of"),
        (["--data", "stories.txt", "--mean-patch", "4", "--rise-threshold", "1"], "rule.rise_threshold: unknown key"),
        (["--data", "nothing.txt", "--mean-patch", "4"], "nothing.txt: does not exist"),
        (["--data", "stories.txt", "--mean-patch", "4", "--out", "."], "is no model folder"),
        (["--data", "stories.txt", "--mean-patch", "4", "--out", "stories.txt"], "is no model folder"),
        (
            ["--data", "stories.txt", "--mean-patch", "4", "--model", "bytes"],
            "has no threshold; choose one with --rule",
        ),
        (["--data", "stories.txt", "--mean-patch", "4", "--model", "bare"], "has no entropy model"),
    ],
)
def test_bad_input_is_told_in_one_line_with_exit_status_2(
    tiny_lm, tiny_folder, text_file, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(text_file.parent)
    tiny_lm.patch_rule = ByteRule()
    tiny_lm.save_pretrained("bytes")
    ByteLM(tiny_lm.blt, patch_rule=ByteRule()).save_pretrained("bare")
    model = [] if "--model" in arguments else ["--model", tiny_folder]
    assert run("calibrate", *arguments, *model) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert message in shown.err.splitlines()[-1]
