"""The lm-evaluation-harness's own command line, on task files made on the spot."""

import json
import math
import os
import subprocess
import sys

import pytest

from blt.api import ByteLM
from blt.cli import main
from tiny_training import made_up_documents, write_text

pytest.importorskip("lm_eval")

ROLLING = """
task: stories
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
"""
CHOICES = """
task: endings
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {data}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "choices"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
WRITING = """
task: writing
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {data}}}
validation_split: validation
output_type: generate_until
doc_to_text: "{{{{query}}}}"
doc_to_target: "{{{{written}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 3, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
TARGET_DELIMITER = " "
"""What the harness puts between a question and its answer by itself."""


def lm_eval(*arguments, folder):
    """Run the harness as a user does; nothing of it is left on this machine."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "blt.interop.lm_eval", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tiny_folder):
    """HellaSwag's form: a start, four endings, and the number of the right one; also what the model itself writes."""
    lm = ByteLM.from_pretrained(tiny_folder)
    starts = ["Tom had a red", "The cat sat", "Zoë saw 魚 and"]
    choices = [["ball", "x", "qqqq zz", "of the"], ["on", "café!", "mat", "zzz"], ["ran", "went home", "½", "!"]]
    written = [lm.generate(start, max_new_bytes=12, temperature=0, stop="\n\n").continuation for start in starts]
    return [
        {"query": start, "choices": some, "label": number, "written": text if number else "something else"}
        for number, (start, some, text) in enumerate(zip(starts, choices, written, strict=True))
    ]


def accuracies(lm, questions):
    """Right answers by likelihood, and by likelihood per character, from `ByteLM.score` alone."""
    right = [0, 0]
    for question in questions:
        nats = []
        for choice in question["choices"]:
            start, end = question["query"], TARGET_DELIMITER + choice
            nats.append(-lm.score(start + end).bits_by_byte[len(start.encode()) : -1].sum())
        per_character = [one / len(choice) for one, choice in zip(nats, question["choices"], strict=True)]
        right[0] += nats.index(max(nats)) == question["label"]
        right[1] += per_character.index(max(per_character)) == question["label"]
    return [count / len(questions) for count in right]


def test_the_harness_measures_a_model_on_tasks_of_ones_own(tiny_folder, questions, tmp_path, capsys):
    documents = [*made_up_documents(6), "Zoë, 7½, saw 魚."]
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    stories = write_jsonl(tmp_path / "stories.jsonl", [{"text": document} for document in documents])
    asked = write_jsonl(tmp_path / "questions.jsonl", questions)
    (tasks / "stories.yaml").write_text(ROLLING.format(data=stories))
    (tasks / "endings.yaml").write_text(CHOICES.format(data=asked))
    (tasks / "writing.yaml").write_text(WRITING.format(data=asked))
    command = ["run", "--model", "blt", "--model_args", f"pretrained={tiny_folder}", "--include_path", tasks]
    command += ["--tasks", "stories", "endings", "writing", "--batch_size", "2", "--output_path", tmp_path / "out"]
    done = lm_eval(*command, folder=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "bits_per_byte" in done.stdout
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]

    text = write_text(tmp_path / "stories.txt", documents)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--data", str(text), "--model", str(tiny_folder), "--bootstrap", "0", "--json"])
    assert stop.value.code == 0
    ours = json.loads(capsys.readouterr().out)
    assert results["stories"]["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], rel=1e-12)
    assert math.isfinite(ours["bits_per_byte"])

    wanted = accuracies(ByteLM.from_pretrained(tiny_folder), questions)
    assert [results["endings"][f"{name},none"] for name in ("acc", "acc_norm")] == pytest.approx(wanted)
    assert results["writing"]["exact_match,none"] == pytest.approx(2 / 3)


def test_a_model_that_is_not_there_is_one_line_and_status_2(tmp_path):
    stories = write_jsonl(tmp_path / "stories.jsonl", [{"text": "Tom ran."}])
    (tmp_path / "stories.yaml").write_text(ROLLING.format(data=stories))
    command = ["--model", "blt", "--model_args", "pretrained=nowhere", "--tasks", "stories", "--include_path", tmp_path]
    done = lm_eval(*command, folder=tmp_path / "home")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("blt: nowhere: no such folder")
    assert "Traceback" not in done.stderr
