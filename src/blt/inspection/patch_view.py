"""How a text falls into patches, as a person reads it, and as the terminal shows it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from rich.console import Console
from rich.style import Style
from rich.text import Text

from blt.codec import encode, to_bytes
from blt.configuration import to_dict
from blt.errors import DataError
from blt.inspection.reading import read
from blt.lm import LanguageModel, ShownPatch, require_finite

NAMED = {"\n": "⏎", "\t": "⇥"}
"""Characters that print as nothing, and a sign for each."""
BACKGROUNDS = ("#1b2636", "#3a2f4d")
"""Of patches, by turns."""
COOL, WARM, HOT = (0xC9, 0xD6, 0xE3), (0xFF, 0xC8, 0x57), (0xFF, 0x6B, 0x5B)
"""Of glyphs: sure, uncertain, most uncertain."""
SEPARATOR = "│"
"""Between patches where there are no colours."""


@dataclass(frozen=True)
class Glyph:
    """What is shown as one thing: a character that lies within a patch, or a single byte that is part of none."""

    data: bytes
    """Its bytes."""
    text: str
    """What is shown: the character, a sign for one that does not print, or the byte in hexadecimal, ⟨e2⟩."""
    is_sign: bool
    """Whether what is shown stands for something else."""
    entropies: tuple[float, ...]
    """Uncertainty about the byte after each of its bytes, in nats; empty without an entropy model."""


@dataclass(frozen=True)
class PatchView:
    """A text in patches, with the figures that describe them."""

    patches: tuple[ShownPatch, ...]
    """Those that hold bytes; BOS, which ends a patch of its own, is left out."""
    start_entropy: float | None
    """Uncertainty about the first byte, in nats."""
    rule: dict[str, Any]
    """The patch rule, as `config.json` holds it."""
    num_bytes_left_out: int
    """Bytes of the text that were not read."""
    surprise: tuple[float, ...] = ()
    """Bits that each byte costs, given those before it; empty where it was not asked for."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all patches."""
        return sum(len(patch.data) for patch in self.patches)

    @property
    def mean_patch_bytes(self) -> float:
        """Bytes per patch, the open one counted too."""
        return self.num_bytes / len(self.patches)

    @property
    def threshold(self) -> float | None:
        """θ, in nats, where the rule has one."""
        return self.rule.get("threshold")

    @cached_property
    def entropies(self) -> list[float]:
        """After every byte of the text, in nats; empty without an entropy model."""
        return [value for patch in self.patches for value in patch.entropies]

    @property
    def heat(self) -> Sequence[float]:
        """What colours each byte in the terminal: its surprise if there is one, else the entropy after it."""
        return self.surprise or self.entropies

    def figures(self) -> dict[str, str]:
        """Describe the patches in words and figures, by name."""
        lengths = sorted(len(patch.data) for patch in self.patches)
        figures = {
            "patches": f"{len(self.patches):,}",
            "bytes": f"{self.num_bytes:,}",
            "mean": f"{self.mean_patch_bytes:.2f} bytes per patch",
            "longest": f"{lengths[-1]:,}",
            "rule": describe_rule(self.rule),
        }
        if self.entropies:
            mean = math.fsum(self.entropies) / len(self.entropies)
            figures["entropy"] = f"mean {mean:.2f}, highest {max(self.entropies):.2f} nats"
        if self.surprise:
            figures["surprise"] = f"mean {math.fsum(self.surprise) / len(self.surprise):.2f} bits per byte"
        if self.num_bytes_left_out:
            figures["left out"] = f"the last {self.num_bytes_left_out:,} bytes"
        return figures

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `hex` holds the bytes as they are, `text` has U+FFFD for what is no UTF-8."""
        starts = itertools.accumulate((len(patch.data) for patch in self.patches), initial=0)
        return {
            "num_bytes": self.num_bytes,
            "num_patches": len(self.patches),
            "mean_patch_bytes": self.mean_patch_bytes,
            "threshold": self.threshold,
            "rule": self.rule,
            "num_bytes_left_out": self.num_bytes_left_out,
            "start_entropy": self.start_entropy,
            "patches": [
                {
                    "text": patch.text,
                    "hex": patch.data.hex(),
                    "entropies": list(patch.entropies),
                    "is_complete": patch.is_complete,
                }
                | ({"surprise": list(self.surprise[start : start + len(patch.data)])} if self.surprise else {})
                for start, patch in zip(starts, self.patches, strict=False)
            ],
        }


def view_patches(
    lm: LanguageModel, text: str | bytes, *, limit: int | None = None, with_surprise: bool = False
) -> PatchView:
    """Divide a text into patches, as one document without its end.

    Args:
        lm: the model, with the patch rule to be shown.
        text: anything but nothing.
        limit: read this many bytes at most; None means all.
        with_surprise: measure what each byte costs, too, which runs the whole model.

    Raises:
        DataError: the text is empty.
        ConfigurationError: the rule needs entropies, and the model has no entropy model.
        ModelFolderError: the entropies are no numbers.
    """
    data = to_bytes(text)
    if not data:
        raise DataError("the text is empty; give at least one byte")
    kept = data if limit is None else data[:limit]
    bos, *patches = lm.patch(kept)
    require_finite(torch.tensor([value for one in (bos, *patches) for value in one.entropies]), "entropies")
    assert not bos.data, f"BOS shares a patch with {bos.data!r}"
    assert sum(len(patch.data) for patch in patches) == len(encode(kept)), "patches do not partition the text"
    return PatchView(
        patches=tuple(patches),
        start_entropy=bos.entropies[0] if bos.entropies else None,
        rule=to_dict(lm.patch_rule),
        num_bytes_left_out=len(data) - len(kept),
        surprise=read(lm, kept, num_alternatives=0).surprise if with_surprise else (),
    )


def describe_rule(rule: dict[str, Any]) -> str:
    """Name a rule and its settings on one line."""
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in rule.items()
        if name != "type"
    )
    return f"{rule['type']} ({settings})" if settings else str(rule["type"])


def glyphs(patch: ShownPatch) -> Iterator[Glyph]:
    """Cut a patch into what is shown; a character whose bytes all lie in the patch stays whole."""
    start = 0
    while start < len(patch.data):
        character = _character_at(patch.data, start)
        stop = start + max(1, len(character.encode()))
        data = patch.data[start:stop]
        text = _shown(character) if character else f"⟨{data.hex()}⟩"
        yield Glyph(data=data, text=text, is_sign=text != character, entropies=patch.entropies[start:stop])
        start = stop


def _character_at(data: bytes, start: int) -> str:
    """Return the character that starts there, or the empty string for bytes that are none."""
    for length in (1, 2, 3, 4):
        try:
            return data[start : start + length].decode()
        except UnicodeDecodeError:
            continue
    return ""


def _shown(character: str) -> str:
    """Return a character, or a sign for one that would not be seen or would steer the terminal."""
    if character in NAMED:
        return NAMED[character]
    if character.isprintable():
        return character
    return f"⟨{character.encode().hex()}⟩" if ord(character) < 0x80 else f"⟨U+{ord(character):04X}⟩"


def colour_of(share: float) -> tuple[int, int, int]:
    """Return the colour of a heat between 0 and 1, red, green and blue."""
    share = min(max(share, 0.0), 1.0)
    low, high, part = (COOL, WARM, share * 2) if share < 0.5 else (WARM, HOT, share * 2 - 1)
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return red, green, blue


def print_patches(view: PatchView, console: Console, *, show_spaces: bool = False) -> None:
    """Show patches in alternating colours, each character as warm as the view's heat says.

    Without colours, or with too few of them, a bar stands between patches.
    """
    has_colours = console.is_terminal and not console.no_color and console.color_system in ("256", "truecolor")
    shown = Text(overflow="fold", no_wrap=not console.is_terminal)
    highest, start = max([*view.heat, 1e-3]), 0
    for number, patch in enumerate(view.patches):
        if number and not has_colours:
            shown.append(SEPARATOR)
        for glyph in glyphs(patch):
            text = "·" if show_spaces and glyph.data == b" " else glyph.text
            heat = max(view.heat[start : start + len(glyph.data)], default=0.0) / highest
            shown.append(text, style=_style(heat, number, glyph) if has_colours else None)
            start += len(glyph.data)
            if glyph.data == b"\n":
                shown.append("\n")
    console.print(shown, soft_wrap=not console.is_terminal, highlight=False)
    console.print()
    if has_colours and view.heat:
        console.print(_legend(view, highest=highest))
    line = "; ".join(f"{name}: {value}" for name, value in view.figures().items())
    console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def _style(heat: float, number: int, glyph: Glyph) -> Style:
    red, green, blue = colour_of(heat)
    background = BACKGROUNDS[number % 2]
    return Style(color=f"rgb({red},{green},{blue})", bgcolor=background, dim=False, italic=glyph.is_sign)


def _legend(view: PatchView, *, highest: float) -> Text:
    legend = Text("surprise at the byte: " if view.surprise else "uncertain about the next byte: ")
    for step in range(9):
        red, green, blue = colour_of(step / 8)
        style = Style(color=f"rgb({red},{green},{blue})", bgcolor=BACKGROUNDS[0])
        legend.append(f" {highest * step / 8:.1f} ", style=style)
    legend.append(" bits" if view.surprise else " nats")
    return legend
