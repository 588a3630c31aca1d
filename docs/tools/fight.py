"""Tables of the equal fight: each function turns the results of its record into a header and rows."""

from collections.abc import Iterable
from typing import Any

Table = tuple[list[str], list[list[str]]]

NAMES = {
    "blt": "BLT",
    "bpe": "BPE",
    "flat": "flat bytes",
    "stories": "TinyStories",
    "python": "Python source",
    "languages": "528 languages",
}
KNOBS = {"blt": "{:g} bytes per patch", "bpe": "{:,.0f} ids", "flat": "window {:.0f}"}
PAIRS = ("other", "swapped")
RULES = {"entropy": "entropy", "entropy-rise": "rise of entropy", "static": "every n bytes", "space": "spaces"}


def verdict(results: dict[str, Any]) -> Table:
    """Who is lowest, text by text and budget by budget, and by how much."""
    rows = []
    for (corpus, budget), group in _groups(results["equal_training_flops"], "corpus", "budget"):
        best, *others = sorted(group, key=_bits)
        leads = [f"{NAMES[each['side']]} {_bits(each) - _bits(best):+.3f}" for each in others]
        rows.append([NAMES[corpus], _flops(budget), f"**{NAMES[best['side']]}**, {_bits(best):.3f}", ", ".join(leads)])
    return ["text", "training FLOPs", "lowest bits per byte", "the others"], rows


def training(results: dict[str, Any]) -> Table:
    """Bits per byte at equal training FLOPs."""
    rows = [
        [
            NAMES[row["corpus"]],
            _flops(row["budget"]),
            NAMES[row["side"]],
            _interval(row["bits_per_byte"]),
            _interval(row["over_seeds"]) if row["over_seeds"] else "",
            _signed(row.get("more_than_blt")),
            *_size(row),
        ]
        for row in results["equal_training_flops"]
    ]
    header = ["text", "training FLOPs", "side", "bits per byte, over documents", "mean over seeds"]
    return [*header, "more than BLT", "kFLOPs per byte", "parameters", "MB read"], rows


def forward(results: dict[str, Any]) -> Table:
    """Bits per byte at equal FLOPs per byte of inference."""
    return _otherwise(results["equal_forward_flops"])


def parameters(results: dict[str, Any]) -> Table:
    """Bits per byte at equal numbers of parameters."""
    return _otherwise(results["equal_parameters"])


def rules(results: dict[str, Any]) -> Table:
    """Patch rules at equal training FLOPs, the lowest first."""
    measured = [row for row in results["patch_rules"] if "bits_per_byte" in row]
    rows = [
        [
            _flops(row["budget"]),
            RULES[row["rule"]],
            f"{row['ids_per_patch']:.1f}",
            f"{row['bytes_read'] / 1e6:.2f}",
            _interval(row["bits_per_byte"]),
        ]
        for row in sorted(measured, key=lambda row: (row["budget"], _bits(row)))
    ]
    return ["training FLOPs", "rule", "ids per patch", "MB read", "bits per byte"], rows


def tuned(results: dict[str, Any]) -> Table:
    """What was chosen for each side, out of how many trials."""
    rows = []
    tried = [(NAMES[corpus], sides) for corpus, sides in results["tuned"].items()]
    for corpus, sides in results.get("tuned_for_larger_budgets", {}).items():
        tried.append((f"{NAMES[corpus]}, for 2e12 and more", sides))
    for text, sides in tried:
        for side, found in sides.items():
            chosen = found["chosen"]
            if chosen is not None:
                edges = ", ".join(found["at_the_edge"]) or "none"
                knob = KNOBS[side].format(chosen["knob"])
                trials = str(len(found["trials"]))
                rows.append([text, NAMES[side], trials, f"{chosen['rate']:g}", knob, str(chosen["size"]), edges])
    return ["text", "side", "trials", "rate", "its own knob", "size", "chosen at the edge of what was tried"], rows


