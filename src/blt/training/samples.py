"""Samples: what a model writes, shown at each validation, so that a reader sees it learn."""

import re
from pathlib import Path

from blt.api import ByteLM
from blt.checkpoint import write_file
from blt.generation import generate

SAMPLE_BYTES = 300
TEMPERATURE = 0.7
_HEADER = re.compile(r"--- step ([\d,]+): held-out \S+ bits per byte")


def write_sample(lm: ByteLM, path: Path, *, prompt: str, seed: int, step: int, bits_per_byte: float) -> str:
    """Continue a prompt, and add the text to a file; the random numbers of training stay as they are.

    Returns:
        The prompt and its continuation.
    """
    story = _printable(generate(lm, prompt, max_new_bytes=SAMPLE_BYTES, temperature=TEMPERATURE, seed=seed).text)
    before = path.read_bytes() if path.is_file() else b""
    # Not appended: a kill within the heading would leave a line that is no heading, and stays when the run is resumed.
    sample = f"--- step {step:,}: held-out {bits_per_byte:.4f} bits per byte\n{story}\n"
    write_file(path, before + sample.encode())
    return story


def drop_samples_after(path: Path, *, step: int) -> None:
    """Drop the samples of steps after the one that a run goes on from, and those that stand there twice."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    samples: dict[int, list[str]] = {}
    number = 0
    for line in text.splitlines(keepends=True):
        if header := _HEADER.fullmatch(line.rstrip("\n")):
            number = int(header[1].replace(",", ""))
            samples[number] = []
        samples.setdefault(number, []).append(line)
    kept = "".join("".join(lines) for number, lines in samples.items() if number <= step)
    if kept != text:
        write_file(path, kept.encode())


def _printable(text: str) -> str:
    """Show U+FFFD for control characters: a model that has learnt little writes them, and terminals obey them."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
