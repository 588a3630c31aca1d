"""The data sets of the task files, made by the code of `blt probe`; the harness calls these with its `--metadata`."""

from pathlib import Path
from typing import Any

import datasets

from blt.configuration import check
from blt.data import read_documents
from blt.evaluation.probe import MAX_SHOTS, Rows, cute_rows, word_rows
from blt.evaluation.probe_tasks import STOP


def cute(
    *, task: str, cute: str = "", rows: int | None = None, shots: int = MAX_SHOTS, seed: int = 0, **_: Any
) -> dict[str, Any]:
    """Return the questions of one of CUTE's tasks.

    Args:
        task: its name.
        cute: the folder of its files.
        rows: how many of them; all if not given.
        shots: answered questions before each.
        seed: chooses rows and wrong answers.
        _: what the harness says of the task.

    Raises:
        ConfigurationError: no folder.
    """
    check(cute != "", """cute: no folder; say --metadata '{"cute": "FOLDER"}', the folder `data` of CUTE""")
    return _dataset(cute_rows(Path(cute), count=rows, num_shots=shots, seed=seed, tasks=[task]), task, seed=seed)


def probe(
    *, task: str, text: str = "", rows: int = 200, shots: int = MAX_SHOTS, seed: int = 0, **_: Any
) -> dict[str, Any]:
    """Return the questions of one task that is made of the words of a text.

    Args:
        task: its name.
        text: a file that `blt evaluate --data` reads.
        rows: how many questions.
        shots: answered questions before each.
        seed: chooses words and wrong answers.
        _: what the harness says of the task.

    Raises:
        ConfigurationError: no text.
    """
    check(text != "", """text: no file; say --metadata '{"text": "FILE"}'""")
    return _dataset(word_rows(read_documents(text), count=rows, num_shots=shots, seed=seed), task, seed=seed)


def _dataset(found: list[Rows], task: str, *, seed: int) -> dict[str, Any]:
    (chosen,) = (rows for rows in found if rows.task == task)
    return {
        "test": datasets.Dataset.from_list(
            [
                {
                    "prompt": one.prompt,
                    "answer": one.answer,
                    "choices": [choice + STOP for choice in one.choices],  # the mark ends what is scored too
                    "label": one.label,
                }
                for one in chosen.questions(seed=seed)
            ]
        )
    }