def scripts(results: dict[str, Any]) -> Table:
    """Bits per byte and FLOPs per character by script."""
    rows = []
    for script, found in (results["any_language"] or {"by_script": {}})["by_script"].items():
        per_character = found["bytes"] / found["characters"]
        sides = [found["blt"], found["bpe"]]
        rows.append(
            [
                script,
                str(found["documents"]),
                f"{per_character:.2f}",
                *(_interval(side["bits_per_byte"]) for side in sides),
                *(f"{side['bytes_per_unit']:.2f}" for side in sides),
                *(f"{side['flops_per_character'] / 1e6:.2f}" for side in sides),
            ]
        )
    header = ["script", "documents", "bytes per character", "bits per byte, BLT", "bits per byte, BPE"]
    header += ["bytes per patch", "bytes per token", "MFLOPs per character, BLT", "MFLOPs per character, BPE"]
    return header, rows


def utf8(results: dict[str, Any]) -> Table:
    """The share of sampled continuations that are UTF-8."""
    rows = [
        [NAMES[side], kind, str(found["continuations"]), _interval(found["valid"], form=".0%")]
        for side, kinds in (results["any_language"] or {"valid_utf8": {}})["valid_utf8"].items()
        for kind, found in kinds.items()
    ]
    return ["side", "prompts", "continuations", "valid UTF-8"], rows


def noise(results: dict[str, Any]) -> Table:
    """What noise on prompt and continuation costs each side, in bits and in accuracy on minimal pairs."""
    sides = {
        side: {
            each["perturbation"]: each for each in [found["clean"], *found["noised"]] if each["place"] in (None, "both")
        }
        for side, found in (results.get("noise") or {"by_side": {}})["by_side"].items()
    }
    rows = []
    for kind in next(iter(sides.values()), []):
        row = [f"`{kind}`" if kind else "none"]
        for conditions in sides.values():
            told = conditions[kind]
            accuracy = told["lost" if kind else "accuracy"]
            row += [_interval(told["bits_per_clean_byte"]), *(_interval(accuracy[pair], form=".2f") for pair in PAIRS)]
        rows.append(row)
    header = [
        f"{NAMES[side]}: {what}" for side in sides for what in ("bits per clean byte", *(f"`{pair}`" for pair in PAIRS))
    ]
    return ["noise", *header], rows


TABLES = {
    "verdict": verdict,
    "training": training,
    "forward": forward,
    "parameters": parameters,
    "rules": rules,
    "tuned": tuned,
    "scripts": scripts,
    "utf8": utf8,
    "noise": noise,
}


def _otherwise(found: list[dict[str, Any]]) -> Table:
    rows = [
        [
            NAMES[row["corpus"]],
            NAMES[row["side"]],
            _interval(row["bits_per_byte"]),
            _signed(row.get("more_than_blt")),
            *_size(row),
            _flops(row["training_flops"]),
        ]
        for row in found
    ]
    header = ["text", "side", "bits per byte, over documents", "more than BLT"]
    return [*header, "kFLOPs per byte", "parameters", "MB read", "training FLOPs"], rows


def _groups(rows: list[dict[str, Any]], *keys: str) -> Iterable[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found.items()


def _bits(row: dict[str, Any]) -> float:
    bits: float = row["bits_per_byte"]["value"]
    return bits


def _size(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['forward_flops_per_byte'] / 1e3:,.0f}",
        f"{row['parameters'] / 1e6:.2f}M",
        f"{row['bytes_read'] / 1e6:.2f}",
    ]


def _flops(count: float) -> str:
    return f"{count:.3g}".replace("e+", "e")


def _interval(figure: dict[str, float | None], *, form: str = ".3f") -> str:
    """Write a figure and its interval; an interval of no width is that of one document, and says nothing."""
    low, high = figure["low"], figure["high"]
    interval = "" if low is None or low == high else f" ({low:{form}} to {high:{form}})"
    return f"{figure['value']:{form}}{interval}"


def _signed(figure: dict[str, float | None] | None) -> str:
    return "" if figure is None else _interval(figure, form="+.3f")
