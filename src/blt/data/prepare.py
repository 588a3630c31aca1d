"""Turns inputs into shards, once: interrupted runs go on, finished ones are left alone."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.checkpoint import write_file
from blt.data.index import FORMAT, SPLITS, VERSION, read_index
from blt.data.kinds import EmptyInputError
from blt.data.output_folder import OutputFolder
from blt.data.prepare_config import PrepareConfig
from blt.data.prepare_ranks import Crew, delete_notes, is_shared, prepare_together
from blt.data.prepare_run import Meter, PrepareProgress, PrepareRun, Report
from blt.data.shard_folder import ShardFolder
from blt.data.shards import Shards
from blt.data.sources import Source, find_sources
from blt.data.store import is_address
from blt.data.store_output import StoreOutput
from blt.distributed import World
from blt.errors import FULL, BLTError, DataError

__all__ = ["PrepareProgress", "PrepareSummary", "Report", "prepare"]

_LOGGER = logging.getLogger("blt.data")


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What is in a prepared folder."""

    out: str
    """The folder."""
    splits: dict[str, dict[str, Any]]
    """Each split's entry in `index.json`: num_shards, num_documents, num_bytes, checksum."""
    was_already_prepared: bool
    """Whether nothing had to be done."""


def prepare(config: PrepareConfig, *, progress: Report | None = None, world: World | None = None) -> PrepareSummary:
    """Write the documents of all inputs as shards and an index, or go on with an interrupted run.

    Several ranks share out the inputs (`prepare_ranks`); the folder is the same, byte for byte, for any number of them.

    Args:
        config: what and how.
        progress: told how far this rank is, often.
        world: this process among all that prepare the folder, each by the same call.

    Raises:
        DataError: an input cannot be read, the folder holds something else, or the disk is full.
        MissingExtraError: an input needs a package that is not installed.
    """
    world = world or World()
    kind = StoreOutput if is_address(config.out) else OutputFolder
    folder = kind(config.out, sources=_places(config))
    report = progress or (lambda _: None)
    is_writable = _is_writable(folder.out.parent)
    try:
        with folder.locked() if is_writable and world.is_main else nullcontext(), ExitStack() as copies:
            return _prepare(config, folder, report, copies, is_writable=is_writable, world=world)
    except OSError as error:
        if error.errno not in FULL:
            raise
        way_out = "make room and run the same command again: it goes on from here"
        raise DataError(f"{folder.place}: {os.strerror(error.errno)}; {way_out}") from None


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made; not so on a mount that is read-only."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK)


def _prepare(
    config: PrepareConfig,
    folder: OutputFolder,
    report: Report,
    copies: ExitStack,
    *,
    is_writable: bool,
    world: World,
) -> PrepareSummary:
    world.wait()  # the main process may have put a folder back that was being replaced when a run was stopped
    finished = folder.finished_index()
    if not is_writable and (finished is None or config.overwrite):
        raise DataError(f"{folder.place}: cannot be written, {folder.out.parent} is read-only; choose another --out")
    spool = folder.out.parent if is_writable else None
    crew = Crew(world, folder.unfinished) if is_writable and is_shared(folder.unfinished, world) else None
    share = crew.share if crew is not None and world.size > 1 else None
    sources = find_sources(config, spool, Meter(report, "checking", None), copies, share=share)
    plan = _plan(config, sources)
    if finished is not None and not config.overwrite:
        if crew is not None:
            crew.give_up()
        return _left_alone(config, folder, finished, plan)
    found: list[bool] = []
    world.lead(lambda show_life: found.append(_is_whole(folder, plan, show_life)))
    if world.sum(sum(found)):
        is_done = world.lead(lambda _: _commit(folder))
    else:
        if world.is_main:
            folder.check_replaceable()
        if crew is not None:
            entries, empty = prepare_together(config, folder, plan, sources, crew, report)
        else:
            entries, empty = _prepare_alone(config, folder, plan, sources, report)
        is_done = world.lead(lambda show_life: _finish(config, folder, plan, entries, empty, show_life))
    index = folder.finished_index() if is_done else None
    if index is None:
        raise DataError(f"{folder.place}: process 0 could not finish it, and says why")
    return PrepareSummary(out=str(config.out), splits=index["splits"], was_already_prepared=False)


