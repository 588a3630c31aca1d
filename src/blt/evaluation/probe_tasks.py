"""Tasks that ask what a model knows of the characters in a word and of the words in a sentence.

The fourteen of CUTE (Edman, Schmid and Fraser 2024, arXiv 2409.15452), of which a folder of files `TASK.tsv` holds the
rows, and `spell_backwards`. A row is a few inputs and an answer. Its prompt is an instruction, some rows with their
answers, and its own question, up to the opening quotation mark of the answer:

    Delete the letter everywhere in the word.

    Question: Delete every "t" in "butter".
    Answer: "buer"

    Question: Delete every "n" in "garden".
    Answer: "

The closing mark ends the answer, both where a model chooses and where it writes. The wording is ours; CUTE's asks the
same in longer words, so figures are comparable between models under this command, and only roughly with its paper.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from blt.errors import DataError

Row = tuple[str, ...]
"""Inputs, and the answer last."""

NUM_CHOICES = 4
"""Answers to choose from, where the task does not name them itself."""
YES_OR_NO = ("Yes", "No")
STOP = '"'
"""What ends an answer."""
NO_QUESTION = f"Answer: {STOP}"
"""The prompt that asks nothing."""
_MOST_TRIALS = 20
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a row of one task is asked."""

    instruction: str
    """The first line of the prompt."""
    question: str
    """With {0}, {1}, … for the inputs."""
    shots: Sequence[Row] = field(repr=False)
    """Rows that stand before the question, where none of a vocabulary do."""
    unit: Literal["character", "word", "spelled"]
    """What an answer is made of: characters; words; characters with a space between them."""
    choices: Literal["yes or no", "inputs", "made"]
    """What a model chooses from: those words; the last two inputs; or the answer beside wrong ones made of it."""

    @property
    def num_inputs(self) -> int:
        """How many inputs a row has."""
        return len(self.shots[0]) - 1

    @property
    def ignores_case(self) -> bool:
        """Whether upper and lower case count as the same, as in CUTE where sentences are changed."""
        return self.unit == "word" and self.choices == "made"


def _edits(what: str, whole: str, shots: dict[str, Sequence[Row]]) -> dict[str, Task]:
    """Return the tasks that exist for characters of words and for words of sentences alike."""
    unit: Literal["character", "word"] = "character" if what == "letter" else "word"
    suffix = "char" if what == "letter" else "word"
    forms = {
        "contains": (f"Tell whether the {what} is in the {whole}.", 'Is there a "{0}" in "{1}"?'),
        "ins": (f"Insert the first {what} after the second one, everywhere in the {whole}.",
                'Insert "{0}" after every "{1}" in "{2}".'),
        "del": (f"Delete the {what} everywhere in the {whole}.", 'Delete every "{0}" in "{1}".'),
        "sub": (f"Replace the first {what} by the second one, everywhere in the {whole}.",
                'Replace every "{0}" by "{1}" in "{2}".'),
        "swap": (f"Swap the two {what}s in the {whole}.", 'Swap "{0}" and "{1}" in "{2}".'),
    }  # fmt: skip
    return {
        f"{name}_{suffix}": Task(
            instruction=instruction,
            question=question,
            shots=shots[name],
            unit=unit,
            choices="yes or no" if name == "contains" else "made",
        )
        for name, (instruction, question) in forms.items()
    }


_WORDS = ("garden", "butter", "island", "window")
_SENTENCE, _OTHER = "we saw a red boat on the lake", "the boat is red and the lake is blue"

