# ruff: noqa: E402, PTH100, PTH110, PTH112, PTH113, SIM115 (paths of any type; processes end without closing)
"""Stop every writing command at every file operation, by SIGKILL and by a full disk, and see what is left.

    python tests/kill_everywhere.py                 every command, every moment (some ten minutes)
    python tests/kill_everywhere.py --moments 6     6 moments of each command, as the test suite does
    python tests/kill_everywhere.py train convert   these commands only

Each command runs in a forked process that counts its file operations and stops at one of them: a write is stopped half
done. Then must hold: what is the user's is as it was; at the name of the output is the old one, the new one or, where
there was none, nothing; and the same command, given again, ends with the same bytes as one that was never stopped, and
leaves nothing else behind.
"""

import argparse
import builtins
import errno
import io
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

torch.set_num_threads(1)

from blt.api import ByteLM
from blt.cli import main
from blt.compression import compress
from blt.training import monitor, validation
from llama_models import new_llama
from tiny_config import TINY_CONFIG
from tiny_training import made_up_documents, write_recipe, write_text

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree")
ALLOCATES = ("os.mkdir", "os.link", "os.symlink")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command and what it may touch."""

    run: Callable[[], None]
    """What is given, in the folder of the walk."""
    out: str
    """What it writes."""
    has_old: bool = True
    """Whether something stands there before: what the command wrote from `before`."""
    before: Callable[[], None] | None = None
    """Makes what stands there."""
    is_whole: bool = True
    """Whether the output is old or new at every moment; a run folder grows."""


def blt(*arguments: str) -> Callable[[], None]:
    return lambda: main(list(arguments))


def save(name: str) -> Callable[[], None]:
    return lambda: ByteLM.from_pretrained(name).save_pretrained("out", max_shard_bytes=20_000)


def link_models() -> None:
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG).eval()
    lm.save_pretrained("model")
    Path("thesis.tex.blt").write_bytes(compress(lm.to_type("int8"), THESIS))
    torch.manual_seed(2)
    ByteLM.new(TINY_CONFIG).eval().save_pretrained("other")


THESIS = b"years of work"
PREPARE = ("prepare", "a.txt", "b.txt", "--validation", "0.2", "--shard-mb", "0.001", "--out", "out")
SMALL = ("--hash_embedding.num_rows", "16", "--local_encoder.dim", "16", "--local_encoder.num_heads", "2")
SMALL += ("--local_decoder.dim", "16", "--local_decoder.num_heads", "2", "--local_decoder.num_layers", "1")
BYTEIFY = ("byteify", "llama", "--entropy", "model", "--out", "out", *SMALL)
CALIBRATE = ("calibrate", "--data", "a.txt", "--out", "out", "--model", "model", "--mean-patch")
TRAIN = ("train", "recipe.toml", "--device", "cpu", "--out", "out", "--sample_prompt", "Tom")
TRAIN += ("--entropy.loop.num_steps", "2", "--blt.loop.num_steps", "3", "--blt.loop.validate_every", "2")
COMMANDS = {
    "prepare": Command(run=blt(*PREPARE), out="out", has_old=False),
    "prepare --overwrite": Command(
        run=blt(*PREPARE, "--overwrite"), out="out", before=blt(*PREPARE, "--overwrite", "--seed", "7")
    ),
    "save": Command(run=save("model"), out="out", before=save("other")),
    "convert": Command(
        run=blt("convert", "model", "--out", "out"), out="out", before=blt("convert", "other", "--out", "out")
    ),
    "byteify": Command(run=blt(*BYTEIFY), out="out", before=save("other")),
    "calibrate": Command(run=blt(*CALIBRATE, "4"), out="out", before=blt(*CALIBRATE, "3")),
    "patch --html": Command(
        run=blt("patch", "Tom saw a dog.", "--model", "model", "--html", "out.html"),
        out="out.html",
        before=blt("patch", "an old text", "--model", "model", "--html", "out.html"),
    ),
    "plot": Command(
        run=blt("plot", "Tom saw a dog.", "--model", "model", "--out", "out.svg"),
        out="out.svg",
        before=blt("plot", "an old text", "--model", "model", "--out", "out.svg"),
    ),
    "compress": Command(
        run=blt("compress", "thesis.tex", "--force", "--model", "model", "-o", "out.blt"),
        out="out.blt",
        before=blt("compress", "thesis.tex.blt", "--force", "--model", "model", "-o", "out.blt"),
    ),
    "decompress": Command(
        run=blt("decompress", "thesis.tex.blt", "--force", "--model", "model", "-o", "out.tex"),
        out="out.tex",
        before=lambda: shutil.copy("a.txt", "out.tex"),
    ),
    "train": Command(run=blt(*TRAIN), out="out", has_old=False, is_whole=False),
}


class Stop:
    """Counts the file operations of this process under a folder and stops at one of them."""

    def __init__(self, root: Path, moment: int, *, is_full: bool) -> None:
        self.root, self.moment, self.is_full, self.count = f"{root}{os.sep}", moment, is_full, 0
        self.open = io.open
        sys.addaudithook(self.watch)
        io.open = builtins.open = self.opened  # pathlib and the built-in function

    def is_here(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(self.root)

    def watch(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if self.is_here(path) and (writes or os.path.isdir(path)):
                self.operation(path, allocates=writes and not os.path.exists(path))
        elif event in CHANGES:
            has_descriptor = isinstance(arguments[-1], int) and arguments[-1] > 2 and event in ("os.remove", "os.rmdir")
            if has_descriptor or self.is_here(arguments[0]):
                self.operation(arguments[0], allocates=event in ALLOCATES)

    def operation(self, path: object, *, allocates: bool, first: Callable[[], None] = lambda: None) -> None:
        self.count += 1
        if self.count - 1 < self.moment or (self.count - 1 > self.moment and not self.is_full):
            return
        if not self.is_full:
            first()
            os.kill(os.getpid(), signal.SIGKILL)
        if allocates:
            first()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    def opened(self, file: object, mode: str = "r", *arguments: object, **options: object) -> object:
        opened = self.open(file, mode, *arguments, **options)
        is_watched = set(mode) & set("wax+") and self.is_here(file) and os.path.isfile(file)
        return Torn(opened, file, self) if is_watched else opened


class Torn:
    """A file whose writes can be stopped half done."""

    def __init__(self, file: object, path: object, stop: Stop) -> None:
        self.file, self.path, self.stop = file, path, stop

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: object) -> int:
        def half() -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()

        self.stop.operation(self.path, allocates=len(content) > 0, first=half)
        return self.file.write(content)


def in_a_child(root: Path, run: Callable[[], None], stop: Callable[[], Stop | None]) -> tuple[int, int, str]:
    """Run something in a forked process, in the folder.

    Returns:
        Its status as a shell tells it (-9: killed), the operations that it counted, and what it said.
    """
    log = tempfile.TemporaryFile()
    count_file = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.chdir(root)
            counter = stop()
            try:
                run()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
                status = 2 if isinstance(sys.exception(), OSError) else 3
            if counter is not None:
                os.write(count_file.fileno(), str(counter.count).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log.seek(0)
    count_file.seek(0)
    return status, int(count_file.read() or 0), log.read().decode(errors="replace")


def tree(root: Path) -> dict[str, bytes | None]:
    """Return what lies in a folder: files with their content, folders with None."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
        if path.name not in (".lock",)
    }


