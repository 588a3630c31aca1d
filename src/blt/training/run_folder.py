"""The run folder: one recipe, one process at a time, one text; what else lies there is told in `pipeline`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from blt import checkpoint
from blt.checkpoint import check_replaceable, load_json, named_failures, write_json
from blt.configuration import check, dotted, from_dict, to_dict
from blt.data import EntropyStore, Shards, Windows
from blt.data.order import KEYED, TABLE
from blt.distributed import World
from blt.errors import CheckpointError, ConfigurationError, DataError, ModelFolderError
from blt.lm.folder import MODEL_FOLDER
from blt.training.checkpoints import Checkpoints
from blt.training.loop import Stopped
from blt.training.mixing import mixed_sources
from blt.training.monitor import Monitor
from blt.training.recipe import DataConfig, LoopConfig, Recipe

MAY_CHANGE = {"num_steps", "compile", "accumulation", "device", "tensorboard", "out", "sample_prompt"}
MAY_CHANGE |= {"log_every", "validate_every", "checkpoint_every", "keep_every", "slots_multiple", "precision"}
MAY_CHANGE |= {"parallel", "shards", "recompute", "balance"}
"""Fields that a resumed run may set anew: they decide how long and how it is computed, not what is learnt (but for
which positions are dropped, where some are)."""

WRITTEN = ("data.json", "start.json", "threshold.json", "entropy", "entropies", "blt", "model")
"""What a run writes in its folder after `recipe.json`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What all stages share."""

    recipe: Recipe
    folder: Path
    device: torch.device
    world: World
    console: Console
    asked_to_stop: Callable[[], bool]
    train: Shards
    held_out: Shards
    order: int = KEYED
    """Version of the order in which windows are read: that which the run began with."""

    def checkpoints(self, stage: str) -> Checkpoints:
        """Return a stage's checkpoints."""
        return Checkpoints(self.folder / stage / "checkpoints", keep_every=loops_of(self.recipe)[stage].keep_every)

    def windows(self, stage: str, *, entropies: EntropyStore | None = None) -> Windows:
        """Return what a stage reads.

        Raises:
            ConfigurationError: the sources of a mixture have fewer rows in their epochs than the stage's steps read, or
                one is shorter than a row.
        """
        loop = loops_of(self.recipe)[stage]
        windows = Windows(
            self.train,
            sequence_length=loop.sequence_length,
            seed=self.recipe.seed,
            entropies=entropies,
            sources=mixed_sources(self.recipe.data, self.train),
            order=self.order,
        )
        needed = loop.num_steps * loop.batch_size
        check(
            windows.num_rows is None or needed <= windows.num_rows,
            f"{stage}.loop.num_steps: {loop.num_steps:,} steps read {needed:,} rows, and the sources have "
            f"{windows.num_rows or 0:,} in their epochs; take fewer steps, or raise data.sources.epochs",
        )
        return windows

    def monitor(self, stage: str, *, mean_patch_bytes: float | None = None) -> Monitor:
        """Return what follows a stage."""
        return Monitor(
            self.folder / stage,
            stage=stage,
            config=loops_of(self.recipe)[stage],
            console=self.console,
            is_main=self.world.is_main,
            tensorboard=self.recipe.tensorboard,
            mean_patch_bytes=mean_patch_bytes,
        )

    def say(self, line: str) -> None:
        """Show a line."""
        if self.world.is_main:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def open_run(recipe: Recipe, *, device: torch.device, world: World, asked_to_stop: Callable[[], bool]) -> Iterator[Run]:
    """Claim the run folder for this recipe; lengths of stages may change between resumptions, shapes may not.

    Raises:
        ConfigurationError: the folder belongs to another recipe or to a process that is running, or the rows of a
            batch do not divide by the number of ranks.
        DataError: the data cannot be read, or are not what the run began with.
    """
    for name, loop in loops_of(recipe).items():
        if loop.batch_size % (world.size * loop.accumulation):
            raise ConfigurationError(
                f"{name}.loop.batch_size: {loop.batch_size} is no multiple of {world.size} ranks × "
                f"{loop.accumulation} parts"
            )
        if world.size > 1 and loop.parallel == "none":
            raise ConfigurationError(f"{name}.loop.parallel: 'none', and there are {world.size} ranks; say ddp or fsdp")
        if loop.shards is not None and world.size % loop.shards:
            raise ConfigurationError(f"{name}.loop.shards: {loop.shards} does not divide {world.size} ranks")
    train, held_out = _open_data_together(recipe, world)
    folder = Path(recipe.out)
    with named_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, is_needed=world.is_main):
        check_what_is_written(recipe, folder)
        check_recipe(recipe, folder / "recipe.json")
        checksums = {"train": train.checksum, "held_out": held_out.checksum}
        order = order_of(folder / "data.json")
        check_data(checksums, folder / "data.json")
        world.wait()  # all have checked before the first one writes
        if world.is_main:
            delete_unfinished(folder)
            write_json(folder / "recipe.json", to_dict(recipe))
            write_json(folder / "data.json", checksums if order == TABLE else {**checksums, "order": order})
        yield Run(
            recipe=recipe,
            folder=folder,
            device=device,
            world=world,
            console=Console(stderr=True),
            asked_to_stop=asked_to_stop,
            train=train,
            held_out=held_out,
            order=order,
        )


def stopped() -> Stopped:
    """Return what ends a run between two pieces of work that are kept."""
    return Stopped("stopped; what was done is kept, run the same command to go on")


