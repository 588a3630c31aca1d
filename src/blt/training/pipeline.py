"""A recipe's stages: entropy model → entropies and threshold → BLT → model folder.

runs/my-run/
recipe.json     what is trained here; another recipe is refused
entropy/        metrics.jsonl, curves.png, checkpoints/
threshold.json  the calibrated patch rule
blt/            metrics.jsonl, curves.png, samples.txt, checkpoints/
model/          the finished model, for `ByteLM.from_pretrained`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blt.checkpoint import load_json, write_json
from blt.configuration import from_dict, to_dict
from blt.data import EntropyStore, Shards, Windows
from blt.distributed import World, joined_world
from blt.entropy import EntropyModel
from blt.errors import CheckpointError, ConfigurationError
from blt.lm import ByteLM, fingerprint
from blt.model import BLT
from blt.patching import PatchRule, calibrate, mean_patch_bytes, patch
from blt.training.account import describe_blt_stage, describe_entropy_stage
from blt.training.checkpoints import Checkpoints
from blt.training.entropies import store_entropies
from blt.training.loop import train
from blt.training.monitor import Monitor
from blt.training.objectives import BLTObjective, EntropyObjective
from blt.training.recipe import BLTStage, EntropyStage, LoopConfig, Recipe
from blt.training.validation import HeldOut

SAMPLE_BYTES = 300


@dataclass(frozen=True, eq=False)
class Run:
    """What all stages share."""

    recipe: Recipe
    folder: Path
    device: torch.device
    world: World
    train_folder: str
    validation_folder: str
    validation_split: str

    def monitor(self, stage: str, config: LoopConfig) -> Monitor:
        """Follow a stage."""
        is_main = self.world.is_main
        return Monitor(
            self.folder / stage, stage=stage, config=config, is_main=is_main, tensorboard=self.recipe.tensorboard
        )

    def checkpoints(self, stage: str, config: LoopConfig) -> Checkpoints:
        """Give a stage's checkpoints."""
        return Checkpoints(self.folder / stage / "checkpoints", keep_every=config.keep_every)

    def held_out(self) -> HeldOut:
        """Give the documents that every validation reads."""
        shards = Shards.open(self.validation_folder, split=self.validation_split)
        return HeldOut(shards, num_documents=self.recipe.data.validation_documents)


@dataclass(frozen=True, eq=False)
class Patching:
    """What the first two stages leave for the third."""

    entropy_model: EntropyModel | None
    rule: PatchRule
    train: EntropyStore | None
    validation: EntropyStore | None


def run_recipe(recipe: Recipe) -> Path:
    """Do all stages of a recipe that are not done yet.

    Returns:
        The model folder.

    Raises:
        ConfigurationError: the run folder belongs to another recipe, or a size does not fit the number of ranks.
        DataError: the data cannot be read.
        TrainingError: a loss that is no finite number.
    """
    with joined_world() as world:
        run = _open_run(recipe, world)
        torch.manual_seed(recipe.seed)
        entropy_model = None if recipe.entropy is None else train_entropy_model(run, recipe.entropy)
        patching = prepare_patching(run, entropy_model)
        return train_blt(run, recipe.blt, patching)


def train_entropy_model(run: Run, stage: EntropyStage) -> EntropyModel:
    """First stage."""
    torch.manual_seed(run.recipe.seed)
    model = EntropyModel(stage.model).to(run.device)
    checkpoints, monitor = run.checkpoints("entropy", stage.loop), run.monitor("entropy", stage.loop)
    shards = Shards.open(run.train_folder)
    monitor.say(describe_entropy_stage(stage, shards))
    if not checkpoints.progress().is_finished:
        objective, held_out = EntropyObjective(model), run.held_out()
        try:
            train(
                objective,
                Windows(shards, window=stage.loop.window, seed=run.recipe.seed),
                stage.loop,
                validate=lambda: held_out.bits_per_byte(objective, device=run.device, entropies=None),
                checkpoints=checkpoints,
                monitor=monitor,
                device=run.device,
                world=run.world,
            )
        finally:
            monitor.close()
    checkpoints.load_weights_of("best", model)
    return model.requires_grad_(False).eval()


def prepare_patching(run: Run, entropy_model: EntropyModel | None) -> Patching:
    """Second stage: store the entropies beside the shards, once, and find the threshold."""
    stage = run.recipe.patching
    if entropy_model is None:
        return Patching(entropy_model=None, rule=stage.rule, train=None, validation=None)
    if run.world.is_main:
        _store(run, entropy_model, run.train_folder, "train")
        _store(run, entropy_model, run.validation_folder, run.validation_split)
    run.world.wait()
    stored = _store(run, entropy_model, run.train_folder, "train")
    held_out = _store(run, entropy_model, run.validation_folder, run.validation_split)
    rule = _calibrated(run, stored)
    return Patching(entropy_model=entropy_model, rule=rule, train=stored, validation=held_out)