TASKS: dict[str, Task] = {
    "spell": Task(
        instruction="Spell the word, with a space between its letters.",
        question='Spell "{0}".',
        shots=[(word, " ".join(word)) for word in _WORDS],
        unit="spelled",
        choices="made",
    ),
    "spell_inverse": Task(
        instruction="Write the word that is spelled, without spaces.",
        question='Write "{0}" as one word.',
        shots=[(" ".join(word), word) for word in _WORDS],
        unit="character",
        choices="made",
    ),
    "spell_backwards": Task(
        instruction="Spell the word from its last letter to its first, with a space between its letters.",
        question='Spell "{0}" backwards.',
        shots=[(word, " ".join(reversed(word))) for word in _WORDS],
        unit="spelled",
        choices="made",
    ),
    "orth": Task(
        instruction="Choose the word that is spelled more like the first one.",
        question='Spelled more like "{0}": "{1}" or "{2}"?',
        shots=[("house", "mouse", "home", "mouse"), ("stone", "rock", "store", "store"),
               ("large", "big", "barge", "barge"), ("night", "light", "evening", "light")],
        unit="character",
        choices="inputs",
    ),
    "sem": Task(
        instruction="Choose the word whose meaning is nearer to the first one.",
        question='Nearer in meaning to "{0}": "{1}" or "{2}"?',
        shots=[("house", "mouse", "home", "home"), ("stone", "rock", "store", "rock"),
               ("large", "big", "barge", "big"), ("night", "light", "evening", "evening")],
        unit="character",
        choices="inputs",
    ),
    **_edits("letter", "word", {
        "contains": [("d", "garden", "Yes"), ("o", "butter", "No"), ("e", "island", "No"), ("w", "window", "Yes")],
        "ins": [("o", "r", "garden", "garoden"), ("e", "t", "butter", "buteteer"), ("s", "l", "island", "islsand"),
                ("w", "w", "window", "wwindoww")],
        "del": [("g", "garden", "arden"), ("t", "butter", "buer"), ("n", "island", "islad"), ("w", "window", "indo")],
        "sub": [("a", "u", "garden", "gurden"), ("t", "n", "butter", "bunner"), ("d", "k", "island", "islank"),
                ("w", "l", "window", "lindol")],
        "swap": [("g", "n", "garden", "nardeg"), ("b", "r", "butter", "rutteb"), ("s", "l", "island", "ilsand"),
                 ("i", "o", "window", "wondiw")],
    }),
    **_edits("word", "sentence", {
        "contains": [("red", _SENTENCE, "Yes"), ("dog", _SENTENCE, "No"), ("green", _OTHER, "No"),
                     ("lake", _OTHER, "Yes")],
        "ins": [("old", "red", _SENTENCE, "we saw a red old boat on the lake"),
                ("all", "we", _SENTENCE, "we all saw a red boat on the lake"),
                ("big", "the", _OTHER, "the big boat is red and the big lake is blue"),
                ("red", "red", _OTHER, "the boat is red red and the lake is blue")],
        "del": [("red", _SENTENCE, "we saw a boat on the lake"), ("we", _SENTENCE, "saw a red boat on the lake"),
                ("is", _OTHER, "the boat red and the lake blue"), ("the", _OTHER, "boat is red and lake is blue")],
        "sub": [("red", "big", _SENTENCE, "we saw a big boat on the lake"),
                ("we", "dad", _SENTENCE, "dad saw a red boat on the lake"),
                ("is", "was", _OTHER, "the boat was red and the lake was blue"),
                ("the", "my", _OTHER, "my boat is red and my lake is blue")],
        "swap": [("red", "on", _SENTENCE, "we saw a on boat red the lake"),
                 ("we", "boat", _SENTENCE, "boat saw a red we on the lake"),
                 ("red", "blue", _OTHER, "the boat is blue and the lake is red"),
                 ("boat", "lake", _OTHER, "the lake is red and the boat is blue")],
    }),
}  # fmt: skip
"""All tasks, by name."""
CUTE = tuple(name for name in TASKS if name != "spell_backwards")
"""Tasks of which CUTE has rows."""
MADE = ("spell", "spell_backwards", "contains_char", "ins_char", "del_char", "sub_char", "swap_char")
"""Tasks whose rows can be made of any word."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A row as a model meets it."""

    prompt: str
    answer: str
    choices: tuple[str, ...]
    """The answer among others, in an order of their own."""

    @property
    def label(self) -> int:
        """Which choice is the answer."""
        return self.choices.index(self.answer)


def question(name: str, row: Row, shots: Sequence[Row], *, seed: tuple[int, ...]) -> Question:
    """Ask a row.

    Args:
        name: of the task.
        row: inputs and answer.
        shots: rows that stand before it with their answers.
        seed: chooses the wrong answers and the order.
    """
    task, (*inputs, answer) = TASKS[name], row
    parts = [task.instruction]
    parts += [f"Question: {task.question.format(*shot)}\nAnswer: {STOP}{shot[-1]}{STOP}" for shot in shots]
    parts.append(f"Question: {task.question.format(*inputs)}\nAnswer: {STOP}")
    generator = np.random.default_rng(seed)
    if task.choices == "yes or no":
        choices: Sequence[str] = YES_OR_NO
    elif task.choices == "inputs":
        choices = inputs[-2:]
    else:
        choices = [answer, *_wrong(task, inputs[-1], answer, generator)]
        choices = [choices[number] for number in generator.permutation(len(choices)).tolist()]
    return Question(prompt="\n\n".join(parts), answer=answer, choices=tuple(choices))


def is_right(name: str, written: str, answer: str) -> bool:
    """Whether what a model wrote is the answer."""
    if TASKS[name].ignores_case:
        return written.strip().lower() == answer.lower()
    return written.strip() == answer


