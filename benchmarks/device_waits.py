"""How often the host waits for a GPU, and what it copies: per training step and per byte, before and after a change.

    python benchmarks/device_waits.py --before COMMIT --out benchmarks/records/device-waits.json

Counted with the stand-in for a GPU of the tests, which computes on the CPU: counts do not depend on the hardware. What
`before` gives is counted by the same worker and the same stand-in with the code of that commit.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from record import write_record

ROOT = Path(__file__).parent.parent
CLAIM = (
    "Counted on a stand-in for a GPU, per optimiser step and per pass that writes a byte of all rows: a training step "
    "waits for the GPU once per row of metrics, and once more where n-gram gradients are sparse; ordinary decoding "
    "waits twice per byte (where patches end, and the logits), static steps once"
)


def count(source: Path) -> dict[str, Any]:
    """Count with the code in a folder."""
    paths = os.pathsep.join([str(source), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("device_waits_worker.py"))],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def count_at(commit: str) -> dict[str, Any]:
    """Count with the code of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        return count(Path(folder, "src"))


@click.command()
@click.option("--before", metavar="COMMIT", help="Count with the code of this commit as well.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a record there.")
def main(before: str | None, out: Path | None) -> None:
    """Count, and show what was counted."""
    results: dict[str, Any] = {}
    if before is not None:
        results["before"] = {"commit": before} | count_at(before)
    results["after"] = count(ROOT / "src")
    click.echo(json.dumps(results, indent=2))
    if out is not None:
        write_record(out, claim=CLAIM, device="cpu", results=results)


if __name__ == "__main__":
    main()
