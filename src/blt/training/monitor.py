"""What a run shows and keeps: a progress bar, `metrics.jsonl`, curves, TensorBoard if asked."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from blt.errors import MissingExtraError
from blt.training.checkpoints import Progress
from blt.training.curves import draw_curves
from blt.training.recipe import LoopConfig

NATS_PER_BIT = math.log(2.0)


class Monitor:
    """Follows one stage. On ranks other than the first it does nothing."""

    def __init__(
        self, folder: Path, *, stage: str, config: LoopConfig, is_main: bool = True, tensorboard: bool = False
    ) -> None:
        """Args: folder: the stage's; stage: its name; config: its loop; tensorboard: write event files as well."""
        self.folder = folder
        self.stage = stage
        self.config = config
        self.is_main = is_main
        self.mean_patch_bytes: float | None = None
        self.console = Console(stderr=True)
        self.metrics = folder / "metrics.jsonl"
        self._writer: Any = open_tensorboard(folder / "tensorboard") if tensorboard and is_main else None
        self._nats, self._targets, self._seconds = 0.0, 0, 0.0
        self._since = time.perf_counter()
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def start(self, progress: Progress) -> None:
        """Begin to follow; metrics written after the checkpoint that the run goes on from are dropped."""
        if not self.is_main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.metrics) if row["step"] <= progress.step]
        self.metrics.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        if self.console.is_terminal:
            columns = ("{task.description}", "{task.completed:,.0f}/{task.total:,.0f}", "{task.fields[figures]}")
            left, count, figures = (TextColumn(column) for column in columns)
            self._bar = Bar(
                left, BarColumn(), count, figures, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console
            )
            total = self.config.num_steps
            self._task = self._bar.add_task(self.stage, total=total, completed=progress.step, figures="")
            self._bar.start()

    def step(self, progress: Progress, *, nats: float, num_targets: int, norm: float, factor: float) -> None:
        """Note one optimiser step."""
        if not self.is_main:
            return
        self._nats += nats
        self._targets += num_targets
        if progress.step % self.config.log_every and progress.step != self.config.num_steps:
            return
        now = time.perf_counter()
        row = {
            "step": progress.step,
            "bytes": progress.num_bytes,
            "bits_per_byte": self._nats / self._targets / NATS_PER_BIT,
            "bytes_per_second": self._targets / (now - self._since),
            "gradient_norm": norm,
            "learning_rate_factor": factor,
            "seconds": progress.seconds,
        }
        self._nats, self._targets, self._since = 0.0, 0, now
        self._keep(row)
        self._show(row)

    def validation(self, progress: Progress, *, bits_per_byte: float) -> None:
        """Note a held-out figure, and draw the curves again."""
        if not self.is_main:
            return
        self._keep({"step": progress.step, "bytes": progress.num_bytes, "validation_bits_per_byte": bits_per_byte})
        best = "" if progress.best_bits_per_byte != bits_per_byte else " (best)"
        self.say(f"{self.stage} step {progress.step:,}: held-out {bits_per_byte:.4f} bits per byte{best}")
        draw_curves(read_metrics(self.metrics), self.folder / "curves.png", title=self.stage)
        self._since = time.perf_counter()

    def say(self, line: str) -> None:
        """Show a line above the progress bar."""
        if self.is_main:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """End the display; files are complete at any time."""
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def _keep(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])

    def _show(self, row: dict[str, Any]) -> None:
        patch = "" if self.mean_patch_bytes is None else f" · {self.mean_patch_bytes:.2f} bytes/patch"
        figures = f"{row['bits_per_byte']:.3f} BPB · {row['bytes_per_second'] / 1000:.1f} kB/s{patch}"
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], figures=figures)
        else:
            left = (self.config.num_steps - row["step"]) * row["seconds"] / row["step"]
            self.say(
                f"{self.stage} step {row['step']:,}/{self.config.num_steps:,} · {figures} · {left / 60:.1f} min left"
            )
            sys.stderr.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; a last line cut short by a kill is dropped."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def open_tensorboard(folder: Path) -> Any:
    """Open TensorBoard's writer.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", extra="track", purpose="tensorboard = true") from None
    return SummaryWriter(str(folder))
