"""Bits per byte and compute per character by script: how a model does in each writing system."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blt.api import ByteLM
from blt.configuration import check
from blt.evaluation.bootstrap import Interval, ratio
from blt.evaluation.evaluate import Evaluation
from blt.model.cost import cost_of

NO_SCRIPT = "None"
"""Of a document without a letter."""

# The script may have several words (`OLD PERSIAN SIGN A`), so it is taken lazily: up to the first word that tells a
# kind of letter, or to the first hyphen, where a number follows (`TANGUT IDEOGRAPH-17000`).
_NAME = re.compile(
    r"(?:COMBINING |VARIANT |HALFWIDTH |FULLWIDTH )?"
    r"([A-Z][A-Z -]*?)(?: (?:CAPITAL|SMALL|LETTER|SYLLABLE|SYLLABICS|UNIFIED|COMPATIBILITY|VOWEL|SIGN|LIGATURE|"
    r"CONSONANT|CHARACTER|RADICAL|INDEPENDENT|FINAL|MARK)\b|-)"
)
_OTHER_NAMES = {"Cjk": "Han", "Canadian": "Canadian Aboriginal"}
_JAPANESE = {"Hiragana", "Katakana"}


def script_of_character(character: str) -> str | None:
    """Return the script of a letter, by the first words of its Unicode name; None for what is no letter.

    Kana and Chinese characters are scripts of their own here: `Hiragana`, `Katakana`, `Han`.
    """
    if unicodedata.category(character) not in ("Lu", "Ll", "Lt", "Lo"):
        return None
    match = _NAME.match(unicodedata.name(character, ""))
    if match is None:
        return None
    name = match[1].title()
    return _OTHER_NAMES.get(name, name)


def script_of(text: str | bytes) -> str:
    """Return the script that most letters of a text have, and `Japanese` where a twentieth of them is kana."""
    shown = text.decode("utf-8", "ignore") if isinstance(text, bytes) else text
    found: Counter[str] = Counter()
    for character, count in Counter(shown).items():
        script = script_of_character(character)
        if script is not None:
            found[script] += count
    if not found:
        return NO_SCRIPT
    if sum(found[kana] for kana in _JAPANESE) >= 0.05 * found.total():
        return "Japanese"
    return min(found, key=lambda script: (-found[script], script))


@dataclass(frozen=True, kw_only=True)
class ScriptFigures:
    """A model's figures on the documents of one script."""

    script: str
    """The script that most letters of a document have."""
    num_documents: int
    """Documents."""
    num_bytes: int
    """Bytes of their text."""
    num_characters: int
    """Characters of it; a byte that belongs to none counts as one."""
    bits_per_byte: Interval
    """Bits of every byte and EOS, by the bytes of the text; the interval is over documents."""
    mean_patch_bytes: float
    """Bytes of text by patches that hold any."""
    flops_per_character: float
    """Forward FLOPs, the entropy model's included (`blt.model.cost`), in documents of the script's mean length."""

    @property
    def bytes_per_character(self) -> float:
        """Mean length of a character in UTF-8."""
        return self.num_bytes / self.num_characters

    @property
    def bits_per_character(self) -> float:
        """Bits of the text by its characters; it compares scripts, whose characters have different lengths."""
        return self.bits_per_byte.value * self.bytes_per_character

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        derived = ("bytes_per_character", "bits_per_character")
        return (
            values | {"bits_per_byte": self.bits_per_byte.to_dict()} | {name: getattr(self, name) for name in derived}
        )


def by_script(
    lm: ByteLM, documents: Sequence[bytes], evaluation: Evaluation, *, seed: int = 0, bootstrap: int = 1000
) -> list[ScriptFigures]:
    """Divide an evaluation by script, the script with the most bytes first.

    Args:
        lm: the model that was evaluated.
        documents: as they were evaluated; empty ones are passed over.
        evaluation: of them, by the protocol `documents`.
        seed: of the bootstrap.
        bootstrap: how many times to resample; 0 for no intervals.

    Raises:
        ConfigurationError: the evaluation is of windows, or of other documents.
    """
    read = [document for document in documents if document]
    check(evaluation.protocol == "documents", f"by script: needs the protocol documents, not {evaluation.protocol}")
    check(
        [len(document) for document in read] == evaluation.bytes_by_unit.tolist(),
        f"by script: the evaluation is not of these {len(read):,} documents",
    )
    scripts = np.array([script_of(document) for document in read])
    found = []
    for script in sorted(set(scripts.tolist())):
        units = scripts == script
        num_bytes, num_patches = evaluation.bytes_by_unit[units], evaluation.patches_by_unit[units]
        num_characters = sum(_count_characters(document) for document, is_of in zip(read, units, strict=True) if is_of)
        mean = float(num_bytes.sum() / num_patches.sum())
        cost = cost_of(
            lm.blt.config,
            mean_patch_bytes=max(1.0, mean),
            context_bytes=max(1, round(float(num_bytes.mean()))),
            entropy_model=None
            if lm.entropy_model is None or not lm.patch_rule.needs_entropies
            else lm.entropy_model.config,
        )
        found.append(
            ScriptFigures(
                script=script,
                num_documents=int(units.sum()),
                num_bytes=int(num_bytes.sum()),
                num_characters=num_characters,
                bits_per_byte=ratio(evaluation.bits_by_unit[units], num_bytes, resamples=bootstrap, seed=seed),
                mean_patch_bytes=mean,
                flops_per_character=cost.flops_with_entropy_model * int(num_bytes.sum()) / num_characters,
            )
        )
    return sorted(found, key=lambda figures: (-figures.num_bytes, figures.script))


def _count_characters(document: bytes) -> int:
    return len(document.decode("utf-8", "surrogateescape"))
