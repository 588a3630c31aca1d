"""`blt plot`: curves of runs, or patch lengths and entropies of texts, as a picture."""

import io
import warnings
from pathlib import Path
from typing import Any, get_args

import click

from blt.checkpoint import PICTURE, check_output, write_output
from blt.cli.options import device_option, model_option, refuse_unread
from blt.cli.types import Count, Name, Number
from blt.errors import ConfigurationError, MissingExtraError
from blt.training.run_curves import AXES, Axis, Stage, draw_runs, label_of, read_curve

OF_RUNS = ("along", "stage", "mean_patch")
OF_TEXTS = ("model", "limit", "device")


@click.command()
@click.argument("things", metavar="RUN...|TEXT...", nargs=-1, required=True, type=Name())
@click.option("--out", type=Name(), required=True, metavar="FILE", help="Picture to write: .png or .svg.")
@click.option(
    "--x", "along", type=click.Choice(tuple(AXES)), default="bytes", show_default=True,
    help="Of runs: what the curves run along.",
)  # fmt: skip
@click.option(
    "--stage", type=click.Choice(get_args(Stage)), default="blt", show_default=True, help="Of runs: which stage."
)
@click.option(
    "--mean-patch", type=Number(min=1), metavar="BYTES",
    help="Of runs, with --x flops: bytes per patch; what the recipe asks for if not given.",
)  # fmt: skip
@model_option
@click.option("--limit", type=Count(), default=65536, show_default=True, help="Of texts: bytes to read at most.")
@device_option
@click.pass_context
def plot(
    context: click.Context,
    /,
    things: tuple[str, ...],
    out: str,
    along: Axis,
    stage: Stage,
    mean_patch: float | None,
    model: str | None,
    limit: int,
    device: str,
) -> None:
    """Draw runs, or texts, as a PNG or SVG.

    Of run folders of `blt train`: bits per byte, in training and on held-out text, all in one picture. Of texts (a file
    of that name if there is one, else the text itself; - reads standard input): how long patches are, how high the
    entropies are, and of a single text the entropies along it.
    """
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in PICTURE.suffixes:
        raise ConfigurationError(f"--out {out}: give a name that ends in .png or .svg")
    _require_matplotlib()
    are_runs = {_is_folder(thing) for thing in things}
    if len(are_runs) > 1:
        raise ConfigurationError("runs and texts do not go into one picture; draw two")
    sources = [] if are_runs == {True} else [Path(thing) for thing in things]
    check_output(path, PICTURE, sources=sources)
    if are_runs == {True}:
        refuse_unread(context, *OF_TEXTS, unless=False, reason="is for texts, and these are run folders")
        if along != "flops":
            refuse_unread(context, "mean_patch", unless=False, reason="is for --x flops")
        names = _names(things)
        curves = [
            read_curve(Path(thing), stage=stage, along=along, name=name, mean_patch_bytes=mean_patch)
            for thing, name in zip(things, names, strict=True)
        ]
        figure = draw_runs(curves, along=along)
    else:
        refuse_unread(context, *OF_RUNS, unless=False, reason="is for run folders, and there is none of that name")
        figure = _draw_texts(things, model=model, device=device, limit=limit)
    write_output(path, _picture(figure, suffix), PICTURE, sources=sources)
    click.echo(out)


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", extra="track", purpose="blt plot") from None


def _draw_texts(texts: tuple[str, ...], *, model: str | None, device: str, limit: int) -> Any:
    from blt.api import ByteLM
    from blt.cli.patch import read_text_or_file
    from blt.inspection import view_patches
    from blt.inspection.text_plot import draw_texts

    read = [read_text_or_file(text) for text in texts]
    lm = ByteLM.from_pretrained(model, device=device)
    views = {}
    for data, title in read:
        numbers = (f"{title} ({number})" for number in range(2, len(read) + 2))
        name = title if title not in views else next(name for name in numbers if name not in views)
        views[name] = view_patches(lm, data, limit=limit)
    return draw_texts({label_of(name): view for name, view in views.items()})


def _is_folder(thing: str) -> bool:
    try:
        return Path(thing).is_dir()
    except (OSError, ValueError):  # a text that no path can be
        return False


def _names(folders: tuple[str, ...]) -> list[str]:
    """Return short names that tell runs apart: the folders' own, or as they were given where two are the same."""
    names = [Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(folders)


def _picture(figure: Any, suffix: str) -> bytes:
    """Return a figure as a file's content, the same bytes whenever it is drawn."""
    from matplotlib import rc_context

    target = io.BytesIO()
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "blt", "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(target, format=suffix[1:], dpi=120, metadata=metadata)
    return target.getvalue()
