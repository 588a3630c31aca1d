"""Several ranks that prepare one folder: each reads whole inputs, and each writes some of the shards.

The folder is that which one process writes, byte for byte, for any number of ranks. It comes to be in three rounds, and
a rank enters the next one when all have done their part, which their notes in the unfinished folder say:

unfinished/sums/00003.json       size and sha256 of an input
unfinished/plan.json             what all of it depends on; the rest of an interrupted run with another one is dropped
unfinished/parts/00003/…         the documents of one input, as shards of their own; part.json once they are whole
unfinished/joined/train-00007    the record of a shard of the whole, once it is written
unfinished/train/shard-00007.…   the shard

Where shards of the whole begin depends on the lengths of all documents before them. These are known once all parts are
there, and then any rank copies what goes into a shard, without reading an input again. For a while the text lies on the
disk twice. What a rank that is killed has noted stays, whoever goes on with it.
"""

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.checkpoint import write_file
from blt.data.index import SPLITS
from blt.data.join_parts import Piece, cut, write_shard, write_table
from blt.data.output_folder import OutputFolder
from blt.data.prepare_config import PrepareConfig
from blt.data.prepare_run import Meter, PrepareRun, Report
from blt.data.shard_folder import ShardFolder
from blt.data.sources import Hashing, Source
from blt.distributed import World
from blt.errors import BLTError, DataError

_LOGGER = logging.getLogger("blt.data")
_LOOK_SECONDS = 0.1
"""How often a rank looks for the notes of the others."""
_NOTES = ("sums", "parts", "joined", "plan.json", "meeting")


class Crew:
    """The ranks that prepare one folder, each with its share of the work."""

    def __init__(self, world: World, unfinished: Path) -> None:
        """Meet in the unfinished folder.

        Raises:
            DataError: the ranks do not see the same folder.
        """
        self.world, self.folder = world, unfinished
        token = float(time.time_ns() % 2**50)
        if world.is_main:
            shutil.rmtree(unfinished / "sums", ignore_errors=True)
            (unfinished / "sums").mkdir(parents=True)
            write_file(unfinished / "meeting", str(token).encode())
        token = world.from_main(token)
        meeting = unfinished / "meeting"
        is_seen = meeting.is_file() and meeting.read_bytes() == str(token).encode()
        if world.sum(is_seen) < world.size:
            what = "is not the same folder for all processes"
            raise DataError(f"{unfinished.parent}: {what}; choose an --out on a file system that all machines share")

    def share(self, work: list[Hashing]) -> list[tuple[int, str]]:
        """Hash this rank's share of the inputs, and return what all ranks have found."""
        notes = [self.folder / "sums" / f"{number:05d}.json" for number in range(len(work))]
        for number in self.own([job.num_bytes for job in work]):
            write_file(notes[number], json.dumps(work[number].hash()).encode())
        return [(int(size), str(sha256)) for size, sha256 in map(self.awaited, notes)]

    def own(self, costs: Sequence[int]) -> list[int]:
        """Return this rank's share of the work: the next largest piece goes to the rank with the least so far."""
        totals = [0] * self.world.size
        mine = []
        for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
            rank = min(range(self.world.size), key=totals.__getitem__)
            totals[rank] += costs[number] + 1
            if rank == self.world.rank:
                mine.append(number)
        return sorted(mine)

    def awaited(self, note: Path) -> Any:
        """Return what is in a note of any rank, once it is there."""
        # Ranks may be apart by hours, longer than they wait for each other in an exchange. Where one dies, whoever
        # started them ends the others.
        while not note.is_file():
            time.sleep(_LOOK_SECONDS)
        return json.loads(note.read_bytes())

    def give_up(self) -> None:
        """Delete what this meeting has left, where nothing is to be done."""
        self.world.wait()
        if self.world.is_main:
            for name in ("sums", "meeting"):
                _delete(self.folder / name)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Where the documents of one input are written."""

    out: Path
    unfinished: Path

    def start_over(self) -> None:
        """Delete what an interrupted run left."""
        shutil.rmtree(self.unfinished, ignore_errors=True)


def is_shared(unfinished: Path, world: World) -> bool:
    """Whether several ranks prepare a folder, or have begun to."""
    return world.size > 1 or (unfinished / "plan.json").is_file()


def delete_notes(unfinished: Path) -> None:
    """Delete all that is in the unfinished folder and does not belong into the finished one."""
    for name in _NOTES:
        _delete(unfinished / name)


def prepare_together(
    config: PrepareConfig,
    folder: OutputFolder,
    plan: dict[str, Any],
    sources: list[Source],
    crew: Crew,
    report: Report,
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Write the shards of both splits with all ranks.

    Args:
        config: how documents are divided.
        folder: where the shards are written.
        plan: everything that the result depends on.
        sources: all inputs.
        crew: this rank among all.
        report: told how far this rank is.

    Returns:
        The splits' entries in the index but for the checksum of their documents, and what was said of an empty input.
    """
    _keep_what_fits(folder.unfinished, plan, crew.world)
    own = crew.own([source.num_bytes for source in sources])
    meter = Meter(report, "writing", sum(sources[number].num_bytes for number in own))
    places = [folder.unfinished / "parts" / f"{number:05d}" for number in range(len(sources))]
    for number in own:
        _write_part(config, folder, places[number], plan, sources[number], meter)
    parts = [crew.awaited(place / "part.json") for place in places]
    empty = [part["empty"] for part in parts if part["empty"]]
    if crew.world.is_main and len(sources) > 1:
        for told in empty:
            _LOGGER.warning("%s; passed over", told)
    entries = {split: _join(config, folder, split, places, parts, crew) for split in SPLITS}
    return entries, empty[-1] if empty else None


