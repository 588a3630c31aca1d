"""Kill ranks of a run under torchrun at random moments by SIGKILL, and see that it goes on to the same end.

    python tests/kill_ranks.py --kills 30        some minutes; the test suite does 2

A third of the kills come at any moment, starts included, a third between the steps of training, and a third while a
checkpoint is being written. Then must hold: torchrun restarts all ranks, which go on after a checkpoint no older than
the last one that was whole at the kill; every step's loss and the model are those of a run that was never killed; and
nothing unfinished is left behind.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

from blt.checkpoint import load_tensors
from blt.training import load_recipe, run_recipe
from blt.training.monitor import read_metrics
from tiny_training import write_recipe

RANKS = 2
PATIENCE_SECONDS = 400.0
MOMENTS = ("save", "step", "any")


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What was killed when."""

    moment: str
    rank: int
    saved: int
    """Step of the last whole checkpoint of the BLT at that time; 0: none."""


def fields(*, steps: int, parallel: str) -> dict[str, str]:
    """Return what is changed in the tiny recipe."""
    return {
        "device": "cpu",
        "sample_prompt": "",
        "blt.sparse_ngrams": "true",
        "blt.loop.num_steps": str(steps),
        "blt.loop.validate_every": str(steps),
        "blt.loop.checkpoint_every": "4",
        "blt.loop.parallel": parallel,
        "entropy.loop.parallel": parallel,
    }


def start(recipe: Path, out: Path, *, changed: dict[str, str], restarts: int) -> subprocess.Popen[str]:
    """Start torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.1", "-m", "blt", "train", str(recipe)]
    command += ["--out", str(out), *(part for name, value in changed.items() for part in (f"--{name}", value))]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


def workers(agent: int) -> dict[int, int]:
    """Return the process of each rank that torchrun has started."""
    found = {}
    try:
        for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks = [int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")]
            found |= {rank: int(child) for rank in ranks}
    except (OSError, ValueError):
        return {}  # one has ended meanwhile
    return found


def last_saved(out: Path) -> int:
    """Return the step of the BLT's last whole checkpoint."""
    path = out / "blt" / "checkpoints" / "last.json"
    return int(json.loads(path.read_text())["folder"].removeprefix("step-")) if path.is_file() else 0


def wait_for(what: Callable[[], object], run: subprocess.Popen[str]) -> bool:
    """Whether something came about before the run ended."""
    started = time.monotonic()
    while run.poll() is None:
        if what():
            return True
        assert time.monotonic() - started < PATIENCE_SECONDS, "nothing happens any more"
        time.sleep(0.002)
    return False


def kill_one(
    run: subprocess.Popen[str], out: Path, *, moment: str, rng: random.Random, before: set[int]
) -> Kill | None:
    """Kill one of the ranks that follow those in `before`, and add them to it; None if the run has ended first."""

    def are_new() -> bool:
        processes = set(workers(run.pid).values())
        return len(processes) == RANKS and not processes & before

    if not wait_for(are_new, run):
        return None
    before |= set(workers(run.pid).values())
    seen = last_saved(out)
    if moment == "any":
        time.sleep(rng.uniform(0, 8))
    elif not wait_for(lambda: last_saved(out) > seen, run):  # this time it has trained
        return None
    if moment == "step":
        time.sleep(rng.uniform(0, 0.3))
    elif moment == "save":
        if not wait_for(lambda: any((out / "blt" / "checkpoints").glob(".step-*.saving")), run):
            return None
        time.sleep(rng.uniform(0, 0.03))
    rank = rng.randrange(RANKS)
    saved, process = last_saved(out), workers(run.pid).get(rank)
    if process is None:
        return None
    os.kill(process, signal.SIGKILL)
    return Kill(moment=moment, rank=rank, saved=saved)


def walk(root: Path, *, kills: int, seed: int, parallel: str = "fsdp", steps_per_kill: int = 14) -> list[Kill]:
    """Run once undisturbed, on as many ranks or, if the run is short, in one process; once with kills; and compare."""
    recipe, rng = write_recipe(root), random.Random(seed)
    changed = fields(steps=steps_per_kill * kills, parallel=parallel)
    whole, killed = root / "whole", root / "killed"
    if kills > 2:  # rounding differs with the number of ranks, and grows
        assert start(recipe, whole, changed=changed, restarts=0).wait() == 0, whole.with_suffix(".log").read_text()
    else:
        run_recipe(load_recipe(recipe, overrides=changed | {"out": str(whole)}))
    done: list[Kill] = []
    before: set[int] = set()
    run = start(recipe, killed, changed=changed, restarts=kills)
    try:
        for number in range(kills):
            kill = kill_one(run, killed, moment=MOMENTS[number % len(MOMENTS)], rng=rng, before=before)
            if kill is None:
                break
            done.append(kill)
        status = run.wait(timeout=10 * PATIENCE_SECONDS)
        assert status == 0, killed.with_suffix(".log").read_text()[-5000:]
    finally:
        for process in workers(run.pid).values():
            os.kill(process, signal.SIGABRT)  # the log then shows where it was
        run.kill()
    compare(whole, killed, done)
    return done


def compare(whole: Path, killed: Path, kills: list[Kill]) -> None:
    """Require that kills have cost steps alone."""
    said = killed.with_suffix(".log").read_text(errors="replace")
    went_on = [int(step.replace(",", "")) for step in re.findall(r"blt: going on after step ([\d,]+)", said)]
    for saved in (kill.saved for kill in kills if kill.saved):
        assert any(step >= saved for step in went_on), f"a checkpoint of step {saved} was lost"
    assert went_on == sorted(went_on), "a run went back"
    for stage in ("entropy", "blt"):
        wanted, found = (losses(out / stage) for out in (whole, killed))
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    of_whole, of_killed = (load_tensors(out / "model" / "model.safetensors") for out in (whole, killed))
    for name, tensor in of_whole.items():
        torch.testing.assert_close(of_killed[name], tensor, rtol=1e-3, atol=1e-3)
    left = [path for path in killed.rglob(".*") if path.name != ".lock"]
    assert not left, left


def losses(folder: Path) -> list[tuple[int, float]]:
    """Return the loss of each step, in bits per byte."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["step"], row["bits_per_byte"]) for row in rows if "bits_per_byte" in row]


def main() -> None:
    """Run as told on the command line."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="fsdp")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kill-ranks-"))
    done = walk(root, kills=given.kills, seed=given.seed, parallel=given.parallel)
    for kill in done:
        print(kill)
    print(f"{len(done)} kills: the same losses and the same model")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
