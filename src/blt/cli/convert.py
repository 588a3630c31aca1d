"""`blt convert`: weights from and to other software."""

from pathlib import Path
from typing import Any

import click
import torch

from blt.api import ByteLM
from blt.checkpoint import check_replaceable, load_headers, load_json
from blt.cli.types import Dtype, Name
from blt.codec import encode
from blt.errors import ConfigurationError, ModelFolderError
from blt.interop import last_byte_note, read_published, read_transformers, write_transformers
from blt.interop.transformers_blt import TRANSFORMERS_FOLDER
from blt.lm import require_finite_model
from blt.lm.finite import PARAGRAPH
from blt.lm.folder import FORMAT, MODEL_FOLDER, download
from blt.lm.language_model import LOADED_AS

FORMATS = ("blt", "transformers")


@click.command()
@click.argument("source", type=Name())
@click.option(
    "--out",
    type=Name(),
    required=True,
    metavar="FOLDER",
    help="Where to write; replaced if blt wrote it.",
)
@click.option("--to", "target", type=click.Choice(FORMATS), help="Form to write; by default the one SOURCE has not.")
@click.option(
    "--entropy", type=Name(), metavar="FOLDER", help="Entropy model of a published model, such as facebook/blt-entropy."
)
@click.option(
    "--dtype",
    type=Dtype(*LOADED_AS),
    metavar="|".join(LOADED_AS),
    help="Of the weights that are written for blt; by default the one of SOURCE. int8 and int4: of the matrices alone.",
)
def convert(source: str, out: str, target: str | None, entropy: str | None, dtype: str | None) -> None:
    """Turn a model folder of other software into one of blt, or back.

    SOURCE is a folder or a name on the Hub: a transformers BltForCausalLM (config.json and safetensors), a model as
    facebookresearch/blt publishes it, such as facebook/blt-1b, or a model of blt, which --dtype stores otherwise. What
    was written is read back, and its logits and patches compared with those of SOURCE's weights.
    """
    folder = download(source)
    entropy_folder = None if entropy is None else download(entropy)
    sources = [used for used in (folder, entropy_folder) if used is not None]
    found = _format_of(folder)
    target = target or ("transformers" if found == "blt" and dtype is None else "blt")
    if dtype is not None and target != "blt":
        raise ConfigurationError(f"--dtype: {dtype} is for models of blt; leave it out, or leave --to out")
    check_replaceable(out, MODEL_FOLDER if target == "blt" else TRANSFORMERS_FOLDER, sources=sources)
    if (found == "published") != (entropy is not None):
        raise ModelFolderError(
            f"{source}: is in published form, whose entropy model is a folder of its own; name it with --entropy"
            if entropy is None
            else f"{source}: is in the form of {found}, which has its entropy model within; leave --entropy out"
        )
    if target == found and dtype is None:
        raise ModelFolderError(f"{source}: is in the form of {found} already; choose another with --to")
    told: list[str] = []
    if found == "blt":
        lm = ByteLM.from_pretrained(folder, dtype=_stored_dtype(folder))
    else:
        is_theirs = found == "transformers"
        tell = told.append
        lm = (
            read_transformers(folder, tell=tell)
            if is_theirs
            else read_published(folder, entropy=entropy_folder, tell=tell)
        )
    require_finite_model(lm, PARAGRAPH)
    if target == "blt":
        lm.save_pretrained(out, dtype=dtype)
        lines, written = last_byte_note(lm.config), ByteLM.from_pretrained(out, dtype=dtype or _dtype(lm))
    else:
        lines, written = write_transformers(lm, out, sources=sources), read_transformers(out)
    click.echo(f"wrote        {out}, for {target}")
    click.echo(f"read back    {_comparison(lm, written)}")
    for line in (*told, *lines):
        click.echo(f"note         {line}")


def _format_of(folder: Path) -> str:
    values: dict[str, Any] = load_json(folder / "config.json")
    if values.get("format") == FORMAT:
        return "blt"
    if values.get("model_type") == "blt":
        return "transformers"
    if isinstance(values.get("args"), dict):
        return "published"
    raise ModelFolderError(
        f"{folder / 'config.json'}: no model of blt (format {FORMAT!r}), of transformers (model_type 'blt') or as "
        f"published (a table 'args'), but of model_type {values.get('model_type')!r}"
    )


def _stored_dtype(folder: Path) -> str:
    """Return the precision of a model folder of ours: bfloat16 if it was saved so."""
    stored = {header.dtype for header in load_headers(folder / "model.safetensors").values()}
    return "bfloat16" if stored == {"BF16"} else "float32"


def _dtype(lm: ByteLM) -> str:
    return str(lm.blt.hash_embedding.bytes.weight.dtype).removeprefix("torch.")


@torch.inference_mode()
def _comparison(lm: ByteLM, written: ByteLM) -> str:
    """Compare what two models make of a paragraph, in float32 whatever they are stored in: it is weights that count."""
    lm, written = lm.to_type("float32"), written.to_type("float32")
    byte_ids = encode(PARAGRAPH, bos=True)[None]
    patches, others = lm.patches(byte_ids), written.patches(byte_ids)
    deviation = float((lm.blt(byte_ids, patches) - written.blt(byte_ids, patches)).abs().max())
    num_other = int((patches.ends != others.ends).sum())
    same = "the same patches" if num_other == 0 else f"{num_other} other patch ends"
    return f"{same}, logits differ by at most {deviation:.2g}, on {byte_ids.shape[1]} bytes"