def without_times(content: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Leave out the content of files that hold times."""
    return {
        name: b"" if name.endswith(("metrics.jsonl", "unlogged.json", "state.json", "curves.png")) else value
        for name, value in content.items()
    }


def lay_out(root: Path) -> None:
    """Make what the commands read, with a file of the user's beside."""
    write_recipe(root, documents=made_up_documents(12, max_words=12), validation=0.3)
    for number, name in enumerate("ab"):
        write_text(root / f"{name}.txt", made_up_documents(20, seed=number, max_words=12))
    (root / "thesis.tex").write_bytes(THESIS)
    new_llama().save_pretrained(root / "llama")


class WalkError(Exception):
    """A moment at which something was lost, or after which the command does not end as it should."""


def walk(name: str, source: Path, root: Path, *, is_full: bool, moments: int | None) -> str:
    """Stop one command at its file operations.

    Args:
        name: of the command.
        source: what `lay_out` made.
        root: where to run; made anew each time.
        is_full: let the disk be full from that moment on, in place of a kill.
        moments: how many, spread evenly; None: all.
    """
    command = COMMANDS[name]

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(source, root)

    fresh()
    if command.has_old:
        require(in_a_child(root, command.before, lambda: None), 0, name, "before")
        source = Path(shutil.copytree(root, f"{root}.old-{name.replace(' ', '')}"))
        fresh()
    old = tree(root)
    said = in_a_child(root, command.run, lambda: Stop(root, sys.maxsize, is_full=False))
    require(said, 0, name, "undisturbed")
    new, total = without_times(tree(root)), said[1]
    step = 1 if moments is None else max(1, total // moments)
    offset = 0 if moments is None else step // 2
    for moment in range(offset, total, step):
        where = f"{name}, {'full disk' if is_full else 'killed'} at operation {moment} of {total}"
        fresh()
        status, _, said_then = in_a_child(root, command.run, lambda at=moment: Stop(root, at, is_full=is_full))
        if is_full:
            lines = [line for line in said_then.splitlines() if "No space left on device" in line]
            if status != 2 or "make room and run the same command again" not in (lines or [""])[-1]:
                if status != 0:  # nothing was allocated after that moment
                    raise WalkError(f"{where}: status {status}, said {said_then[-800:]}")
            elif ".unfinished" in lines[-1] or ".saving" in lines[-1]:
                raise WalkError(f"{where}: names a hidden file: {lines[-1]}")
        elif status != -signal.SIGKILL:
            raise WalkError(f"{where}: status {status}, said {said_then[-800:]}")
        check_left(without_times(tree(root)), without_times(old), new, command, where)
        require(in_a_child(root, command.run, lambda: None), 0, where, "again")
        again = without_times(tree(root))
        if again != new:
            differ = sorted(key for key in again.keys() | new.keys() if again.get(key, 0) != new.get(key, 0))
            raise WalkError(f"{where}: the same command then ends otherwise: {differ}")
    return f"{name}: {len(range(offset, total, step))} of {total} moments, {'full disk' if is_full else 'killed'}"


def require(result: tuple[int, int, str], status: int, name: str, which: str) -> None:
    if result[0] != status:
        raise WalkError(f"{name}, {which}: status {result[0]}, said {result[2][-1500:]}")


def check_left(found: dict, old: dict, new: dict, command: Command, where: str) -> None:
    """Require that nothing of the user's is lost, and that the output is whole."""

    def part(content: dict, *, is_out: bool) -> dict:
        return {
            name: value
            for name, value in content.items()
            if (name.split("/")[0] == command.out) == is_out and not name.startswith(".")
        }

    if part(found, is_out=False) != part(old, is_out=False):
        raise WalkError(f"{where}: something of the user's has changed")
    if command.is_whole and part(found, is_out=True) not in (part(old, is_out=True), part(new, is_out=True)):
        raise WalkError(f"{where}: {command.out} is neither the old one nor the new one")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=f"of {', '.join(COMMANDS)}; all by default")
    parser.add_argument("--moments", type=int, help="how many of each command, spread evenly; all by default")
    parser.add_argument("--only", choices=("killed", "full"), help="one way to stop; both by default")
    options = parser.parse_args()
    os.fsync = lambda descriptor: None  # a kill loses nothing that was written, and disks may be slow
    validation.SAMPLE_BYTES = 8
    monitor.can_draw = lambda: False  # drawing takes longer than all the rest
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = str(Path(scratch) / "cache")
        os.environ["BLT_NATIVE"] = "0"
        source = Path(scratch) / "source"
        source.mkdir()
        lay_out(source)
        require(in_a_child(source, link_models, lambda: None), 0, "models", "made")
        for name in options.commands or COMMANDS:
            for is_full in (False, True):
                if options.only in (None, "full" if is_full else "killed"):
                    print(
                        walk(name, source, Path(scratch) / "walk", is_full=is_full, moments=options.moments), flush=True
                    )
                    for path in Path(scratch).glob("walk.old-*"):
                        shutil.rmtree(path)


if __name__ == "__main__":
    run()
