import math

import pytest

from blt.errors import ConfigurationError, DataError
from blt.evaluation.bootstrap import Interval
from blt.evaluation.continuations import ByteScorer
from blt.evaluation.probe import cute_rows, probe, word_rows
from blt.evaluation.probe_tasks import CUTE, MADE, NO_QUESTION, TASKS

TEXT = [
    b"the garden had butter on an island near the window where some kittens played with silver paper",
    b"under a yellow tree while the farmer carried heavy baskets",
]


@pytest.fixture
def cute(tmp_path):
    """A folder of CUTE's form, of which every row is a shot of ours."""
    for name in CUTE:
        rows = ["\t".join(row) for row in TASKS[name].shots]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["names", *rows]) + "\n")
    return tmp_path


class Clever:
    """A model that knows every answer, or none."""

    def __init__(self, tasks, *, knows=True, bias=0.0):
        asked = [one for rows in tasks for one in rows.questions(seed=0)]
        self.answers = {one.prompt.encode(): one.answer.encode() for one in asked}
        self.knows, self.bias = knows, bias

    def logprobs(self, pairs):
        return [
            -10.0 + (5 if self.knows and self.answers.get(prompt) == choice[:-1] else 0) - self.bias * len(choice)
            for prompt, choice in pairs
        ]

    def continuations(self, prompts, *, stop, max_bytes):
        assert stop == b'"'
        written = [self.answers[prompt] if self.knows else b"?" for prompt in prompts]
        assert all(len(answer) < max_bytes for answer in written)
        return written


def test_who_knows_all_is_right_and_who_knows_nothing_is_at_chance(cute):
    tasks = cute_rows(cute, count=None) + word_rows(TEXT, count=9)
    found = probe(Clever(tasks), tasks, bootstrap=10)
    assert [(one.source, one.task) for one in found.tasks] == [
        *[("cute", name) for name in CUTE], *[("words", name) for name in MADE]
    ]  # fmt: skip
    for one in [*found.tasks, *found.averages.values()]:
        assert one.choice == one.mutual == one.exact_match
        assert one.choice.value == one.choice.high == 1
    for one in found.tasks:  # Wilson's interval of n of n
        assert one.choice.low == pytest.approx(one.num_rows / (one.num_rows + 1.96**2), abs=1e-4)
    blind = probe(Clever(tasks, knows=False), tasks, bootstrap=0)
    for one in blind.tasks:
        assert one.choice.value == pytest.approx(one.chance)
        assert one.mutual.value == pytest.approx(one.chance)
        assert one.exact_match.value == 0
    by_task = {(one.source, one.task): one for one in blind.tasks}
    assert by_task["cute", "spell"].chance == 0.25
    assert by_task["cute", "sem"].chance == by_task["words", "contains_char"].chance == 0.5
    assert by_task["cute", "contains_word"].most_frequent == 0.5
    assert by_task["cute", "spell"].num_rows == 4
    assert list(blind.averages) == ["cute", "words"]
    assert blind.averages["words"].num_rows == 63


def test_mutual_information_takes_away_what_a_model_likes_anyway():
    tasks = word_rows(TEXT, count=9)
    found = probe(Clever(tasks, bias=50.0), tasks, bootstrap=0)
    swapped = next(one for one in found.tasks if one.task == "ins_char")  # longer than the text unchanged
    assert swapped.choice.value == 0
    assert swapped.mutual.value == 1
    assert NO_QUESTION == 'Answer: "'


def test_a_byte_model_is_probed(tiny_lm):
    told = []
    tasks = word_rows(TEXT, count=3, num_shots=1)[:2]
    found = probe(ByteScorer(tiny_lm), tasks, bootstrap=20, progress=lambda *done: told.append(done))
    assert told == [(3, 6), (6, 6)]
    again = probe(ByteScorer(tiny_lm), tasks, bootstrap=20)
    assert found.to_dict() | {"seconds": 0} == again.to_dict() | {"seconds": 0}
    assert found.to_dict()["num_shots"] == 1


def test_rows_are_drawn_by_the_seed_and_shots_are_other_rows(cute):
    few = [cute_rows(cute, count=2, seed=seed)[0].rows for seed in range(9)]
    assert {len(rows) for rows in few} == {2}
    assert len({tuple(rows) for rows in few}) > 1
    for rows in word_rows(TEXT, count=5, num_shots=3):
        assert len(rows.rows) == 5
        assert len(rows.shots) == 3
        assert not {row[-2] for row in rows.shots} & {row[-2] for row in rows.rows}


@pytest.mark.parametrize("num_shots", [0, 4])
def test_no_word_is_asked_twice_or_answered_in_a_shot(num_shots):
    words = b"garden butter island window kitten silver"
    for rows in word_rows([words], count=100, num_shots=num_shots):
        texts = [row[-2].replace(" ", "") for row in [*rows.shots, *rows.rows]]
        assert len(rows.shots) == num_shots
        assert sorted(texts) == sorted(words.decode().split())


def test_only_files_of_the_tasks_that_are_asked_are_read(cute):
    (cute / "sem.tsv").unlink()
    assert [rows.task for rows in cute_rows(cute, count=1, tasks=["spell", "orth"])] == ["spell", "orth"]


def test_the_interval_of_a_mean_of_tasks_narrows_with_their_number():
    one = Interval(0.5, 0.3, 0.6)
    for count, low, high in ((1, 0.3, 0.6), (4, 0.4, 0.55)):
        mean = Interval.of_mean([one] * count)
        assert (mean.value, mean.low, mean.high) == (0.5, pytest.approx(low), pytest.approx(high))
    assert math.isnan(Interval.of_mean([Interval(1.0, math.nan, math.nan)]).low)


def test_what_cannot_be_probed_is_refused(tiny_lm, tmp_path):
    with pytest.raises(ConfigurationError, match="at least one"):
        probe(ByteScorer(tiny_lm), [])
    with pytest.raises(ConfigurationError, match="0 or more"):
        probe(ByteScorer(tiny_lm), word_rows(TEXT, count=1), bootstrap=-1)
    with pytest.raises(ConfigurationError, match="from 0 to 4"):
        word_rows(TEXT, count=1, num_shots=5)
    with pytest.raises(DataError, match="4 words of 4 to 12 letters, and 4 of them are shots; give a longer text"):
        word_rows([b"garden butter island window"], count=1)
    with pytest.raises(DataError, match="is not there"):
        cute_rows(tmp_path, count=1)
