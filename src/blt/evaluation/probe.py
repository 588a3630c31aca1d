"""`probe`: what a model knows of characters, as choices by log-likelihood and as what it writes.

A small model finds a word unchanged likelier than any change of it, whatever it is asked. So choices are made in two
ways: by log-likelihood (`acc` of the evaluation harness), and by mutual information with the question, which is the
log-likelihood less that of the same choice after the prompt `Answer: "`, which asks nothing. The harness's
`acc_mutual_info` takes away that of the choice after an empty context instead, so the two figures differ.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blt.configuration import check
from blt.errors import DataError
from blt.evaluation.bootstrap import Interval, share_interval
from blt.evaluation.continuations import Scorer, Writer
from blt.evaluation.probe_tasks import (
    CUTE,
    MADE,
    NO_QUESTION,
    STOP,
    TASKS,
    Question,
    Row,
    is_right,
    make_rows,
    question,
    read_cute,
    words_of,
)
from blt.progress import OnProgress

MAX_SHOTS = 4
"""Most rows that stand before a question with their answers."""


@runtime_checkable
class Model(Scorer, Writer, Protocol):
    """What is probed: a model that scores continuations, and writes some."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one task, and those that stand before each with their answers."""

    source: str
    """`cute`, or `words` for rows made of the words of a text."""
    task: str
    """A key of `TASKS`."""
    rows: Sequence[Row]
    shots: Sequence[Row]

    def questions(self, *, seed: int) -> list[Question]:
        """Ask all rows; the seed chooses wrong answers and their order."""
        place = list(TASKS).index(self.task)
        return [
            question(self.task, row, self.shots, seed=(seed, place, number)) for number, row in enumerate(self.rows)
        ]


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a model knows in one task."""

    source: str
    """Where the rows come from, as in `Rows`."""
    task: str
    """A key of `TASKS`."""
    num_rows: int
    """How many questions."""
    choice: Interval
    """Share of questions in which the answer is the likeliest of the choices."""
    mutual: Interval
    """Share in which it is the choice that the question makes likelier by most."""
    chance: float
    """The same for a model that chooses at random; always the same of Yes and No has `most_frequent`."""
    exact_match: Interval
    """Share of questions in which what the model writes, greedily, is the answer."""
    most_frequent: float
    """The same for a model whose answer is always the one that is the most frequent."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a missing interval is null."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.to_dict() if isinstance(value, Interval) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a model knows of characters."""

    tasks: list[TaskResult]
    """Each task."""
    averages: Mapping[str, TaskResult]
    """Of the tasks of each source; each task counts the same."""
    num_shots: int
    """Rows with their answers before each question."""
    seed: int
    """Of rows, wrong answers and the bootstrap."""
    seconds: float
    """Wall-clock time."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "num_shots": self.num_shots,
            "seed": self.seed,
            "seconds": self.seconds,
            "averages": {source: average.to_dict() for source, average in self.averages.items()},
            "tasks": [task.to_dict() for task in self.tasks],
        }


def cute_rows(
    folder: Path, *, count: int | None, num_shots: int = MAX_SHOTS, seed: int = 0, tasks: Sequence[str] = CUTE
) -> list[Rows]:
    """Read CUTE's tasks.

    Args:
        folder: of the files `TASK.tsv`.
        count: rows of each task, drawn by the seed; all if not given.
        num_shots: rows with their answers before each question, none of CUTE's own.
        seed: chooses the rows.
        tasks: which of them; only their files are read.

    Raises:
        ConfigurationError: more shots than there are.
        DataError: a file that is missing or broken.
    """
    _check_shots(num_shots)
    found = []
    for task in tasks:
        rows = read_cute(folder, task)
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()[:count]
        chosen = [rows[number] for number in sorted(order)]
        found.append(Rows(source="cute", task=task, rows=chosen, shots=TASKS[task].shots[:num_shots]))
    return found


def word_rows(documents: Iterable[bytes], *, count: int, num_shots: int = MAX_SHOTS, seed: int = 0) -> list[Rows]:
    """Make the tasks of `MADE` from the words of texts; each row and each shot of a task is made of another word.

    Args:
        documents: whose words are taken, in any language.
        count: rows of each task at most; fewer where the texts have fewer words.
        num_shots: rows with their answers before each question.
        seed: chooses words and letters.

    Raises:
        ConfigurationError: more shots than `MAX_SHOTS`.
        DataError: the texts have fewer than 2 words, or no word beside the shots.
    """
    _check_shots(num_shots)
    words, found = words_of(documents), []
    count = min(count, len(words) - num_shots)  # a word asked twice, or answered in a shot, would be no new question
    if count < 1:
        raise DataError(f"{len(words)} words of 4 to 12 letters, and {num_shots} of them are shots; give a longer text")
    for task in MADE:
        rows = make_rows(task, words, count=num_shots + count, seed=seed)
        found.append(Rows(source="words", task=task, rows=rows[num_shots:], shots=rows[:num_shots]))
    return found


