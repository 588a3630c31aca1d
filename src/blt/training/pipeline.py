"""A recipe's stages: entropy model → entropies and threshold → BLT → model folder.

A recipe that starts from a model takes its entropy model, patch rule and shape where it has no stage of its own.

runs/my-run/
recipe.json     what is trained here; another recipe is refused
data.json       checksums of the documents; others are refused
start.json      names the weights that the run started from, if any; others are refused
entropy/        metrics.jsonl, curves.png, checkpoints/
entropies/      of both splits, four bytes per byte of text
threshold.json  the calibrated patch rule
blt/            metrics.jsonl, curves.png, samples.txt, checkpoints/
model/          the finished model, for `ByteLM.from_pretrained`
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from blt.api import ByteLM
from blt.checkpoint import load_json, write_json
from blt.configuration import check, from_dict, tag_of, to_dict
from blt.data import EntropyStore, Windows
from blt.distributed import World, choose_device, joined_world
from blt.entropy import EntropyModel
from blt.errors import CheckpointError, ConfigurationError
from blt.lm import fingerprint
from blt.model import BLT, BLTConfig
from blt.model.memory import decoding_memory, memory_of
from blt.patching import PatchRule, calibrate, mean_patch_bytes, patch
from blt.training.account import describe_blt_stage, describe_entropy_stage
from blt.training.entropies import place_of_entropies, store_entropies
from blt.training.loop import Trainer, keep_freed_memory, stop_requests
from blt.training.mixing import mixed_sources, spans_of_documents
from blt.training.monitor import MISSING, can_draw
from blt.training.new_weights import NewWeights
from blt.training.objectives import BLTObjective, EntropyObjective, Objective
from blt.training.parallelize import parallelize
from blt.training.parts import PartsConfig
from blt.training.recipe import BLTStage, EntropyStage, LoopConfig, PatchingStage, Recipe
from blt.training.run_folder import Run, held_out_split, loops_of, open_run, stopped
from blt.training.start import load_start, new_blt
from blt.training.validation import HeldOut, drop_samples_after, write_sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Patching:
    """What the first two stages leave for the third."""

    rule: PatchRule
    entropy_model: EntropyModel | None = None
    train: EntropyStore | None = None
    held_out: EntropyStore | None = None


def run_recipe(recipe: Recipe) -> Path:
    """Run all stages of a recipe that are not done yet.

    The process's allocator keeps freed memory from then on (`keep_freed_memory`).

    Returns:
        The model folder.

    Raises:
        ConfigurationError: the run folder belongs to another recipe, a size does not fit the number of ranks, there
            is no such device, or the model to start from is not what it was.
        ModelFolderError: the model to start from cannot be read.
        DataError: the data cannot be read, or have changed since the run began.
        CheckpointError: the last checkpoint is broken.
        TrainingError: a loss that is no finite number, or not enough memory.
        Stopped: SIGINT or SIGTERM came; what was done is kept.
    """
    keep_freed_memory()
    device = choose_device(recipe.device)
    with (
        stop_requests() as asked_to_stop,
        joined_world(device) as world,
        open_run(recipe, device=device, world=world, asked_to_stop=asked_to_stop) as run,
    ):
        run.say(f"run folder: {run.folder}")
        for stage in loops_of(recipe):
            run.windows(stage)  # refuses what cannot be read before anything is trained
        check_mean_patch(recipe.patching, run)
        check_weights_fit(recipe.blt.model, device=device, shards=shards_of(recipe.blt.loop, world))
        if not can_draw():
            run.say(MISSING)
        start = load_start(run)
        entropy_model = None if start is None else start.entropy_model
        if recipe.entropy is not None:
            entropy_model = train_entropy_model(run, recipe.entropy)
        patching = prepare_patching(run, entropy_model, start=start)
        return train_blt(run, recipe.blt, patching, start=start)


def check_mean_patch(stage: PatchingStage | None, run: Run) -> None:
    """Refuse a mean patch length that no threshold can give, before an entropy model is trained for it.

    Raises:
        ConfigurationError: even if only document ends and `max_length` ended patches, they would be shorter.
    """
    if stage is None or stage.mean_patch_bytes is None or not stage.rule.needs_entropies:
        return
    lengths = np.diff(_calibration_spans(run, stage), axis=1) - 2  # without BOS and EOS
    highest = float(lengths.sum() / np.ceil(lengths / (stage.rule.max_length or np.inf)).clip(min=1).sum())
    check(
        stage.mean_patch_bytes <= highest,
        f"patching.mean_patch_bytes: {stage.mean_patch_bytes}; on these documents it can be at most {highest:.3f}",
    )


def shards_of(loop: LoopConfig, world: World) -> int:
    """Return the number of ranks that share out the weights of a replica."""
    return (loop.shards or world.size) if loop.parallel == "fsdp" else 1


def check_weights_fit(model: BLTConfig | None, *, device: torch.device, shards: int = 1) -> None:
    """Refuse a model whose weights alone exceed the memory of the device, before an entropy model is trained for it.

    Args:
        model: its shape.
        device: of a rank.
        shards: ranks that share out its weights.

    Raises:
        ConfigurationError: they are.
    """
    available = memory_of(device)
    if model is None or available is None:
        return
    needed = decoding_memory(model, context_bytes=1, mean_patch_bytes=1.0).weights // shards
    check(
        needed <= available,
        f"blt.model: its weights take {needed / 1e9:,.0f} GB, the device has {available / 1e9:,.0f} GB; make it "
        "smaller (see blt plan)",
    )


def train_entropy_model(run: Run, stage: EntropyStage) -> EntropyModel:
    """First stage."""
    run.say(describe_entropy_stage(stage, run.train))
    torch.manual_seed(run.recipe.seed)
    model = EntropyModel(stage.model).to(run.device)
    is_longer = run.checkpoints("entropy").progress().step < stage.loop.num_steps
    if is_longer and run.checkpoints("blt").progress().step > 0:
        raise ConfigurationError(
            f"entropy.loop.num_steps: {stage.loop.num_steps}; the BLT in {run.folder} reads the entropies of the model "
            f"as it is, so that it cannot be trained further; choose another --out"
        )
    objective, held_out = EntropyObjective(model), HeldOut(run.held_out, num_documents=_num_held_out(run))

    def measure() -> float:
        return held_out.bits_per_byte(objective, entropies=None)

    _train(run, "entropy", objective, run.windows("entropy"), measure)
    _take_best(run, "entropy", model)
    model.to(run.device)
    return model.requires_grad_(False).eval()


def prepare_patching(run: Run, entropy_model: EntropyModel | None, *, start: ByteLM | None = None) -> Patching:
    """Second stage: store the entropies, once, and find the threshold."""
    stage = run.recipe.patching
    if stage is None:
        assert start is not None, "a recipe has a patch rule or a model to start from"
        stage = PatchingStage(rule=start.patch_rule, mean_patch_bytes=None)
    rule = stage.rule
    if not rule.needs_entropies:
        run.say(f"patches by the rule {tag_of(rule)!r}, which needs no threshold: mean_patch_bytes has no effect")
    if entropy_model is None or not rule.needs_entropies:
        return Patching(rule=rule, entropy_model=entropy_model)
    model = entropy_model

    train, held_out = (_store(run, model, name) for name in ("train", "held_out"))
    rule = _calibrated(run, stage, train)
    return Patching(rule=rule, entropy_model=entropy_model, train=train, held_out=held_out)


def train_blt(run: Run, stage: BLTStage, patching: Patching, *, start: ByteLM | None = None) -> Path:
    """Third stage; writes the model folder."""
    recipe = run.recipe
    windows = run.windows("blt", entropies=patching.train)
    mean_patch = _mean_patch(windows, patching.rule)
    torch.manual_seed(recipe.seed)
    new_weights = _divided_from_the_start(run, stage) if start is None else None
    blt = new_blt(stage.model, start, device=run.device) if new_weights is None else new_weights.module
    has_tables = blt.hash_embedding.ngrams is not None
    for name in ("sparse_ngrams", "ngram_dropout"):
        check(has_tables or not getattr(stage, name), f"{name}: the model to start from has no n-gram tables")
    blt.hash_embedding.sparse_gradients = stage.sparse_ngrams
    blt.set_dropout(layers=stage.layer_dropout, ngrams=stage.ngram_dropout)
    shape = None if patching.entropy_model is None else patching.entropy_model.config
    run.say(describe_blt_stage(stage, run.train, model=blt.config, entropy_model=shape, mean_patch_bytes=mean_patch))
    objective = BLTObjective(blt, rule=patching.rule, slots_multiple=stage.loop.slots_multiple)
    held_out = HeldOut(run.held_out, num_documents=_num_held_out(run))
    lm = ByteLM(blt, patch_rule=patching.rule, entropy_model=patching.entropy_model)

    def measure() -> float:
        return held_out.bits_per_byte(objective, entropies=patching.held_out)

    def sample(step: int, figure: float) -> None:
        samples, prompt = run.folder / "blt" / "samples.txt", recipe.sample_prompt
        run.say(write_sample(lm, samples, prompt=prompt, seed=recipe.seed, step=step, bits_per_byte=figure))

    if run.world.is_main:
        step = run.checkpoints("blt").progress().step
        drop_samples_after(run.folder / "blt" / "samples.txt", step=step)
    _train(
        run,
        "blt",
        objective,
        windows,
        measure,
        sample=sample,
        mean_patch_bytes=mean_patch,
        parts=stage.parts,
        new_weights=new_weights,
    )
    folder = run.folder / "model"
    if run.world.is_main:  # alone, since not every process may have the memory for a whole model
        _take_best(run, "blt", blt)
        lm.eval().save_pretrained(folder)
        run.say(f"model written to {folder}")
    run.world.wait()
    return folder


def _divided_from_the_start(run: Run, stage: BLTStage) -> NewWeights[BLT] | None:
    """Return a BLT without memory where FSDP divides it before its weights are drawn; None otherwise."""
    shape = stage.model
    if shape is None or run.world.size == 1 or stage.loop.parallel != "fsdp":
        return None
    return NewWeights(lambda: BLT(shape), is_needed=run.checkpoints("blt").progress().step == 0)


def _train(
    run: Run,
    stage: str,
    objective: Objective,
    windows: Windows,
    measure: Callable[[], float],
    *,
    sample: Callable[[int, float], None] | None = None,
    mean_patch_bytes: float | None = None,
    parts: PartsConfig | None = None,
    new_weights: NewWeights[BLT] | None = None,
) -> None:
    """Train a stage to its end unless it is there.

    Args:
        run: the folder, the recipe, the ranks.
        stage: its name.
        objective: what is minimised.
        windows: what is read.
        measure: returns the held-out bits per byte of the objective's module as it is now.
        sample: shows what the model writes after a step, given that figure; for the main process alone.
        mean_patch_bytes: to be shown.
        parts: which parts are trained when.
        new_weights: where the module is on the meta device: how each rank gets its part.
    """
    checkpoints, loop = run.checkpoints(stage), loops_of(run.recipe)[stage]
    num_rows = loop.num_steps * loop.batch_size
    module = objective.module
    if checkpoints.progress().step < loop.num_steps:
        for source, epochs in zip(run.recipe.data.sources, windows.epochs_of_sources(num_rows), strict=False):
            run.say(f"  {source.folder}: read {epochs:,.2f} times")
        sharing = parallelize(objective, loop, world=run.world, device=run.device, new_weights=new_weights)

        def validate(step: int) -> float:
            figure = measure()
            if sample is not None:
                with sharing.whole_weights(module):
                    if run.world.is_main:
                        sample(step, figure)
            return figure

        Trainer(
            objective=objective,
            windows=windows,
            config=loop,
            validate=validate,
            checkpoints=checkpoints,
            monitor=run.monitor(stage, mean_patch_bytes=mean_patch_bytes),
            device=run.device,
            world=run.world,
            asked_to_stop=run.asked_to_stop,
            parts=parts,
            seed=run.recipe.seed,
            sharing=sharing,
        ).run()
    if run.world.is_main:
        checkpoints.prune()  # a run that was killed after its last checkpoint has not done it


def _take_best(run: Run, stage: str, module: EntropyModel | BLT) -> None:
    """Fill a module with the best weights of its stage, not the last."""
    best = run.checkpoints(stage).load_best(module)
    figure = "not validated" if best.best_bits_per_byte is None else f"held-out {best.best_bits_per_byte:.4f} BPB"
    run.say(f"{stage}: the weights of step {best.step:,} are taken, the best ({figure})")


def _store(run: Run, model: EntropyModel, name: str) -> EntropyStore:
    """Store the entropies of a split, and say how far it is at every tenth."""
    shards = run.train if name == "train" else run.held_out
    split = "train" if name == "train" else held_out_split(run.recipe.data)[1]
    tenths_said = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal tenths_said
        if 10 * done // total > tenths_said:
            tenths_said = 10 * done // total
            run.say(f"entropies of {shards.place} ({split}): {10 * tenths_said}%")

    path = place_of_entropies(run.folder, shards, name=name, split=split, fingerprint=fingerprint(model))
    stored = store_entropies(
        model,
        shards,
        path,
        device=run.device,
        on_progress=on_progress,
        asked_to_stop=run.asked_to_stop,
        world=run.world,
    )
    if stored is None:
        raise stopped()
    return stored


def _calibrated(run: Run, stage: PatchingStage, stored: EntropyStore) -> PatchRule:
    """Find the threshold; once the BLT has begun, it stays."""
    path = run.folder / "threshold.json"
    if stage.mean_patch_bytes is None:
        return stage.rule
    if path.is_file() and run.checkpoints("blt").progress().step > 0:
        kept: PatchRule = from_dict(PatchRule, load_json(path, error=CheckpointError), where=str(path))
        return kept
    spans = _calibration_spans(run, stage).tolist()
    rule = calibrate(
        stage.rule,
        byte_ids=[torch.from_numpy(run.train.ids(*span)) for span in spans],
        entropies=[torch.tensor(stored.read(*span)) for span in spans],
        mean_patch_bytes=stage.mean_patch_bytes,
    )
    run.world.wait()
    if run.world.is_main:
        write_json(path, to_dict(rule))
        run.say(f"threshold: {rule.threshold:.4f} nats, for {stage.mean_patch_bytes} bytes per patch")
    return rule


def _calibration_spans(run: Run, stage: PatchingStage) -> NDArray[np.int64]:
    """Return where the documents lie in the id stream on which the threshold is found, N × 2."""
    sources = mixed_sources(run.recipe.data, run.train)
    return spans_of_documents(run.train, sources, count=stage.calibration_documents)


def _mean_patch(windows: Windows, rule: PatchRule) -> float:
    batch = windows.batch(0, rows=min(64, max(1, windows.num_windows)))
    patches = patch(batch.byte_ids, rule, entropies=batch.entropies)
    return mean_patch_bytes(patches, batch.byte_ids)


def _num_held_out(run: Run) -> int:
    return run.recipe.data.validation_documents
