"""Every script under examples/ runs, on the bundled model or on one that stands in for it."""

import runpy
import sys
from pathlib import Path

import pytest

import blt

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run_example(monkeypatch, capsys):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_has_a_test_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {"tell_a_story.py", "surprising_bytes.py", "show_patches.py", "train_on_a_string.py"}


def test_a_story_begins_with_its_prompt(run_example, tiny_folder):
    told = run_example("tell_a_story.py", "--model", tiny_folder, "--prompt", "Tom", "--bytes", 12)
    assert told.startswith("Tom")
    assert len(told) > len("Tom\n")


def test_the_most_surprising_bytes_come_in_order(run_example, tiny_folder, tiny_lm):
    text = "Tom had a red bsll."
    first, *rows = run_example("surprising_bytes.py", "--model", tiny_folder, "--text", text, "--top", 3).splitlines()
    bits = sorted(tiny_lm.score(text).bits_by_byte[:-1], reverse=True)
    assert first.endswith(f"over {len(text)} bytes")
    assert [float(row.split()[0]) for row in rows] == pytest.approx(bits[:3], abs=0.01)


def test_the_patches_of_a_text_join_to_the_text(run_example, tiny_folder):
    text = "Tom had a red ball."
    joined, *rows, mean = run_example("show_patches.py", "--model", tiny_folder, "--text", text).splitlines()
    assert joined.replace("|", "") == text
    assert len(rows) == joined.count("|") + 1
    assert mean == f"{len(text) / len(rows):.2f} bytes per patch"


def test_a_model_trained_on_a_string_learns_it_and_can_be_loaded(run_example, tmp_path):
    said = run_example("train_on_a_string.py", "--steps", 12, "--out", tmp_path / "model").splitlines()
    losses = [float(line.split()[2]) for line in said if line.startswith("step")]
    assert losses[-1] < 0.8 * losses[0]
    loaded = blt.ByteLM.from_pretrained(tmp_path / "model")
    assert loaded.generate("Tom had", max_new_bytes=40, temperature=0.0).text == "\n".join(said[len(losses) :])
