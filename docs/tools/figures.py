"""Draw the figures of the documentation into `docs/images`, from the bundled model and the commands themselves.

    python docs/tools/figures.py

Each picture is a card with a background of its own and follows the reader's light or dark mode.
"""

import math
import subprocess
import sys
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

import blt
from blt.configuration import to_dict

IMAGES = Path(__file__).parents[1] / "images"
SENTENCE = "Lily saw a big red ball in the park."
COMMANDS = (
    ("blt", "generate", "--prompt", "Once upon a time", "--seed", "0"),
    ("blt", "patch", SENTENCE),
    ("blt", "verify"),
)
"""What the still of a run shows."""

_FONT = "font-family='ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace'"
_STYLE = """<style>
.card { fill: #ffffff; stroke: #d0d7de } .ink { fill: #1f2328 } .soft { fill: #59636e } .line { stroke: #59636e }
.a { fill: #cfe2ff } .b { fill: #ffe3bf } .open { fill: #eaeef2 } .bar { fill: #8c959f } .over { fill: #cf222e }
.mark { stroke: #cf222e } .block { fill: #e6f4ea; stroke: #4a9d66 } .big { fill: #e3e8fd; stroke: #5b6ee1 }
.side { fill: #fdeee2; stroke: #d98b45 } .head { fill: #59636e }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d } .ink { fill: #e6edf3 } .soft { fill: #9198a1 } .line { stroke: #9198a1 }
.a { fill: #1c3a66 } .b { fill: #5a3c12 } .open { fill: #262c36 } .bar { fill: #656c76 } .over { fill: #ff7b72 }
.mark { stroke: #ff7b72 } .block { fill: #12261a; stroke: #3f8f5b } .big { fill: #1b2147; stroke: #6e80f0 }
.side { fill: #2f2013; stroke: #c07a3a } .head { fill: #9198a1 } }
</style>"""