def probe(
    model: Model, tasks: Sequence[Rows], *, seed: int = 0, bootstrap: int = 1000, progress: OnProgress | None = None
) -> Probe:
    """Ask a model all questions of some tasks, each twice: to choose the answer, and to write it.

    Args:
        model: `ByteScorer` for one of ours.
        tasks: as `cute_rows` and `word_rows` return them.
        seed: of wrong answers and the bootstrap.
        bootstrap: how many times to resample the questions for the intervals; 0 for none.
        progress: told the questions answered so far, and their total.

    Raises:
        ConfigurationError: a negative number of resamples, or no task.
    """
    check(bootstrap >= 0, f"bootstrap: expected 0 or more resamples, got {bootstrap}")
    check(len(tasks) > 0 and all(rows.rows for rows in tasks), "tasks: at least one, each of at least one row")
    start = time.perf_counter()
    total, done, results = sum(len(rows.rows) for rows in tasks), 0, []
    for rows in tasks:
        questions = rows.questions(seed=seed)
        chosen, mutual = _chosen(model, questions)
        written = _written(model, rows.task, questions)
        answers = Counter(question.answer for question in questions)
        results.append(
            TaskResult(
                source=rows.source,
                task=rows.task,
                num_rows=len(questions),
                choice=share_interval(chosen, resamples=bootstrap, seed=seed),
                mutual=share_interval(mutual, resamples=bootstrap, seed=seed),
                chance=float(np.mean([1 / len(question.choices) for question in questions])),
                exact_match=share_interval(written, resamples=bootstrap, seed=seed),
                most_frequent=answers.most_common(1)[0][1] / len(questions),
            )
        )
        done += len(questions)
        if progress is not None:
            progress(done, total)
    sources = dict.fromkeys(rows.source for rows in tasks)
    return Probe(
        tasks=results,
        averages={source: _average([one for one in results if one.source == source]) for source in sources},
        num_shots=len(tasks[0].shots),
        seed=seed,
        seconds=time.perf_counter() - start,
    )


def _check_shots(num_shots: int) -> None:
    check(0 <= num_shots <= MAX_SHOTS, f"shots: {num_shots}; from 0 to {MAX_SHOTS}")


def _chosen(model: Scorer, questions: Sequence[Question]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 1 for every question whose answer is chosen, by log-likelihood and by mutual information."""
    prompts = [question.prompt.encode() for question in questions for _ in question.choices]
    choices = [f"{choice}{STOP}".encode() for question in questions for choice in question.choices]
    logprobs = model.logprobs(list(zip(prompts, choices, strict=True)))
    distinct = list(dict.fromkeys(choices))
    without = dict(zip(distinct, model.logprobs([(NO_QUESTION.encode(), choice) for choice in distinct]), strict=True))
    mutual = [logprob - without[choice] for logprob, choice in zip(logprobs, choices, strict=True)]
    return _right(logprobs, questions), _right(mutual, questions)


def _right(values: Sequence[float], questions: Sequence[Question]) -> NDArray[np.float64]:
    """Return 1 for every question whose answer has the highest value; ties are shared."""
    following, found = iter(values), []
    for asked in questions:
        own = [next(following) for _ in asked.choices]
        best = [number for number, value in enumerate(own) if value == max(own)]
        found.append((asked.label in best) / len(best))
    return np.array(found)


def _written(model: Writer, task: str, questions: Sequence[Question]) -> NDArray[np.float64]:
    """Return 1 for every question whose answer the model writes."""
    longest = max(len(question.answer.encode()) for question in questions)
    prompts = [question.prompt.encode() for question in questions]
    written = model.continuations(prompts, stop=STOP.encode(), max_bytes=longest + len(STOP))
    answers = [question.answer for question in questions]
    return np.array(
        [float(is_right(task, text.decode("utf-8", "replace"), a)) for text, a in zip(written, answers, strict=True)]
    )


def _average(results: Sequence[TaskResult]) -> TaskResult:
    """Average tasks; each counts the same, and is as uncertain as its own interval says."""
    return TaskResult(
        source=results[0].source,
        task="average",
        num_rows=sum(result.num_rows for result in results),
        choice=Interval.of_mean([result.choice for result in results]),
        mutual=Interval.of_mean([result.mutual for result in results]),
        chance=float(np.mean([result.chance for result in results])),
        exact_match=Interval.of_mean([result.exact_match for result in results]),
        most_frequent=float(np.mean([result.most_frequent for result in results])),
    )
