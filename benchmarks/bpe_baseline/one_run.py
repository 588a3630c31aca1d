"""One run in a process of its own: `queue.py` starts it."""

import json
import math
import sys
from pathlib import Path

import torch

from blt.errors import ConfigurationError

from .plan import Job
from .queue import append
from .texts import Files
from .training import Prepared, run


def main() -> None:
    """Run the job that the first argument tells, and append what it came to."""
    torch.set_num_threads(1)
    told = json.loads(sys.argv[1])
    job, work = Job(**told["job"]), Path(told["work"])
    prepared = Prepared(Files(**told["files"]).corpus(job.corpus), work / job.corpus)
    try:
        found = run(job, prepared, keep=work / "models" / job.name if job.purpose == "budget" else None)
    except ConfigurationError as error:  # a rule that no threshold brings to that mean length
        found = {"failed": str(error), "dev_bits_per_byte": math.inf}
    append(work, job, found)
    print(job.name, f"{found['dev_bits_per_byte']:.4f}", f"{found.get('seconds', 0):.0f} s", flush=True)


if __name__ == "__main__":
    main()
