"""Looking at a model from the command line: its patches, and whether the laws hold on it."""

import io
import json
import shutil

import pytest

from blt.api import ByteLM
from blt.cli import main
from blt.model import BLT
from blt.patching import Patches, SpaceRule


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_verify_says_that_every_law_held(tiny_folder, capsys, without_shape_checks):
    assert run("verify", tiny_folder, "--text", "Zoë had a ball.") == 0
    shown = capsys.readouterr().out
    assert "causality by gradient" in shown
    assert "all 7 laws held" in shown
    assert "BROKEN" not in shown


def test_verify_prints_one_json_object(tiny_folder, capsys, without_shape_checks):
    assert run("verify", tiny_folder, "--json", "--text", "Zoë", "--dtype", "bfloat16", "--seed", 4) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["held"] is True
    assert len(values["laws"]) == 7
    assert all(law["deviation"] <= law["tolerance"] for law in values["laws"])


def test_verify_names_the_broken_law_and_exits_with_1(tiny_folder, monkeypatch, capsys, without_shape_checks):
    forward = BLT.forward

    def storing_starts(model, byte_ids, patches):
        ends = patches.ends.clone()
        ends[:, -1] = True
        return forward(model, byte_ids, Patches(ends=ends))

    monkeypatch.setattr(BLT, "forward", storing_starts)
    assert run("verify", tiny_folder, "--json", "--text", "Tom") == 1
    values = json.loads(capsys.readouterr().out)
    assert values["held"] is False
    assert not next(law for law in values["laws"] if law["law"] == "causality by truncation")["held"]
    assert run("verify", tiny_folder, "--text", "Tom") == 1
    shown = capsys.readouterr().out
    assert "BROKEN" in shown
    assert "laws are broken" in shown


def test_patch_shows_a_text_with_bars_when_piped(tiny_folder, capsys):
    assert run("patch", "Tom had a ball.", "--model", tiny_folder, "--rule", "space", "--show-spaces") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Tom·│had·│a·│ball.\n")
    assert "patches: 4; bytes: 15; mean: 3.75 bytes per patch" in shown
    assert "\x1b" not in shown


def test_patch_reads_a_file_a_binary_one_too_and_standard_input(tiny_folder, tmp_path, monkeypatch, capsys):
    data = bytes(range(256))
    (tmp_path / "noise.bin").write_bytes(data)
    assert run("patch", tmp_path / "noise.bin", "--model", tiny_folder, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert b"".join(bytes.fromhex(patch["hex"]) for patch in values["patches"]) == data
    assert values["num_patches"] == len(values["patches"])
    assert values["threshold"] == ByteLM.from_pretrained(tiny_folder).patch_rule.threshold
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert run("patch", "-", "--model", tiny_folder, "--rule", "byte") == 0
    assert capsys.readouterr().out.startswith("⟨ff⟩│⟨fe⟩\n")


def test_patch_writes_a_page(tiny_folder, tmp_path, capsys):
    page = tmp_path / "patches.html"
    assert run("patch", "Tom & Zoë", "--model", tiny_folder, "--html", page) == 0
    assert capsys.readouterr().out.startswith(f"{page}: ")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["patches.html", "tiny"]


def test_a_threshold_alone_changes_the_models_own_rule(tiny_folder, capsys):
    for threshold, patches in ((-1, 5), (99, 1)):
        assert run("patch", "abcde", "--model", tiny_folder, "--threshold", threshold, "--json") == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["threshold"], values["num_patches"]) == (threshold, patches)


def test_patch_stops_at_the_limit_and_says_so(tiny_folder, capsys):
    assert run("patch", "x" * 5000, "--model", tiny_folder, "--limit", 10) == 0
    assert "left out: the last 4,990 bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["patch", ""], "the text is empty"),
        (["patch", "empty.txt"], "the text is empty"),
        (["patch", "a", "--rule", "pages"], "'pages' is not one of"),
        (["patch", "a", "--rule", "entropy-rise"], "threshold: missing"),
        (["patch", "a", "--rule", "static", "--length", "0"], "at least 1 byte, got 0"),
        (["patch", "a", "--rule", "space", "--threshold", "1"], "threshold: unknown key"),
        (["patch", "a", "--threshold", "nan"], "finite"),
        (["patch", "a", "--html", "nowhere/out.html"], "nowhere"),
        (["patch", "a", "--limit", "0"], "0 is not in the range"),
        (["patch"], "Missing argument"),
        (["verify", "--text", ""], "the text is empty"),
    ],
)
def test_bad_input_is_told_in_one_line_with_exit_status_2(tiny_folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tiny_folder.parent)
    (tiny_folder.parent / "empty.txt").touch()
    model = [tiny_folder] if arguments[0] == "verify" else ["--model", tiny_folder]
    assert run(*arguments, *model) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def _truncate(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _leave_a_pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _lose_the_config(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (_truncate, "not a whole safetensors file"),
        (_leave_a_pickle_only, "pickle"),
        (_lose_the_config, "config.json: no such file"),
    ],
)
@pytest.mark.parametrize("verb", [["verify"], ["patch", "a", "--model"]])
def test_a_broken_model_folder_is_told_in_one_line_with_exit_status_2(tiny_folder, capsys, damage, message, verb):
    damage(tiny_folder)
    assert run(*verb, tiny_folder) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


def test_a_model_without_entropies_can_be_looked_at_too(tiny_lm, tmp_path, capsys):
    ByteLM(tiny_lm.blt, patch_rule=SpaceRule()).save_pretrained(tmp_path / "plain")
    assert run("patch", "a b", "--model", tmp_path / "plain", "--json") == 0
    assert json.loads(capsys.readouterr().out)["patches"][0]["entropies"] == []
    assert run("patch", "a b", "--model", tmp_path / "plain", "--rule", "entropy", "--threshold", 1) == 2
    assert "needs entropies" in capsys.readouterr().err
    assert run("verify", tmp_path / "plain", "--text", "Tom") == 0
