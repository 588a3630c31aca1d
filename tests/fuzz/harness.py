"""Registers fuzzers and runs each in a process of its own, with limits on memory and time."""

import dataclasses
import faulthandler
import hashlib
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.errors
from tests.fuzz.mutations import Value, mutated

from blt.errors import BLTError

MEMORY_BYTES = 2 << 30
SECONDS_PER_INPUT = 20
_TICKS = 20
_POLL_SECONDS = 0.02
SHRINK_SECONDS = 60
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # in memory, where there is such a folder
FAILURES = Path(__file__).parent / "failures"

Check = Callable[[Value, Path], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fuzzer:
    """A function that reads one input."""

    name: str
    check: Check
    seeds: Callable[[], list[Value]]
    strategy: hypothesis.strategies.SearchStrategy | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a fuzzer."""

    name: str
    num_inputs: int
    failure: str | None = None
    """The last line of the traceback, or the signal; None if nothing failed."""
    saved: Path | None = None
    """Where the smallest input that fails is."""


FUZZERS: dict[str, Fuzzer] = {}


def fuzzer(
    *, seeds: Callable[[], list[Value]], strategy: hypothesis.strategies.SearchStrategy | None = None
) -> Callable[[Check], Check]:
    """Register a function of an input and an empty folder.

    Args:
        seeds: gives sound inputs, and those that once failed; each is `bytes`, or a folder as file names and contents.
        strategy: other inputs than mutations of the seeds.
    """

    def register(check: Check) -> Check:
        assert check.__name__ not in FUZZERS, f"two fuzzers are called {check.__name__}"
        FUZZERS[check.__name__] = Fuzzer(name=check.__name__, check=check, seeds=seeds, strategy=strategy)
        return check

    return register


def run(fuzzer: Fuzzer, *, seconds: float, seed: int = 0, failures: Path = FAILURES) -> Outcome:
    """Run one fuzzer.

    Args:
        fuzzer: which.
        seconds: for how long; an input that fails gets some more to be made smaller.
        seed: another one draws other inputs.
        failures: where to put what fails.
    """
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        folder = Path(scratch)
        status = _in_child(lambda: _try_seeds(fuzzer, folder))
        end = time.monotonic() + seconds
        while status == 0 and not (folder / "failure.json").exists() and time.monotonic() < end:
            seed += 1
            status = _in_child(lambda seed=seed: _run_round(fuzzer, folder, end=end, seed=seed))
        counted = folder / "count"
        num_inputs = len(counted.read_bytes()) if counted.exists() else 0
        if status == 0 and not (folder / "failure.json").exists():
            return Outcome(name=fuzzer.name, num_inputs=num_inputs)
        failure = _failure(fuzzer, folder, status)
        saved = _keep(fuzzer, folder, failure, failures)
        return Outcome(name=fuzzer.name, num_inputs=num_inputs, failure=failure["kind"], saved=saved)


def _failure(fuzzer: Fuzzer, folder: Path, status: int) -> dict[str, str]:
    """Return what failed, and see to it that the smallest input is there."""
    note = folder / "failure.json"
    if note.exists():
        return json.loads(note.read_text())
    if (folder / "current").exists():
        _minimise_crash(fuzzer, folder)
        shutil.move(folder / "current", folder / "smallest")
    return {"kind": _describe(status), "traceback": _describe(status)}


def execute(check: Check, value: Value, folder: Path) -> None:
    """Return a fuzzer one input, and pass on only what it must not do."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tick = SECONDS_PER_INPUT / _TICKS
    signal.signal(signal.SIGALRM, _Ticks())
    signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        check(value, folder)
    except BLTError as error:
        if not str(error) or "\n" in str(error):
            raise AssertionError(f"{type(error).__name__} is not one line: {str(error)!r}") from None
    except SystemExit as error:
        if error.code not in (0, 2, None):
            raise AssertionError(f"ended with status {error.code}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _TooLongError(BaseException):
    """An input takes too long; no `except Exception` may swallow it."""


class _Ticks:
    """Answers each tick of the clock, and stops an input at the last one.

    Ticks are counted, not time, since a process that is stopped for a while (SIGSTOP) gets one at most meanwhile.
    """

    def __init__(self) -> None:
        self._left = _TICKS

    def __call__(self, signum: int, frame: object) -> None:
        self._left -= 1
        if self._left <= 0:
            raise _TooLongError(f"longer than {SECONDS_PER_INPUT} s")


def _try_seeds(fuzzer: Fuzzer, folder: Path) -> None:
    """Run in the first child: make the seeds, and try them as they are."""
    seeds = fuzzer.seeds()
    (folder / "seeds").write_bytes(pickle.dumps(seeds))
    recorder = _Recorder(fuzzer, folder)
    for value in seeds:
        if not recorder.survives(value):
            minimise(value, lambda value: not recorder.survives(value))
            return


def _run_round(fuzzer: Fuzzer, folder: Path, *, end: float, seed: int) -> None:
    """Run in a child of its own, so that memory that libraries keep does not add up: try inputs that are drawn."""
    recorder = _Recorder(fuzzer, folder)
    strategy = mutated(pickle.loads((folder / "seeds").read_bytes()))
    strategy = strategy if fuzzer.strategy is None else hypothesis.strategies.one_of(strategy, fuzzer.strategy)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=500,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(strategy)
    def one_round(value: Value) -> None:
        first = recorder.first_failure
        is_over = time.monotonic() > (end if first is None else first + SHRINK_SECONDS / 2)
        assert is_over or recorder.survives(value)

    try:
        one_round()
    except (AssertionError, hypothesis.errors.HypothesisException):
        if recorder.first_failure is None:
            raise
    if recorder.first_failure is not None:
        minimise(_read_value(folder / "smallest"), lambda value: not recorder.survives(value))


class _Recorder:
    """Tries inputs, and keeps the smallest that fails."""

    def __init__(self, fuzzer: Fuzzer, folder: Path) -> None:
        self._check = fuzzer.check
        self._folder = folder
        self._smallest: int | None = None
        self.first_failure: float | None = None
        """When it was."""

    def survives(self, value: Value) -> bool:
        with (self._folder / "count").open("ab") as file:
            file.write(b".")
        write_value(value, self._folder / "current")  # what is there after a crash is what crashed
        try:
            execute(self._check, value, self._folder / "scratch")
        except (Exception, _TooLongError, KeyboardInterrupt) as error:
            self._note(value, error)
            return False
        return True

    def _note(self, value: Value, error: BaseException) -> None:
        size = len(value) if isinstance(value, bytes) else sum(map(len, value.values()))
        if self.first_failure is None:
            self.first_failure = time.monotonic()
        if self._smallest is not None and size >= self._smallest:
            return
        self._smallest = size
        write_value(value, self._folder / "smallest")
        text = "".join(traceback.format_exception(error))
        kind = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        (self._folder / "failure.json").write_text(json.dumps({"kind": kind, "traceback": text}))


def write_value(value: Value, path: Path) -> None:
    """Put an input on the disk, a folder as one."""
    if isinstance(value, bytes):
        path.write_bytes(value)
        return
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in value.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _read_value(path: Path) -> Value:
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def _mapped_bytes() -> int:
    """Return the address space that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _in_child(work: Callable[[], None], seconds: float = 240) -> int:
    """Run in a child with limits, of time too; return its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            limit = _mapped_bytes() + MEMORY_BYTES  # beside what a large parent, such as the whole suite, has mapped
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            logging.disable()
            faulthandler.disable()
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    for _ in range(int(seconds / _POLL_SECONDS)):  # counted, since this process may be stopped for a while too
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(_POLL_SECONDS)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"{name}{' (it hung)' if name == 'SIGKILL' else ''}"
    return f"the fuzzer itself ended with status {os.waitstatus_to_exitcode(status)}"


def _minimise_crash(fuzzer: Fuzzer, folder: Path) -> None:
    """Make an input that ends the process smaller, each try in a process of its own."""

    def fails(value: Value) -> bool:
        work = lambda: execute(fuzzer.check, value, folder / "scratch")  # noqa: E731 (runs in a child)
        return os.WIFSIGNALED(_in_child(work, SECONDS_PER_INPUT + 5))

    write_value(minimise(_read_value(folder / "current"), fails), folder / "current")


def minimise(value: Value, fails: Callable[[Value], bool]) -> Value:
    """Leave out parts of an input, smaller and smaller ones, for as long as it still fails and there is time.

    Args:
        value: fails.
        fails: whether another one does.
    """
    end = time.monotonic() + SHRINK_SECONDS
    if isinstance(value, bytes):
        return _minimise_bytes(value, fails, end)
    for name in sorted(value):
        value[name] = _minimise_bytes(value[name], lambda part, name=name: fails({**value, name: part}), end)
    return value


def _minimise_bytes(data: bytes, fails: Callable[[bytes], bool], end: float) -> bytes:
    size = len(data)
    while size:
        start = 0
        while start < len(data):
            if time.monotonic() > end:
                return data
            shorter = data[:start] + data[start + size :]
            if fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data


def _keep(fuzzer: Fuzzer, folder: Path, failure: dict[str, str], failures: Path) -> Path | None:
    """Copy what failed to where it stays, under a name that its kind gives."""
    failures.mkdir(parents=True, exist_ok=True)
    saved = failures / f"{fuzzer.name}-{hashlib.sha256(failure['kind'].encode()).hexdigest()[:8]}"
    saved.with_suffix(".txt").write_text(failure["traceback"])
    if not (folder / "smallest").exists():
        return None
    if saved.is_dir():
        shutil.rmtree(saved)
    shutil.move(folder / "smallest", saved)
    return saved
