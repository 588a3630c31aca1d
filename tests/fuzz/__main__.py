"""`python -m tests.fuzz`: run all fuzzers, or those that are named."""

import argparse
import importlib
import sys
from pathlib import Path

import torch
from tests.fuzz.harness import FAILURES, FUZZERS, run


def main() -> int:
    torch.set_num_threads(1)  # no thread may hold a lock while children fork
    for path in sorted(Path(__file__).parent.glob("fuzz_*.py")):
        importlib.import_module(f"tests.fuzz.{path.stem}")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FUZZERS)}; all if none is given")
    parser.add_argument("--seconds", type=float, default=60, help="for how long each runs")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other inputs")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(FUZZERS)):
        parser.error(f"no fuzzer {', '.join(unknown)}; there are {', '.join(FUZZERS)}")
    num_failed = 0
    for name in options.names or FUZZERS:
        outcome = run(FUZZERS[name], seconds=options.seconds, seed=options.seed * 1_000_000, failures=FAILURES)
        num_failed += outcome.failure is not None
        print(f"{name:<24} {outcome.num_inputs:>8,} inputs  {_summary(outcome.failure, outcome.saved)}", flush=True)
    return 1 if num_failed else 0


def _summary(failure: str | None, saved: Path | None) -> str:
    return "nothing failed" if failure is None else f"FAILED: {failure[:200]} ({saved})"


if __name__ == "__main__":
    sys.exit(main())