def _is_whole(folder: OutputFolder, plan: dict[str, Any], show_life: Callable[[], None]) -> bool:
    """Whether an earlier run was stopped once all was written that a plan says; then it only has to be put in place."""
    try:
        index = read_index(folder.unfinished)
        if any(index.get(key) != value for key, value in plan.items()):
            return False
        return all(
            Shards.of_folder(ShardFolder(folder.unfinished, split, entry)).compute_checksum(on_shard=show_life)
            == entry["checksum"]
            for split, entry in index["splits"].items()
        )
    except DataError:  # not there, or damaged since
        return False


def _left_alone(
    config: PrepareConfig, folder: OutputFolder, finished: dict[str, Any], plan: dict[str, Any]
) -> PrepareSummary:
    """Check that a finished folder is what would be prepared now, and read all right.

    Raises:
        DataError: it is not.
    """
    if any(finished.get(key) != value for key, value in plan.items() if key != "version"):
        different = f"was prepared with other {_differences(finished, plan)}"
        raise DataError(f"{folder.place}: {different}; choose another --out, or replace it with --overwrite")
    for split, entry in finished["splits"].items():
        if entry["num_documents"]:
            Shards.open(folder.place, split=split)
    return PrepareSummary(out=str(config.out), splits=finished["splits"], was_already_prepared=True)


def _prepare_alone(
    config: PrepareConfig, folder: OutputFolder, plan: dict[str, Any], sources: list[Source], report: Report
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Write the shards of both splits; return their entries in the index, and what was said of an empty input."""
    run = PrepareRun(config, folder, plan)
    try:
        run.write(sources, Meter(report, "writing", sum(source.num_bytes for source in sources)))
        return run.finish(), None if run.empty is None else str(run.empty)
    except BLTError:
        folder.start_over()  # the same inputs would fail again
        raise
    finally:
        run.close()


def _finish(
    config: PrepareConfig,
    folder: OutputFolder,
    plan: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    empty: str | None,
    show_life: Callable[[], None],
) -> None:
    """Write the index, and put the folder at its name.

    Raises:
        DataError: there are no documents to train on.
    """
    splits = {}
    for split, entry in entries.items():
        shards = Shards.of_folder(ShardFolder(folder.unfinished, split, entry))
        splits[split] = entry | {"checksum": shards.compute_checksum(on_shard=show_life)}
    num_train, num_validation = (splits[split]["num_documents"] for split in SPLITS)
    if not num_train:
        folder.start_over()
        if empty is not None and not num_validation:
            raise EmptyInputError(empty)
        raise DataError("every document fell to validation; give more, another --seed, or --validation 0")
    if config.validation and not num_validation:
        what = f"none of {num_train:,} documents fell to validation"
        _LOGGER.warning("%s: %s; give more, another --seed, or a larger --validation", folder.place, what)
    index = json.dumps({**plan, "splits": splits}, indent=1) + "\n"
    write_file(folder.unfinished / "index.json", index.encode())
    _commit(folder)


def _commit(folder: OutputFolder) -> None:
    """Put a folder that is whole at its name."""
    delete_notes(folder.unfinished)
    folder.commit()


def _places(config: PrepareConfig) -> list[str]:
    """Name the files and folders that are read."""
    return [name for name in (*config.inputs, config.dataset) if name not in (None, "-")]


def _plan(config: PrepareConfig, sources: list[Source]) -> dict[str, Any]:
    """Return everything that the result depends on, as it stands in the index."""
    names = ("format", "text_field", "validation", "seed", "shard_bytes")
    settings = {name: getattr(config, name) for name in names}
    settings["text_field"] = config.text_field or "text"
    if config.skip_bad:  # absent otherwise, as in folders from before it
        settings["skip_bad"] = True
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": settings,
        "sources": [
            {"name": source.name, "num_bytes": source.num_bytes, "sha256": source.sha256} for source in sources
        ],
    }


def _differences(finished: dict[str, Any], plan: dict[str, Any]) -> str:
    """Name the settings that differ, or else the inputs."""
    before, now = finished.get("settings") or {}, plan["settings"]
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} ({before.get(name)!r}, now {now.get(name)!r})" for name in names) or "inputs"
