"""Samples: what a model writes, shown at each validation, so that a reader sees it learn."""

from pathlib import Path

from blt.generation import generate
from blt.lm import ByteLM

SAMPLE_BYTES = 300
TEMPERATURE = 0.7


def write_sample(lm: ByteLM, path: Path, *, prompt: str, seed: int, step: int, bits_per_byte: float) -> str:
    """Continue a prompt, and add the text to a file; the random numbers of training stay as they are.

    Returns:
        The prompt and its continuation.
    """
    story = _printable(generate(lm, prompt, max_new_bytes=SAMPLE_BYTES, temperature=TEMPERATURE, seed=seed).text)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"--- step {step:,}: held-out {bits_per_byte:.4f} bits per byte\n{story}\n")
    return story


def _printable(text: str) -> str:
    """Show U+FFFD for control characters: a model that has learnt little writes them, and terminals obey them."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
