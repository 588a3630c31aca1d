"""Going on from a model that there is: fine-tuning."""

from pathlib import Path

import torch

from blt.api import ByteLM
from blt.checkpoint import load_json, write_json
from blt.errors import CheckpointError, ConfigurationError
from blt.lm import fingerprint
from blt.model import BLT, BLTConfig
from blt.training.run_folder import Run


def load_start(run: Run) -> ByteLM | None:
    """Load the model that the recipe starts from, if it names one.

    Raises:
        ConfigurationError: it is not the one that this run began with, or has no entropy model where one is needed.
        ModelFolderError: it cannot be read.
    """
    if run.recipe.start_from is None:
        return None
    lm = ByteLM.from_pretrained(run.recipe.start_from, device=str(run.device))
    patching, path = run.recipe.patching, run.folder / "start.json"
    is_needed = patching is not None and patching.rule.needs_entropies
    if is_needed and run.recipe.entropy is None and lm.entropy_model is None:
        raise ConfigurationError(
            f"start_from: {run.recipe.start_from} has no entropy model, which the patch rule needs; "
            "add an [entropy] stage"
        )
    _check_same(lm, path)
    run.world.wait()  # all have checked before the first one writes
    if run.world.is_main:
        write_json(path, {"fingerprint": fingerprint(lm)})
    run.say(f"starting from {run.recipe.start_from}")
    return lm


def new_blt(config: BLTConfig | None, start: ByteLM | None, *, device: torch.device) -> BLT:
    """Make the module to train: with new weights, or with those of the model to start from.

    Args:
        config: its shape; None: that of `start`. Where both are given they may differ in what no weight depends on,
            such as a window.
        start: the model to start from.
        device: where to train.

    Raises:
        ConfigurationError: the weights of `start` do not fit the shape.
    """
    if start is None:
        assert config is not None, "a recipe has a shape or a model to start from"
        return BLT(config).to(device)
    if config is None or config == start.blt.config:
        return start.blt.train()
    blt, weights = BLT(config).to(device), start.blt.state_dict()
    for name, wanted in blt.state_dict().items():
        found = weights.pop(name, None)
        if found is None or found.shape != wanted.shape:
            shape = "none" if found is None else tuple(found.shape)
            raise ConfigurationError(f"blt.model: {name} has shape {tuple(wanted.shape)}, in start_from {shape}")
    if weights:
        raise ConfigurationError(f"blt.model: has no {next(iter(weights))}, which start_from has")
    blt.load_state_dict(start.blt.state_dict())
    return blt


def _check_same(lm: ByteLM, path: Path) -> None:
    """Refuse to go on with a run whose first weights have been replaced."""
    if path.is_file() and load_json(path, error=CheckpointError).get("fingerprint") != fingerprint(lm):
        raise ConfigurationError(
            f"{path.parent}: began with other weights than those that start_from names now; choose another --out"
        )