def train_blt(run: Run, stage: BLTStage, patching: Patching) -> Path:
    """Third stage; writes the model folder."""
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    blt = BLT(stage.model).to(run.device)
    checkpoints, monitor = run.checkpoints("blt", stage.loop), run.monitor("blt", stage.loop)
    shards = Shards.open(run.train_folder)
    windows = Windows(shards, window=stage.loop.window, seed=recipe.seed, entropies=patching.train)
    monitor.mean_patch_bytes = _mean_patch(windows, patching.rule)
    monitor.say(describe_blt_stage(stage, shards, mean_patch_bytes=monitor.mean_patch_bytes))
    objective = BLTObjective(blt, rule=patching.rule, slots_multiple=stage.loop.slots_multiple)
    held_out = run.held_out()
    lm = ByteLM(blt, patch_rule=patching.rule, entropy_model=patching.entropy_model)

    def validate() -> float:
        figure = held_out.bits_per_byte(objective, device=run.device, entropies=patching.validation)
        if run.world.is_main:
            _show_sample(run, monitor, lm, figure)
        return figure

    if not checkpoints.progress().is_finished:
        try:
            train(
                objective,
                windows,
                stage.loop,
                validate=validate,
                checkpoints=checkpoints,
                monitor=monitor,
                device=run.device,
                world=run.world,
            )
        finally:
            monitor.close()
    checkpoints.load_weights_of("best", blt)
    folder = run.folder / "model"
    if run.world.is_main:
        lm.eval().save_pretrained(folder)
        monitor.say(f"model written to {folder}")
    run.world.wait()
    return folder


def _open_run(recipe: Recipe, world: World) -> Run:
    """Claim the run folder for this recipe; lengths of stages may change between resumptions, shapes may not."""
    for name, loop in _loops(recipe).items():
        if loop.rows % (world.size * loop.accumulation):
            raise ConfigurationError(
                f"{name}.loop.rows: {loop.rows} is no multiple of {world.size} ranks × {loop.accumulation} parts"
            )
    data, folder = recipe.data, Path(recipe.out)
    held_out = (data.train, "validation") if data.validation is None else (data.validation, "train")
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        mine, path = _identity(recipe), folder / "recipe.json"
        if path.is_file() and (theirs := _identity_of(load_json(path, error=CheckpointError))) != mine:
            key = next(key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key))
            raise ConfigurationError(
                f"{folder}: holds a run with {key} = {theirs.get(key)!r}, this recipe says {mine.get(key)!r}; "
                f"choose another --out"
            )
        write_json(path, to_dict(recipe))
    world.wait()
    return Run(
        recipe=recipe,
        folder=folder,
        device=_device(recipe.device, world),
        world=world,
        train_folder=data.train,
        validation_folder=held_out[0],
        validation_split=held_out[1],
    )


def _loops(recipe: Recipe) -> dict[str, LoopConfig]:
    loops = {"blt": recipe.blt.loop}
    if recipe.entropy is not None:
        loops["entropy"] = recipe.entropy.loop
    return loops


MAY_CHANGE = {"num_steps", "compile", "accumulation", "device", "tensorboard", "out", "sample_prompt"}
MAY_CHANGE |= {"log_every", "validate_every", "checkpoint_every", "keep_every", "slots_multiple", "precision"}
"""Fields that a resumed run may set anew: they decide how long and how it is computed, not what is learnt."""


def _identity(recipe: Recipe) -> dict[str, Any]:
    return _identity_of(to_dict(recipe))


def _identity_of(tree: dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_identity_of(value, prefix=f"{prefix}{key}."))
        elif key not in MAY_CHANGE:
            flat[f"{prefix}{key}"] = value
    return flat


def _device(name: str, world: World) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda", world.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def _store(run: Run, model: EntropyModel, folder: str, split: str) -> EntropyStore:
    monitor = run.monitor("entropy", run.recipe.blt.loop)
    shown = [0]

    def on_progress(done: int, total: int) -> None:
        share = 10 * done // total
        if share > shown[0]:
            shown[0] = share
            monitor.say(f"entropies of {folder} ({split}): {10 * share}%")

    return store_entropies(
        model, folder, split=split, fingerprint=fingerprint(model), device=run.device, on_progress=on_progress
    )


def _calibrated(run: Run, stored: EntropyStore) -> PatchRule:
    """Find the threshold once; later runs in this folder read it back."""
    stage, path = run.recipe.patching, run.folder / "threshold.json"
    if stage.mean_patch_bytes is None:
        return stage.rule
    if path.is_file():
        kept: PatchRule = from_dict(PatchRule, load_json(path, error=CheckpointError), where=str(path))
        return kept
    shards = Shards.open(run.train_folder)
    offsets = shards.document_id_offsets
    spans = [slice(int(offsets[n]), int(offsets[n + 1])) for n in range(shards.num_documents)]
    spans = spans[: stage.calibration_documents]
    rule = calibrate(
        stage.rule,
        byte_ids=[torch.from_numpy(shards.ids(span.start, span.stop)) for span in spans],
        entropies=[torch.tensor(stored.read(span.start, span.stop)) for span in spans],
        mean_patch_bytes=stage.mean_patch_bytes,
    )
    if run.world.is_main:
        write_json(path, to_dict(rule))
        run.monitor("entropy", run.recipe.blt.loop).say(
            f"threshold: {rule.threshold:.4f} nats, for {stage.mean_patch_bytes} bytes per patch"
        )
    return rule


def _mean_patch(windows: Windows, rule: PatchRule) -> float:
    batch = windows.batch(0, rows=min(64, max(1, windows.num_windows)))
    patches = patch(batch.byte_ids, rule, entropies=batch.entropies)
    return mean_patch_bytes(patches, batch.byte_ids)


def _show_sample(run: Run, monitor: Monitor, lm: ByteLM, figure: float) -> None:
    try:
        from blt.generation import generate
    except ImportError:
        return
    prompt = run.recipe.sample_prompt
    story = generate(lm, prompt, max_new_bytes=SAMPLE_BYTES, temperature=0.7, seed=run.recipe.seed).text
    with (run.folder / "blt" / "samples.txt").open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"--- {figure:.4f} bits per byte\n{story}\n")
    monitor.say(story)
