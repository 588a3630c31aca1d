"""The lm-evaluation-harness over HTTP (`local-completions`) beside the adapter in its own process."""

import json

import pytest

from running_server import running

pytest.importorskip("lm_eval")
pytest.importorskip("tenacity", reason="lm-eval's API models need lm-eval[api]")

from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

from blt.interop.lm_eval import HarnessLM

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
PAIRS = [
    ("Tom had a red", " ball."),
    ("Zoë saw", " 魚 and ½"),
    ("", "Once upon a time"),
    ("The cat sat." * 20, " On the mat."),  # the harness itself moves a context's last spaces over
    ("a", "é"),
]
TEXTS = ["Zoë saw 魚 and ran.", "a", "The cat sat on the mat. " * 15]

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own


@pytest.fixture(scope="module")
def here_and_there(tmp_path_factory):
    """The adapter in this process, and the harness's client of a server of the same weights."""
    folder = tmp_path_factory.mktemp("home") / "tiny"
    with running() as server:
        server.lm.save_pretrained(folder)
        here = HarnessLM(str(folder), batch_size=1, count_eos=False, bytes_per_token=1)
        there = LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions", model="tiny", max_length=4096, max_gen_toks=20
        )
        assert there.tokenizer_backend == "remote"
        yield here, there, folder


def instances(kind, rows):
    return [Instance(request_type=kind, doc={}, arguments=row, idx=number) for number, row in enumerate(rows)]


def test_log_likelihoods_are_those_of_the_adapter_to_the_last_digit(here_and_there):
    here, there, _ = here_and_there
    rows = instances("loglikelihood", PAIRS)
    assert there.loglikelihood(rows) == here.loglikelihood(rows)
    assert len({one for one, _ in there.loglikelihood(rows)}) == len(PAIRS)


def test_rolling_log_likelihoods_are_those_of_the_adapter_to_the_last_digit(here_and_there):
    here, there, _ = here_and_there
    rows = instances("loglikelihood_rolling", [(text,) for text in TEXTS])
    assert there.loglikelihood_rolling(rows) == here.loglikelihood_rolling(rows)


def test_texts_are_continued_as_by_the_adapter(here_and_there):
    here, there, _ = here_and_there
    options = {"until": ["\n\n", "q"], "max_gen_toks": 15, "do_sample": False}
    rows = instances("generate_until", [(text, dict(options)) for text in TEXTS])
    assert there.generate_until(rows) == here.generate_until(rows)


def test_a_task_has_the_figures_of_the_adapter(here_and_there, tmp_path, monkeypatch):
    here, there, _ = here_and_there
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    choices = [["ball", "x", "qqqq zz", "of the"], ["on", "café!", "mat", "zzz"], ["ran", "went home", "½", "!"]]
    starts = ["Tom had a red", "The cat sat", "Zoë saw 魚 and"]
    asked = [{"query": q, "choices": c, "label": n} for n, (q, c) in enumerate(zip(starts, choices, strict=True))]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    (tmp_path / "endings.yaml").write_text(CHOICES.format(data=data))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = [
        simple_evaluate(model=lm, tasks=["endings"], task_manager=tasks, bootstrap_iters=0, log_samples=True)
        for lm in (here, there)
    ]
    ours, theirs = ([row["filtered_resps"] for row in found["samples"]["endings"]] for found in results)
    assert ours == theirs
    assert results[0]["results"]["endings"]["acc,none"] == results[1]["results"]["endings"]["acc,none"]
