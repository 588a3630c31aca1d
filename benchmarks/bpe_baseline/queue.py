"""Runs the plan's jobs, a few side by side, and keeps each finished one as a line of JSON; stopped, it goes on."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .plan import Job, in_order
from .texts import Files

RESULTS = "results.jsonl"


def read_results(work: Path) -> dict[str, dict[str, Any]]:
    """Return what has finished, by the names of jobs; a line cut short by a kill is dropped."""
    path, found = work / RESULTS, {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["name"]] = row
    return found


def work_off(files: Files, work: Path, *, corpora: tuple[str, ...], workers: int, seconds: float | None = None) -> bool:
    """Run jobs until none is left, or until the time is over: then what runs is finished, and nothing is begun.

    Returns:
        Whether everything has run.
    """
    started, running, broken = time.monotonic(), dict[str, subprocess.Popen[bytes]](), set[str]()
    while True:
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                if process.returncode:
                    broken.add(name)
                    print(f"{name}: exit status {process.returncode}; see its lines above", flush=True)
        results = read_results(work)
        jobs = (job for job in in_order(results, corpora=corpora) if job.name not in broken | results.keys())
        waiting = {job.name: job for job in jobs}
        is_over = seconds is not None and time.monotonic() - started > seconds
        if not running and (is_over or not waiting):
            return not waiting and not broken
        for name, job in waiting.items():
            if len(running) < workers and name not in running and not is_over:
                running[name] = start(job, files, work)
        time.sleep(0.5)


def start(job: Job, files: Files, work: Path) -> subprocess.Popen[bytes]:
    """Start one job in a process of its own."""
    told = json.dumps({"job": asdict(job), "files": asdict(files), "work": str(work)})
    return subprocess.Popen([sys.executable, "-m", "benchmarks.bpe_baseline.one_run", told])


def append(work: Path, job: Job, found: dict[str, Any]) -> None:
    """Keep what a job came to, as one write."""
    line = json.dumps({"name": job.name, "job": asdict(job)} | found) + "\n"
    with (work / RESULTS).open("a", encoding="utf-8") as file:
        file.write(line)
