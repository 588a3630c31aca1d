"""Records: what was measured, by which command, of which commit, on which machine."""

import datetime
import json
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent


def write_record(path: Path, *, claim: str, device: str, results: Any) -> None:
    """Write a record as JSON.

    Args:
        path: where to.
        claim: the sentence that the results bear out, or not.
        device: as PyTorch names it.
        results: plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"claim": claim, "command": command()} | circumstances(device) | {"results": results}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def command() -> str:
    """Return the command line, as typed from the root of the repository; of paths elsewhere, the last name alone."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    how = ["-m", ".".join(Path(name).parent.parts)] if script.name == "__main__.py" else [str(name)]
    arguments = [re.sub(r"(^|=)/\S*/", r"\1", argument) for argument in sys.argv[1:]]
    return shlex.join(["python", *how, *arguments])


def circumstances(device: str) -> dict[str, Any]:
    """Return everything about the machine and the code that a figure may depend on."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """Return the commit; `+changes` if tracked files differ from it, `unknown` outside a checkout."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def device_name(device: str) -> str:
    """Return the name of the GPU, or of the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