def _keep_what_fits(unfinished: Path, plan: dict[str, Any], world: World) -> None:
    """Drop what an interrupted run left that had other inputs or settings, or was no run of several ranks."""
    note, content = unfinished / "plan.json", json.dumps(plan).encode()
    if world.is_main and not (note.is_file() and note.read_bytes() == content):
        for path in unfinished.iterdir():
            if path.name not in ("sums", "meeting"):
                _delete(path)
        write_file(note, content)
    world.wait()


def _write_part(
    config: PrepareConfig, folder: OutputFolder, place: Path, plan: dict[str, Any], source: Source, meter: Meter
) -> None:
    """Write the documents of one input, or go on with it."""
    if (place / "part.json").is_file():
        meter(source.num_bytes)
        return
    part = _Part(out=folder.out, unfinished=place)
    run = PrepareRun(config, part, plan)
    try:
        run.write([source], meter)
        note = {"splits": run.finish(), "empty": None if run.empty is None else str(run.empty)}
    except BLTError:
        part.start_over()  # the same input would fail again
        raise
    finally:
        run.close()
    write_file(place / "part.json", json.dumps(note).encode())


def _join(
    config: PrepareConfig, folder: OutputFolder, split: str, places: list[Path], parts: list[Any], crew: Crew
) -> dict[str, Any]:
    """Write this rank's share of a split's shards; return the split's entry once all are there."""
    opened = [ShardFolder(place, split, part["splits"][split]) for place, part in zip(places, parts, strict=True)]
    shards = cut(opened, shard_bytes=config.shard_bytes)
    notes = [folder.unfinished / "joined" / f"{split}-{number:05d}" for number in range(len(shards))]
    (folder.unfinished / "joined").mkdir(exist_ok=True)
    (folder.unfinished / split).mkdir(exist_ok=True)
    for number in crew.own([_size_of(pieces) for pieces in shards]):
        if not notes[number].is_file():
            record = write_shard(folder.unfinished, split, number, pieces=shards[number], parts=opened)
            write_file(notes[number], json.dumps(record.hex()).encode())
    records = [bytes.fromhex(crew.awaited(note)) for note in notes]
    entry: dict[str, Any] = {}
    crew.world.lead(lambda _: entry.update(write_table(folder.unfinished, split, records)))
    return entry


def _size_of(pieces: Sequence[Piece]) -> int:
    return sum(piece.num_bytes for piece in pieces)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