def _wrong(task: Task, text: str, answer: str, generator: np.random.Generator) -> list[str]:
    """Make wrong answers: the text unchanged, then two units swapped, one replaced, one doubled, one left out."""
    between = "" if task.unit == "character" else " "
    units = answer.split(" ") if between else list(answer)
    others = text.split(" ") if task.unit == "word" else list(text)
    found = [text] if text != answer else []
    for _ in range(_MOST_TRIALS):
        first, second = generator.integers(len(units), size=2).tolist()
        swapped = list(units)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        other = others[int(generator.integers(len(others)))]
        for changed in (
            swapped,
            [*units[:first], other, *units[first + 1 :]],
            [*units[:second], units[second], *units[second:]],
            [*units[:first], *units[first + 1 :]],
        ):
            wrong = between.join(changed)
            if wrong.strip() and wrong != answer and wrong not in found:
                found.append(wrong)
        if len(found) >= NUM_CHOICES - 1:
            break
    return found[: NUM_CHOICES - 1]


def read_cute(folder: Path, name: str) -> list[Row]:
    """Read the rows of one of CUTE's tasks.

    Args:
        folder: of the files `TASK.tsv`, with a line of names and then a row a line.
        name: of the task.

    Raises:
        DataError: no such file, a line that is no row, or an answer that cannot be chosen.
    """
    path = folder / f"{name}.tsv"
    if not path.is_file():
        raise DataError(f"{path}: is not there; give the folder `data` of CUTE (github.com/Leukas/CUTE)")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 ({error})") from None
    found = []
    for number, line in enumerate(lines, start=2):
        row = tuple(line.split("\t"))
        if len(row) != TASKS[name].num_inputs + 1 or not all(row):
            raise DataError(
                f"{path}: line {number}: expected {TASKS[name].num_inputs} inputs and an answer, got {line!r}"
            )
        choices = YES_OR_NO if TASKS[name].choices == "yes or no" else row[-3:-1]
        if TASKS[name].choices != "made" and row[-1] not in choices:
            raise DataError(f"{path}: line {number}: the answer {row[-1]!r} is none of {' and '.join(choices)}")
        found.append(row)
    if not found:
        raise DataError(f"{path}: has no rows")
    return found


def words_of(documents: Iterable[bytes]) -> list[str]:
    """Return the words of texts that rows can be made of, in lower case, each once, in the order of the alphabet.

    A word is a run of letters, of any script, of 4 to 12 characters, at least 3 of them different.
    """
    found: set[str] = set()
    for document in documents:
        text = document.decode("utf-8", errors="ignore").lower()
        found.update(word for word in _LETTERS.findall(text) if 4 <= len(word) <= 12 and len(set(word)) >= 3)
    return sorted(found)


def make_rows(name: str, words: Sequence[str], *, count: int, seed: int) -> list[Row]:
    """Make rows of one of `MADE` from words; of as many different words, as far as there are.

    Args:
        name: of the task.
        words: as `words_of` returns them.
        count: of the rows.
        seed: chooses words and letters.

    Raises:
        DataError: fewer than 2 words.
    """
    if len(words) < 2:
        raise DataError(f"{len(words)} words of 4 to 12 letters; give a text with more")
    generator = np.random.default_rng((seed, MADE.index(name)))
    letters = sorted(set("".join(words)))
    order = generator.permutation(len(words)).tolist()
    return [_made(name, words[order[number % len(words)]], letters, number, generator) for number in range(count)]


def _made(name: str, word: str, letters: Sequence[str], number: int, generator: np.random.Generator) -> Row:
    def one_of(choices: Sequence[str]) -> str:
        return choices[int(generator.integers(len(choices)))]

    own = sorted(set(word))
    new = [letter for letter in letters if letter not in word] or own
    old = one_of(own)
    if name == "spell":
        return word, " ".join(word)
    if name == "spell_backwards":
        return word, " ".join(reversed(word))
    if name == "contains_char":  # half and half, as far as there are letters that the word lacks
        letter = one_of(own) if number % 2 else one_of(new)
        return letter, word, YES_OR_NO[letter not in word]
    if name == "ins_char":
        letter = one_of(letters)
        return letter, old, word, word.replace(old, old + letter)
    if name == "del_char":
        return old, word, word.replace(old, "")
    if name == "sub_char":
        letter = one_of(new)
        return old, letter, word, word.replace(old, letter)
    assert name == "swap_char", name
    other = one_of([letter for letter in own if letter != old])
    return old, other, word, word.translate(str.maketrans(old + other, other + old))