def delete_unfinished(folder: Path) -> None:
    """Delete files that a kill left half written in a run folder; unfinished entropies are gone on with instead."""
    stages = [folder / stage for stage in ("entropy", "blt")]
    for place in (folder, *stages, *(stage / "checkpoints" for stage in stages)):
        for path in [*place.glob(".*.unfinished"), *place.glob(".*.unfinished.png")]:
            path.unlink(missing_ok=True)


def _open_data_together(recipe: Recipe, world: World) -> tuple[Shards, Shards]:
    """Open the data in the main process first, which may compare them with their checksums, and then in all others."""
    opened: list[tuple[Shards, Shards]] = []
    world.lead(lambda show_life: opened.append(open_data(recipe, on_file=show_life)))
    return opened[0] if opened else open_data(recipe)


def open_data(recipe: Recipe, *, on_file: Callable[[], None] = lambda: None) -> tuple[Shards, Shards]:
    """Open the training split and the held-out one.

    Args:
        recipe: names the folders.
        on_file: told after each file that was compared with its checksum.

    Raises:
        DataError: one of them cannot be read, is damaged or has no documents.
    """
    data = recipe.data
    folders = [source.folder for source in data.sources] or [str(data.train)]
    train = Shards.join([Shards.open(folder, split="train", on_file=on_file) for folder in folders])
    folder, split = held_out_split(data)
    try:
        return train, Shards.open(folder, split=split, on_file=on_file)
    except DataError as error:
        if data.validation is not None or "the split" not in str(error):
            raise
        raise DataError(
            f"{error}; or set data.validation to a folder of held-out documents, itself made by `blt prepare`"
        ) from None


def held_out_split(data: DataConfig) -> tuple[str, str]:
    """Return folder and split of the held-out documents."""
    return (str(data.train), "validation") if data.validation is None else (data.validation, "train")


def check_recipe(recipe: Recipe, path: Path) -> None:
    """Refuse a folder that holds a run of another recipe; a stage that has saved nothing yet may still change."""
    if not path.is_file():
        return
    begun = {stage for stage in ("entropy", "blt") if (path.parent / stage / "checkpoints" / "last.json").is_file()}
    open_to_change = {"entropy", "patching", "blt"} - begun - ({"patching"} if "blt" in begun else set())
    theirs, mine = load_json(path, error=CheckpointError), to_dict(recipe)
    with suppress(ConfigurationError):  # raised by fields that blt has no more: then both are compared as they are
        theirs = to_dict(from_dict(Recipe, theirs))  # fields that blt has got since then have their defaults
    mine, theirs = _what_decides(mine), _what_decides(theirs)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key) and key.split(".")[0] not in open_to_change:
            raise ConfigurationError(
                f"{path.parent}: holds a run with {key} = {theirs.get(key)!r}, this recipe says {mine.get(key)!r}; "
                f"choose another --out"
            )


def check_what_is_written(recipe: Recipe, folder: Path) -> None:
    """Refuse a run that would replace files which no run wrote, or the model that it starts from.

    Raises:
        ConfigurationError: there is something of the kind.
    """
    sources = [] if recipe.start_from is None else [recipe.start_from]
    try:
        check_replaceable(folder / "model", MODEL_FOLDER, sources=sources)
    except ModelFolderError as error:
        raise ConfigurationError(f"{error} to the run, with --out") from None
    if (folder / "recipe.json").is_file():
        return  # a run has been here, and found none of these when it began
    for name in WRITTEN:
        path = folder / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ConfigurationError(f"{path}: is there, and no run wrote it; choose another --out")


def check_data(checksums: dict[str, str], path: Path) -> None:
    """Refuse data that have changed since the run began."""
    if not path.is_file():
        return
    before = load_json(path, error=CheckpointError)
    before.pop("order", None)
    if before != checksums:
        which = next((name for name in checksums if before.get(name) != checksums[name]), "data")
        raise DataError(
            f"{path.parent}: the {which} documents are not those that this run began with; "
            f"prepare them as they were, or choose another --out"
        )


def order_of(path: Path) -> int:
    """Return the order in which a run reads windows: the newest, unless it began with another.

    Args:
        path: its `data.json`, which names the order; runs from before there was a choice read a table.

    Raises:
        CheckpointError: it began with an order that this version does not know.
    """
    if not path.is_file():
        return KEYED
    order = load_json(path, error=CheckpointError).get("order", TABLE)
    if order not in (TABLE, KEYED):
        raise CheckpointError(
            f"{path}: reads windows in order {order!r}, this blt knows {TABLE} and {KEYED}; go on with the blt that "
            "began the run, or choose another --out"
        )
    return int(order)


def _what_decides(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe that decide what is learnt, by their dotted paths."""
    return {path: value for path, value in dotted(recipe).items() if path.rpartition(".")[2] not in MAY_CHANGE}


def loops_of(recipe: Recipe) -> dict[str, LoopConfig]:
    """Return the loop of each stage that trains."""
    loops = {} if recipe.entropy is None else {"entropy": recipe.entropy.loop}
    return loops | {"blt": recipe.blt.loop}


def locked(folder: Path, *, is_needed: bool) -> AbstractContextManager[None]:
    """Keep a second process from training in the same folder; a process that dies leaves no lock behind.

    Raises:
        ConfigurationError: there is one already.
    """
    taken = ConfigurationError(f"{folder}: another process is training here; choose another --out")
    return checkpoint.locked(folder / ".lock", refusal=taken) if is_needed else nullcontext()