def picture(parts: list[str], *, width: int, height: int, title: str, description: str) -> str:
    """Return an SVG of that size around its parts."""
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'"
            f" role='img' {_FONT} font-size='13'>",
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            _STYLE,
            f"<rect class='card' x='0.5' y='0.5' width='{width - 1}' height='{height - 1}' rx='8'/>",
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, *, kind: str = "ink", anchor: str = "middle", size: int = 13) -> str:
    """Return a line of text."""
    return (
        f"<text class='{kind}' x='{x:g}' y='{y:g}' text-anchor='{anchor}' font-size='{size}' xml:space='preserve'>"
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, *, kind: str) -> str:
    """Return a rectangle."""
    return f"<rect class='{kind}' x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='4'/>"


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a line with a head at its second end."""
    angle = math.atan2(y2 - y1, x2 - x1)
    left, right = ((x2 - 7 * math.cos(angle + turn), y2 - 7 * math.sin(angle + turn)) for turn in (0.45, -0.45))
    head = f"{x2:g},{y2:g} {left[0]:.1f},{left[1]:.1f} {right[0]:.1f},{right[1]:.1f}"
    line = f"<line class='line' x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke-width='1.2'/>"
    return f"{line}<polygon class='head' points='{head}'/>"


def draw_patches(lm: blt.ByteLM) -> str:
    """Return the entropies after each byte of a sentence, the threshold, and the patches that follow."""
    shown = lm.patch(SENTENCE)
    threshold = to_dict(lm.patch_rule)["threshold"]
    cell, left, base, scale = 20, 54, 150, 36
    parts = [text(left - 8, base - 100, "nats", kind="soft", anchor="end", size=11)]
    for nats in (0, 1, 2):
        parts.append(text(left - 8, base - nats * scale + 4, str(nats), kind="soft", anchor="end", size=11))
    x = left
    for number, patch in enumerate(shown):
        letters = [""] if not patch.data else [letter if letter != " " else "␣" for letter in patch.text]
        kind = ("a", "b")[number % 2] if patch.is_complete else "open"
        width = cell * len(letters)
        parts.append(box(x + 1, base + 12, width - 2, 28, kind=kind))
        for index, (letter, nats) in enumerate(zip(letters, patch.entropies, strict=True)):
            over = "over" if nats > threshold else "bar"
            parts.append(box(x + index * cell + 5, base - nats * scale, cell - 10, max(1, nats * scale), kind=over))
            parts.append(text(x + (index + 0.5) * cell, base + 31, letter, size=14))
        if not patch.data:
            parts.append(text(x + width / 2, base + 29, "BOS", size=9))
        else:
            words = f"patch {number}" if patch.is_complete else "open"
            parts.append(text(x + width / 2, base + 58, words if width > 55 else str(number), kind="soft", size=11))
        x += width
    at = base - threshold * scale
    parts.append(f"<line class='mark' x1='{left}' y1='{at:.1f}' x2='{x}' y2='{at:.1f}' stroke-dasharray='5 4'/>")
    parts.append(text(x + 6, at + 4, f"θ = {threshold:.2f}", anchor="start", size=12))
    title = "Where the entropy of the next byte exceeds the threshold, a patch ends"
    parts.insert(0, text(left, 26, title, anchor="start", size=14))
    note = "Bar: entropy of the next byte, after that byte has been read. ␣ is a space. Bundled model."
    parts.append(text(left, base + 84, note, kind="soft", anchor="start", size=11))
    described = "|".join(patch.text for patch in shown)
    return picture(parts, width=int(x + 90), height=base + 102, title=title, description=f"Patches: {described}")


_WORDS = ("big ", "red ", "ball ", "i")
"""Patches of the drawn architecture; the last one is open."""
_CELL, _LEFT = 34, 300
_RIGHT = _LEFT + _CELL * sum(map(len, _WORDS))
_Y = {"bytes": 560, "encoder": 470, "pool": 390, "global": 300, "latents": 240, "decoder": 140, "next": 62}
"""Where each row of the drawn architecture is."""


def draw_architecture() -> str:
    """Return the parts of a BLT and what flows between them."""
    title = "Byte Latent Transformer: the large transformer runs once per patch"
    parts = [text(24, 30, title, anchor="start", size=15)]
    for number in range(len(_WORDS)):
        parts += _bytes_of(number)
        if number < len(_WORDS) - 1:
            parts += _complete_patch(number)
    return picture(
        [*parts, *_blocks(), *_beside()],
        width=_RIGHT + 96,
        height=612,
        title="Architecture of the Byte Latent Transformer",
        description="Bytes enter the local encoder; each complete patch is pooled into a patch state; the global "
        "transformer turns patch states into latents; the local decoder lets each byte read its newest complete patch "
        "and predicts the next byte. An entropy model and a patch rule decide where patches end.",
    )


def _start(number: int) -> int:
    return _LEFT + _CELL * sum(map(len, _WORDS[:number]))


def _kind(number: int) -> str:
    return "open" if number == len(_WORDS) - 1 else ("a", "b")[number % 2]


def _bytes_of(number: int) -> list[str]:
    """Return the bytes of a patch, on their way into the encoder, and what is predicted after each."""
    sentence = "".join(_WORDS).replace(" ", "␣") + "n"
    first = sum(map(len, _WORDS[:number]))
    parts = [box(_start(number) + 1, _Y["bytes"], _CELL * len(_WORDS[number]) - 2, 30, kind=_kind(number))]
    for index in range(first, first + len(_WORDS[number])):
        centre = _LEFT + (index + 0.5) * _CELL
        parts += [text(centre, _Y["bytes"] + 20, sentence[index], size=15), arrow(centre, _Y["bytes"] - 3, centre, 521)]
        parts.append(text(centre, _Y["next"] + 16, sentence[index + 1], size=15))
        parts.append(arrow(centre, _Y["decoder"] - 3, centre, 86))
    return parts


def _complete_patch(number: int) -> list[str]:
    """Return a patch's way from its bytes through the global transformer to the bytes that read it."""
    start, length, kind = _start(number), len(_WORDS[number]), _kind(number)
    at = start + _CELL * length / 2
    parts = [arrow(start + (index + 0.5) * _CELL, _Y["encoder"] - 2, at, _Y["pool"] + 27) for index in range(length)]
    parts += [box(at - 17, _Y["pool"], 34, 24, kind=kind), box(at - 17, _Y["latents"], 34, 24, kind=kind)]
    parts.append(arrow(at, _Y["pool"] - 2, at, _Y["global"] + 43))
    parts.append(arrow(at, _Y["global"] - 2, at, _Y["latents"] + 27))
    # The byte that ends the patch reads it, and so do those of the next patch but the one that ends that one.
    num_readers = len(_WORDS[number + 1]) + (_kind(number + 1) == "open")
    for step in range(num_readers):
        byte = start + (length - 0.5 + step) * _CELL
        parts.append(arrow(at, _Y["latents"] - 2, byte, _Y["decoder"] + 53))
    return parts


