"""`blt calibrate`: the threshold that gives a target mean patch length on given text."""

import itertools
import json
from typing import Any

import click
import numpy as np
import torch

from blt.api import ByteLM
from blt.checkpoint import check_replaceable
from blt.cli.options import data_option, json_option, limit_option, model_option
from blt.cli.reading_options import format_option, skip_bad_option, text_field_option
from blt.cli.types import Count, Name, Number
from blt.configuration import field_help, from_dict, to_dict
from blt.data import Format, Shards, read_documents
from blt.errors import ConfigurationError
from blt.evaluation import compute_entropies
from blt.lm.folder import MODEL_FOLDER, download
from blt.patching import EntropyAndRiseRule, mean_patch_bytes, patch
from blt.patching import calibrate as find_threshold
from blt.patching.calibration import ThresholdRule

RULES = ("entropy", "entropy-rise", "entropy-and-rise")
"""The rules that have a threshold to find, as recipes call them."""

_HELP = field_help(EntropyAndRiseRule)


@click.command()
@data_option
@click.option("--mean-patch", type=Number(min=1), required=True, help="Target bytes per patch, such as 4.4.")
@model_option
@click.option("--rule", type=click.Choice(RULES), help="Rule whose threshold to find; the model's own by default.")
@click.option("--max-length", type=Count(), help=_HELP["max_length"])
@click.option("--rise-threshold", type=Number(), help=_HELP["rise_threshold"])
@limit_option
@format_option
@text_field_option
@skip_bad_option
@click.option("--out", type=Name(), metavar="FOLDER", help="Save the model with the calibrated rule there.")
@json_option
def calibrate(
    data: str,
    mean_patch: float,
    model: str | None,
    rule: str | None,
    max_length: int | None,
    rise_threshold: float | None,
    limit: int | None,
    format: Format,
    text_field: str | None,
    skip_bad: bool,
    out: str | None,
    as_json: bool,
) -> None:
    """Find the threshold that gives a target mean patch length on a text.

    The model's entropy model reads the text; the model itself stays as it is, unless --out saves it with the new rule.
    """
    folder = download(model)
    if out is not None:
        check_replaceable(out, MODEL_FOLDER, sources=[data, folder])
    read = read_documents(data, format=format, text_field=text_field, skip_bad=skip_bad)
    shards = Shards.from_documents(list(itertools.islice(read, limit)))
    lm = ByteLM.from_pretrained(folder)
    own_rule = _rule_to_calibrate(lm, rule, max_length=max_length, rise_threshold=rise_threshold)
    calibrated, mean = _calibrated(lm, shards, own_rule, mean_patch=mean_patch)
    if out is not None:
        lm.patch_rule = calibrated
        lm.save_pretrained(out)
    if as_json:
        values = {
            "patch_rule": to_dict(calibrated),
            "threshold": calibrated.threshold,
            "mean_patch_bytes": mean,
            "wanted_mean_patch_bytes": mean_patch,
            "num_bytes": shards.num_bytes,
            "num_documents": shards.num_documents,
            "data_checksum": shards.checksum,
            "entropy_model_fingerprint": lm.fingerprint_of_entropies(),
            "out": out,
        }
        click.echo(json.dumps(values))
        return
    click.echo(f"threshold    {calibrated.threshold:.6f} nats, for {calibrated}")
    click.echo(f"mean patch   {mean:.3f} bytes on {shards.num_bytes:,} bytes in {shards.num_documents:,} documents")
    if out is not None:
        click.echo(f"saved        {out}")


def _calibrated(lm: ByteLM, shards: Shards, rule: ThresholdRule, *, mean_patch: float) -> tuple[ThresholdRule, float]:
    """Find the rule, and measure the mean patch length that it gives."""
    assert lm.entropy_model is not None
    byte_ids = torch.from_numpy(shards.ids(0, shards.num_ids))
    entropies = torch.from_numpy(compute_entropies(lm.entropy_model, shards).read(0, shards.num_ids))
    lengths = np.diff(shards.id_offsets(0, shards.num_documents)).tolist()
    found = find_threshold(
        rule,
        byte_ids=torch.split(byte_ids, lengths),
        entropies=torch.split(entropies, lengths),
        mean_patch_bytes=mean_patch,
    )
    return found, mean_patch_bytes(patch(byte_ids[None], found, entropies=entropies[None]), byte_ids[None])


def _rule_to_calibrate(
    lm: ByteLM, tag: str | None, *, max_length: int | None, rise_threshold: float | None
) -> ThresholdRule:
    """Return the rule that was asked for: the model's own where it fits, with the options set on top."""
    if lm.entropy_model is None:
        raise ConfigurationError("this model has no entropy model, so there is no threshold to find; give another one")
    if tag is None and not isinstance(lm.patch_rule, ThresholdRule):
        raise ConfigurationError(
            f"the model's rule, {lm.patch_rule}, has no threshold; choose one with --rule: {', '.join(RULES)}"
        )
    values: dict[str, Any] = to_dict(lm.patch_rule)
    if tag not in (None, values["type"]):
        values = {"type": tag, "threshold": 0.0}
        if tag == "entropy-and-rise":
            values["rise_threshold"] = 0.0
    given = {"max_length": max_length, "rise_threshold": rise_threshold}
    values |= {key: value for key, value in given.items() if value is not None}
    rule: ThresholdRule = from_dict(ThresholdRule, values, where="rule")
    return rule
