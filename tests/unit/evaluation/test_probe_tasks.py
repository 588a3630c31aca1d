import pytest

from blt.errors import DataError
from blt.evaluation.probe_tasks import (
    CUTE,
    MADE,
    NUM_CHOICES,
    TASKS,
    is_right,
    make_rows,
    question,
    read_cute,
    words_of,
)

WORDS = ["garden", "butter", "island", "window", "kitten", "vögel", "печать"]


def changed(name, inputs):
    """The answer, by another way than the code's: position by position."""
    if name in ("spell", "spell_backwards"):
        letters = list(inputs[0])
        return " ".join(letters if name == "spell" else letters[::-1])
    if name == "spell_inverse":
        return "".join(inputs[0].split())
    kind, unit = name.split("_")
    *arguments, text = inputs
    units = list(text) if unit == "char" else text.split()
    if kind == "contains":
        return "Yes" if arguments[0] in units else "No"
    first, second = [*arguments, ""][:2]
    edit = {
        "ins": lambda u: [u, first] if u == second else [u],
        "del": lambda u: [] if u == first else [u],
        "sub": lambda u: [second] if u == first else [u],
        "swap": lambda u: [{first: second, second: first}.get(u, u)],
    }[kind]
    return ("" if unit == "char" else " ").join(part for u in units for part in edit(u))


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("orth", "sem")])
def test_the_shots_of_a_task_are_right(name):
    for *inputs, answer in TASKS[name].shots:
        assert answer == changed(name, inputs)
    assert len(TASKS[name].shots) == 4


@pytest.mark.parametrize("name", MADE)
def test_rows_made_of_words_are_right_and_repeatable(name):
    rows = make_rows(name, WORDS, count=40, seed=3)
    assert len(rows) == 40
    for *inputs, answer in rows:
        assert inputs[-1] in WORDS
        assert answer == changed(name, inputs)
    assert {row[-2] for row in rows[:7]} == set(WORDS)
    assert rows == make_rows(name, WORDS, count=40, seed=3)
    assert rows != make_rows(name, WORDS, count=40, seed=4)


def test_half_of_the_letters_are_contained():
    answers = [row[-1] for row in make_rows("contains_char", WORDS, count=40, seed=0)]
    assert (answers.count("Yes"), answers.count("No")) == (20, 20)


def test_a_prompt_ends_where_the_answer_begins():
    asked = question("del_char", ("n", "garden", "garde"), TASKS["del_char"].shots[:1], seed=(0,))
    assert asked.prompt == (
        "Delete the letter everywhere in the word.\n\n"
        'Question: Delete every "g" in "garden".\nAnswer: "arden"\n\n'
        'Question: Delete every "n" in "garden".\nAnswer: "'
    )


@pytest.mark.parametrize("name", MADE)
def test_the_answer_stands_once_among_different_choices_in_every_place(name):
    rows = make_rows(name, [*WORDS, "eye", "aab"], count=60, seed=1)
    asked = [question(name, row, TASKS[name].shots, seed=(5, number)) for number, row in enumerate(rows)]
    wanted = 2 if name == "contains_char" else NUM_CHOICES
    for one in asked:
        assert len(set(one.choices)) == len(one.choices) == wanted
        assert one.choices[one.label] == one.answer
    assert {one.label for one in asked} == set(range(wanted))
    assert all(row[-2] in one.choices for row, one in zip(rows, asked, strict=True)) or name == "contains_char"


def test_a_choice_between_two_words_is_between_those():
    asked = question("sem", ("day", "say", "night", "night"), [], seed=(0,))
    assert asked.choices == ("say", "night")
    assert asked.label == 1


def test_case_is_ignored_only_where_sentences_are_changed():
    assert is_right("del_word", " The Octopus. ", "the octopus.")
    assert is_right("del_char", "he", "he")
    assert not is_right("del_char", "He", "he")
    assert not is_right("contains_word", "yes", "Yes")


def test_words_are_runs_of_letters_of_any_script_in_lower_case():
    texts = ["The Vögel flew, a_garden; 1234 печать! aaaa it's".encode(), b"\xffGarden abcdefghijklm"]
    assert words_of(texts) == ["flew", "garden", "vögel", "печать"]
    with pytest.raises(DataError, match="1 words of 4 to 12 letters"):
        make_rows("spell", ["garden"], count=1, seed=0)


def test_cute_is_read_line_by_line(tmp_path):
    (tmp_path / "ins_word.tsv").write_text('input1\tinput2\tinput3\tlabel\nold\tred\tA red "car"\tA red old "car"\n')
    assert read_cute(tmp_path, "ins_word") == [("old", "red", 'A red "car"', 'A red old "car"')]
    assert len(CUTE) == 14


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "spell.tsv: is not there; give the folder"),
        (b"input1\tlabel\n", "has no rows"),
        (b"input1\tlabel\nthe\n", "line 2: expected 1 inputs and an answer, got 'the'"),
        (b"input1\tlabel\nthe\t\n", "line 2: expected 1 inputs"),
        (b"input1\tlabel\n\xff\tf\n", "is no UTF-8"),
    ],
)
def test_a_file_that_is_none_of_cute_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "spell.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cute(tmp_path, "spell")


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("contains_char", "a\tgarden\tyes", "line 2: the answer 'yes' is none of Yes and No"),
        ("sem", "house\tmouse\thome\thouse", "line 2: the answer 'house' is none of mouse and home"),
    ],
)
def test_an_answer_that_cannot_be_chosen_is_refused(tmp_path, name, row, message):
    (tmp_path / f"{name}.tsv").write_text(f"names\n{row}\n")
    with pytest.raises(DataError, match=f"{name}.tsv: {message}"):
        read_cute(tmp_path, name)
