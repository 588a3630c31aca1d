import json

import pytest

from blt.cli import main
from blt.evaluation.probe_tasks import CUTE, MADE, TASKS


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a text, and one of CUTE's form."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories.txt").write_text("the garden had butter on an island near the window where kittens played")
    (tmp_path / "cute").mkdir()
    for name in CUTE:
        rows = ["\t".join(row) for row in TASKS[name].shots[:1]]
        (tmp_path / "cute" / f"{name}.tsv").write_text("\n".join(["names", *rows]) + "\n")
    return tmp_path


def test_cute_and_the_words_of_a_text_are_asked(tiny_folder, place, capsys):
    arguments = ["probe", "--model", tiny_folder, "--data", "stories.txt", "--cute", "cute", "--rows", 1]
    assert run(*arguments, "--shots", 1, "--json", "--out", "found.json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values == json.loads((place / "found.json").read_text())
    tasks = [(one["source"], one["task"]) for one in values["tasks"]]
    assert tasks == [*[("cute", name) for name in CUTE], *[("words", name) for name in MADE]]
    assert {"choice", "mutual", "chance", "exact_match", "most_frequent", "num_rows"} <= values["tasks"][0].keys()
    assert {"averages", "num_shots", "seed", "model_fingerprint"} <= values.keys()


def test_a_table_has_a_line_for_every_task_and_an_average(tiny_folder, place, capsys):
    chosen = ["--task", "spell", "--task", "sem", "--shots", 0, "--rows", 2]
    assert run("probe", "--model", tiny_folder, "--cute", "cute", "--data", "stories.txt", *chosen) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = [line.split()[:2] for line in lines[1:-1]]
    assert starts == [["cute", "spell"], ["cute", "sem"], ["words", "spell"], ["cute", "average"], ["words", "average"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data or --cute"),
        (["--cute", "nowhere"], "is not there; give the folder"),
        (["--cute", "nowhere", "--text-field", "text"], "--text-field: of a text; see --data"),
        (["--cute", "nowhere", "--skip-bad"], "--skip-bad: of a text; see --data"),
        (["--data", "stories.txt", "--task", "sem"], "--task: sem: one of CUTE's alone; give --cute"),
        (["--data", "stories.txt", "--task", "spell", "--task", "sem"], "--task: sem: one of CUTE's alone"),
        (["--cute", "cute", "--task", "spell", "--task", "spell_backwards"], "--task: spell_backwards: made of the"),
        (["--data", "stories.txt", "--force"], "--force: of the file that --out names"),
        (["--data", "stories.txt", "--out", "stories.txt"], "stories.txt: is there"),
        (["--data", "stories.txt", "--shots", "5"], "5 is not in the range"),
        (["--data", "nothing.txt"], "nothing.txt: does not exist"),
        (["--data", "stories.txt", "--task", "read"], "'read' is not one of"),
    ],
)
@pytest.mark.usefixtures("place")
def test_what_cannot_be_asked_is_refused_in_one_line(arguments, message, capsys):
    assert run("probe", *arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert message in shown.err.splitlines()[-1]
