"""Runs the plan's jobs, a few side by side, and keeps each finished one as a line of JSON; stopped, it goes on."""

import json
import multiprocessing
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from .one_run import run_and_keep
from .plan import in_order
from .texts import Files


def read_results(runs: Path) -> dict[str, dict[str, Any]]:
    """Return what has finished, by the names of jobs; a line cut short by a kill is dropped."""
    found = {}
    for line in runs.read_text(encoding="utf-8").split("\n") if runs.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["name"]] = row
    return found


def end_with_parent() -> None:
    """End this process when its parent ends, however that ends: a worker would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work_off(
    files: Files, *, work: Path, runs: Path, corpora: tuple[str, ...], workers: int, seconds: float | None = None
) -> bool:
    """Run jobs until none is left, or until the time is over: then what runs is finished, and nothing is begun.

    Args:
        files: the texts.
        work: a folder for what the runs share, and for models.
        runs: the file of finished runs.
        corpora: which texts.
        workers: runs side by side.
        seconds: the time; None: as long as it takes.

    Returns:
        Whether everything has run.
    """
    started, broken, running = time.monotonic(), set[str](), dict[Future[None], str]()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        while True:
            results = read_results(runs)
            done = results.keys() | broken
            waiting = {job.name: job for job in in_order(results, corpora=corpora) if job.name not in done}
            is_over = seconds is not None and time.monotonic() - started > seconds
            if not running and (is_over or not waiting):
                return not waiting and not broken
            for name, job in waiting.items():
                if len(running) < workers and name not in running.values() and not is_over:
                    running[pool.submit(run_and_keep, job, files, work, runs)] = name
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name, error = running.pop(future), future.exception()
                if error is not None:
                    broken.add(name)
                    print(f"{name}: failed, {type(error).__name__}: {error}", flush=True)