def _blocks() -> list[str]:
    """Return the three stacks of layers, and the names of what flows between them."""
    reads = "cross-attention to the newest complete patch, windowed self-attention"
    blocks = (
        ("encoder", 48, "block", "local encoder", "hash n-grams, windowed self-attention"),
        ("global", 40, "big", "global transformer", "causal over patches; most parameters"),
        ("decoder", 50, "block", "local decoder", reads),
    )
    middle, parts = (_LEFT + _RIGHT) / 2, []
    for name, height, kind, label, note in blocks:
        parts += [box(_LEFT, _Y[name], _RIGHT - _LEFT, height, kind=kind), text(middle, _Y[name] + 19, label, size=14)]
        parts.append(text(middle, _Y[name] + 35, note, kind="soft", size=10))
    rows = (("bytes", "bytes"), ("pool", "patch states"), ("latents", "latents"), ("next", "next bytes"))
    return [*parts, *(text(_LEFT - 12, _Y[row] + 17, label, kind="soft", anchor="end", size=12) for row, label in rows)]


def _beside() -> list[str]:
    """Return the entropy model and the patch rule at the left, and the encoder's states on their way at the right."""
    return [
        box(24, 470, 150, 48, kind="side"),
        text(99, 490, "entropy model"),
        text(99, 507, "small byte LM", kind="soft", size=10),
        box(24, 390, 150, 40, kind="side"),
        text(99, 407, "patch rule"),
        text(99, 422, "H > θ", kind="soft", size=10),
        text(99, 382, "where patches end", kind="soft", size=10),
        arrow(99, 468, 99, 433),
        f"<path class='line' d='M {_LEFT - 60} 575 H 99 V 521' fill='none'/>",
        arrow(99, 530, 99, 521),
        arrow(176, 410, _LEFT - 108, 410),
        f"<path class='line' d='M {_RIGHT + 2} 494 H {_RIGHT + 24} V 165 H {_RIGHT + 18}' fill='none'/>",
        arrow(_RIGHT + 20, 165, _RIGHT + 3, 165),
        text(_RIGHT + 32, 330, "byte", kind="soft", anchor="start", size=11),
        text(_RIGHT + 32, 345, "states", kind="soft", anchor="start", size=11),
    ]


def draw_run() -> str:
    """Return a terminal with commands and what they print."""
    lines: list[tuple[str, str]] = []
    for command in COMMANDS:
        shown = " ".join(f'"{word}"' if " " in word else word for word in command)
        lines.append(("soft", f"$ {shown}"))
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True)
        for line in done.stdout.rstrip("\n").splitlines():
            lines += [("ink", part.plain) for part in Text(line).wrap(Console(width=92), 92)] or [("ink", "")]
        lines.append(("ink", ""))
    parts = [text(16, 30 + 19 * number, line, kind=kind, anchor="start") for number, (kind, line) in enumerate(lines)]
    title = "A story, the patches of a sentence, and the laws on the bundled model"
    described = "\n".join(line for _, line in lines)
    return picture(parts, width=760, height=30 + 19 * len(lines), title=title, description=described)


def main() -> None:
    """Write every figure."""
    lm = blt.ByteLM.from_pretrained()
    for name, drawn in (("patches", draw_patches(lm)), ("architecture", draw_architecture()), ("run", draw_run())):
        (IMAGES / f"{name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
