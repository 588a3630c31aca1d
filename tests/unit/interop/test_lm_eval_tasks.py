import json
import subprocess
import sys

import pytest

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from blt.errors import ConfigurationError
from blt.evaluation import cute_rows, probe, word_rows
from blt.evaluation.continuations import ByteScorer
from blt.evaluation.probe_tasks import CUTE, MADE, TASKS
from blt.interop.lm_eval import HarnessLM
from blt.interop.lm_eval_tasks import FOLDER, rows

TEXT = "the garden had butter on an island near the window where some kittens played with silver paper by a yellow tree"
NAMES = [f"{source}_{name}{suffix}" for source, names in (("cute", CUTE), ("probe", MADE)) for name in names
         for suffix in ("", "_choice")]  # fmt: skip
GROUPS = ["cute", "cute_choice", "probe", "probe_choice"]


@pytest.fixture
def metadata(tmp_path):
    """What the tasks are told: a folder of CUTE's form, and a text."""
    for name in CUTE:
        lines = ["names", *("\t".join(row) for row in TASKS[name].shots)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "stories.txt").write_text(TEXT)
    return {"cute": str(tmp_path), "text": str(tmp_path / "stories.txt"), "rows": 3}


@pytest.fixture
def tasks(metadata):
    return TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata)


def test_every_task_has_its_files_and_no_other(tasks):
    assert sorted(tasks.all_tasks) == sorted([*NAMES, *GROUPS])
    assert len(list(FOLDER.glob("*.yaml"))) == len(NAMES) + len(GROUPS)


def test_the_harness_asks_what_blt_probe_asks(tasks, metadata, tmp_path):
    asked = {
        f"{'cute' if found.source == 'cute' else 'probe'}_{found.task}": found.questions(seed=0)
        for found in [*cute_rows(tmp_path, count=3), *word_rows([TEXT.encode()], count=3)]
    }
    loaded = tasks.load(NAMES)["tasks"]
    assert sorted(loaded) == sorted(NAMES)
    for name, task in loaded.items():
        questions = asked[name.removesuffix("_choice")]
        documents = list(task.test_docs())
        assert [task.doc_to_text(document) for document in documents] == [one.prompt for one in questions]
        if name.endswith("_choice"):
            assert [task.doc_to_target(document) for document in documents] == [one.label for one in questions]
            assert [task.doc_to_choice(document) for document in documents] == [
                [f'{choice}"' for choice in one.choices] for one in questions
            ]
        else:
            assert [task.doc_to_target(document) for document in documents] == [one.answer for one in questions]
            assert task.config.generation_kwargs["until"] == ['"']


def test_the_harness_finds_the_figures_of_blt_probe(tasks, metadata, tiny_folder):
    harness = HarnessLM(pretrained=str(tiny_folder))
    names = ["probe_swap_char_choice", "probe_contains_char_choice"]
    results = simple_evaluate(model=harness, tasks=names, task_manager=tasks, metadata=metadata)["results"]
    found = {one.task: one for one in probe(ByteScorer(harness.lm), word_rows([TEXT.encode()], count=3)).tasks}
    assert results["probe_swap_char_choice"]["acc,none"] == pytest.approx(found["swap_char"].choice.value)
    assert results["probe_contains_char_choice"]["acc,none"] == pytest.approx(found["contains_char"].choice.value)


class WritesSomeRight(LM):
    """A model of the harness, and of ours, that writes the right answer to every second prompt, and to no other."""

    def __init__(self, asked):
        super().__init__()
        self.answers = {one.prompt: one.answer if number % 2 == 0 else "?" for number, one in enumerate(asked)}

    def generate_until(self, requests):
        return [self.answers[request.args[0]] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood

    def continuations(self, prompts, *, stop, max_bytes):
        return [self.answers[prompt.decode()].encode() for prompt in prompts]

    def logprobs(self, pairs):
        return [0.0 for _ in pairs]


def test_the_harness_counts_what_is_written_right_as_blt_probe_does(tasks, metadata):
    rows = [one for one in word_rows([TEXT.encode()], count=3) if one.task in ("spell", "contains_char")]
    model = WritesSomeRight([asked for one in rows for asked in one.questions(seed=0)])
    names = [f"probe_{one.task}" for one in rows]
    results = simple_evaluate(model=model, tasks=names, task_manager=tasks, metadata=metadata)["results"]
    for one in probe(model, rows).tasks:
        assert 0 < one.exact_match.value < 1
        assert results[f"probe_{one.task}"]["exact_match,none"] == pytest.approx(one.exact_match.value)


def test_a_sentence_is_right_in_any_case(tasks):
    metrics = {name: tasks.load([f"cute_{name}"])["tasks"][f"cute_{name}"].config.metric_list for name in CUTE}
    assert {name: metric.get("ignore_case", False) for name, (metric,) in metrics.items()} == {
        name: TASKS[name].ignores_case for name in CUTE
    }


def test_what_is_missing_is_named():
    with pytest.raises(ConfigurationError, match=r'--metadata \'\{"cute": "FOLDER"\}\''):
        rows.cute(task="spell")
    with pytest.raises(ConfigurationError, match=r'--metadata \'\{"text": "FILE"\}\''):
        rows.probe(task="spell", version=1.0)


def test_the_harness_runs_a_group_from_its_command_line(metadata, tiny_folder, tmp_path):
    command = [
        sys.executable, "-m", "blt.interop.lm_eval", "--model", "blt", "--model_args", f"pretrained={tiny_folder}",
        "--include_path", FOLDER, "--tasks", "probe_choice", "--metadata", json.dumps(metadata),
        "--output_path", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "out").rglob("results*.json")
    assert "acc_mutual_info,none" in json.loads(written.read_text())["results"]["probe_choice"]
