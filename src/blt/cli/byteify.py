"""`blt byteify`: a BLT around a pretrained Transformer."""

from pathlib import Path

import click

from blt.api import ByteLM
from blt.checkpoint import check_replaceable
from blt.cli.options import fields_as_options, seed_option
from blt.cli.types import Name
from blt.configuration import from_dict, to_dict, with_overrides
from blt.errors import ConfigurationError
from blt.interop.byteify import byteify as make_bytes
from blt.interop.llama import Llama, read_llama
from blt.lm.folder import MODEL_FOLDER, download
from blt.model import PRESETS, BLTConfig, preset


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("checkpoint", type=Name())
@click.option(
    "--out",
    type=Name(),
    required=True,
    metavar="FOLDER",
    help="Where to write; replaced if it is a model folder of blt.",
)
@click.option(
    "--preset",
    "preset_name",
    default="tinystories-55m",
    show_default=True,
    help=f"Whose local modules are made, new: one of {', '.join(PRESETS)}.",
)
@click.option(
    "--entropy",
    type=Name(),
    metavar="PATH_OR_NAME",
    help="Whose entropy model and patch rule to take; the bundled model's.",
)
@seed_option("Of the new weights.")
@click.pass_context
def byteify(
    context: click.Context, checkpoint: str, out: str, preset_name: str, entropy: str | None, seed: int
) -> None:
    """Put a pretrained Transformer of the Llama architecture between new local modules.

    CHECKPOINT is a transformers folder (config.json and safetensors) or a GGUF file. Its layers become the global
    transformer; single fields of the rest can be set as well, such as --local_decoder.num_layers 2. What is written
    has to be trained: name it as start_from in a recipe (recipes/byteify-smollm2.toml).
    """
    donor = download(entropy)
    check_replaceable(out, MODEL_FOLDER, sources=[checkpoint, donor])
    fields = fields_as_options(context.args)
    for name in fields:
        if name.partition(".")[0] in ("global_transformer", "global_rope_theta"):
            raise ConfigurationError(f"--{name}: the global transformer is that of {checkpoint}; leave it as it is")
    shape: BLTConfig = from_dict(BLTConfig, with_overrides(to_dict(preset(preset_name)), fields))
    llama = read_llama(checkpoint)
    lm = make_bytes(llama, shape, donor=ByteLM.from_pretrained(donor), seed=seed)
    lm.card = _card(checkpoint, llama)
    lm.save_pretrained(out)
    click.echo(f"wrote        {out}, to be trained: start_from = {out!r} in a recipe")
    pretrained = sum(weight.numel() for weight in lm.blt.global_transformer.parameters())
    click.echo(f"pretrained   {pretrained:,} weights, of {checkpoint}")
    click.echo(f"new          {sum(weight.numel() for weight in lm.blt.parameters()) - pretrained:,} weights")
    for note in llama.notes:
        click.echo(f"note         {note}")


def _card(checkpoint: str, llama: Llama) -> str:
    shape = llama.shape
    return (
        f"# A byte-ified model, not trained yet\n\nIts global transformer ({shape.num_layers} layers × {shape.dim}) is "
        f"that of `{Path(checkpoint).name}`, whose licence goes with it. Everything else is new: train it before use.\n"
    )
