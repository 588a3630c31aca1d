"""Patches of a text as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

import html
from collections.abc import Iterator

from blt.inspection.patch_view import Glyph, PatchView, glyphs

CURVE_WIDTH, CURVE_HEIGHT, LEFT, TOP = 960.0, 130.0, 34.0, 6.0
MAX_POINTS = 480
"""Points of the curve; where there are more bytes, each stands for the highest of several."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfaf7; --ink: #1d2430; --quiet: #5c6675; --line: #d9d5cb;
  --even: #e3ecf7; --odd: #f6e9d8; --sure: #cdbfae; --unsure: #c2452f; --threshold: #3b5bdb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181f; --ink: #e8eaee; --quiet: #9aa5b4; --line: #333b47;
    --even: #22324a; --odd: #40324e; --sure: #5d6878; --unsure: #ff8a66; --threshold: #8fb0ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0 0 1.5rem; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1.5rem; }
figcaption, .legend { color: var(--quiet); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--line); }
.patch-end { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke: var(--unsure); stroke-width: 1.5; stroke-linejoin: round; }
.area { fill: var(--unsure); opacity: .14; }
.threshold { stroke: var(--threshold); stroke-width: 1.25; stroke-dasharray: 5 4; }
.text { font: 1.05rem/1 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; line-height: 3.1;
  overflow-wrap: anywhere; white-space: pre-wrap; margin: 1rem 0; }
.patch { background: var(--even); border-radius: .2rem; padding: .18em 0; margin-right: 1px;
  -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.patch:nth-child(even) { background: var(--odd); }
.patch.open { outline: 1px dashed var(--quiet); }
.g { --bar: var(--sure); padding-top: 1.35em;
  background: linear-gradient(var(--bar), var(--bar)) left bottom 1.4em / 100% calc(var(--h) * 1.1em) no-repeat; }
.above { --bar: var(--unsure); }
.sign { color: var(--quiet); }
.swatch { display: inline-block; width: 1.4em; height: .9em; border-radius: .2rem; vertical-align: -.1em; }
"""


def html_page(view: PatchView, *, title: str) -> str:
    """Write the page.

    Args:
        view: the patches.
        title: what the text is called, such as a file's name.
    """
    figures = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in view.figures().items()
    )
    body = "".join(_patch(view, number) for number in range(len(view.patches)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Patches: {html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Patches: {html.escape(title)}</h1>
<dl>{figures}</dl>
{_curve(view) if view.entropies else ""}
{_legend(view)}
<div class="text" role="group" aria-label="The text in patches">{body}</div>
</main>
</body>
</html>
"""


def _patch(view: PatchView, number: int) -> str:
    patch = view.patches[number]
    inner = "".join(_glyph(view, glyph) for glyph in glyphs(patch))
    return f'<span class="patch{"" if patch.is_complete else " open"}">{inner}</span>'


def _glyph(view: PatchView, glyph: Glyph) -> str:
    """Return one glyph, with its bar above it and its bytes and entropies as a tooltip."""
    shown = html.escape(glyph.text)
    if glyph.is_sign:
        shown = f'<span class="sign">{shown}</span>'
    tooltip = f"byte{'s' if len(glyph.data) > 1 else ''} {glyph.data.hex(' ')}"
    kind, bar = "g", ""
    if glyph.entropies:
        tooltip += ", then " + ", ".join(f"{value:.2f}" for value in glyph.entropies) + " nats"
        bar = f' style="--h:{glyph.highest / view.highest_entropy:.3f}"'
        kind = "g above" if glyph.highest > (view.shown_threshold or 0.0) else "g"
    newline = "\n" if glyph.data == b"\n" else ""
    return f'<span class="{kind}"{bar} title="{tooltip}">{shown}</span>{newline}'


def _legend(view: PatchView) -> str:
    parts = [
        f"Patches have one of two colours by turns ({_swatch('even')} {_swatch('odd')}); "
        "a dashed outline marks one that is still open."
    ]
    if view.entropies:
        parts.append(
            "The bar above a character says how uncertain the model is, once it has read it, about the byte that "
            "follows; rest the pointer on it for the figure."
        )
    if view.shown_threshold is not None:
        parts.append(f"Above the threshold {_swatch('unsure')}, else {_swatch('sure')}.")
    parts.append("⏎ is a line feed, ⇥ a tab, and ⟨e2⟩ a byte that is no whole character within its patch.")
    return f'<p class="legend">{" ".join(parts)}</p>'


def _swatch(colour: str) -> str:
    return f'<span class="swatch" style="background:var(--{colour})"></span>'


def _curve(view: PatchView) -> str:
    """Draw the entropies of the whole text, the threshold and, where they can be told apart, the patch ends."""
    entropies, right, floor = view.entropies, CURVE_WIDTH, CURVE_HEIGHT - 12
    step = -(-len(entropies) // MAX_POINTS)

    def x(byte: float) -> float:
        return LEFT + (right - LEFT) * (byte + 0.5) / len(entropies)

    def y(entropy: float) -> float:
        return floor - (floor - TOP) * entropy / view.highest_entropy

    drawn = [
        _line("grid", LEFT, floor, right, floor),
        _label(floor, "0"),
        _label(TOP + 8, f"{view.highest_entropy:.1f}"),
    ]
    if len(view.patches) <= MAX_POINTS // 2:
        drawn += [_line("patch-end", x(end + 0.5), TOP, x(end + 0.5), floor) for end in _ends(view)]
    chunks = [(start, entropies[start : start + step]) for start in range(0, len(entropies), step)]
    points = [(x(start + (len(chunk) - 1) / 2), y(max(chunk))) for start, chunk in chunks]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    drawn.append(f'<polygon class="area" points="{points[0][0]:.1f},{floor:g} {path} {points[-1][0]:.1f},{floor:g}"/>')
    drawn.append(f'<polyline class="curve" points="{path}"/>')
    says = "Entropy of the next byte, in nats, along the text"
    if view.shown_threshold is not None and view.shown_threshold >= 0:
        height = y(view.shown_threshold)
        drawn.append(_line("threshold", LEFT, height, right, height))
        says += f"; dashed: the threshold, {view.shown_threshold:.2f}"
    if step > 1:
        says += f"; each point is the highest of {step} bytes"
    inner = "\n".join(drawn)
    return f"""<figure>
<svg viewBox="0 0 {CURVE_WIDTH:g} {CURVE_HEIGHT:g}" role="img" aria-label="{says}">
{inner}
</svg>
<figcaption>{says}.</figcaption>
</figure>"""


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _label(height: float, text: str) -> str:
    return f'<text x="{LEFT - 6}" y="{height:.1f}" text-anchor="end">{text}</text>'


def _ends(view: PatchView) -> Iterator[int]:
    """Return the last byte of each complete patch."""
    position = -1
    for patch in view.patches:
        position += len(patch.data)
        if patch.is_complete:
            yield position
