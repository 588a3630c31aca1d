"""What a run shows and keeps: a progress bar, `metrics.jsonl`, curves, TensorBoard if asked."""

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from blt.checkpoint import load_json, named_failures, write_file, write_json
from blt.errors import CheckpointError, MissingExtraError
from blt.training.checkpoints import Progress
from blt.training.recipe import LoopConfig

NATS_PER_BIT = math.log(2.0)


class Monitor:
    """Follows one stage; where `is_main` is false, it does nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        config: LoopConfig,
        console: Console,
        is_main: bool = True,
        tensorboard: bool = False,
        mean_patch_bytes: float | None = None,
    ) -> None:
        """Start to follow a run.

        Args:
            folder: the stage's.
            stage: its name.
            config: its loop.
            console: where to show progress: a bar in a terminal, lines elsewhere.
            is_main: whether this process is the one that writes.
            tensorboard: write event files as well.
            mean_patch_bytes: to be shown beside the other figures.
        """
        self.folder = folder
        self.stage = stage
        self.config = config
        self.console = console
        self.is_main = is_main
        self.metrics = folder / "metrics.jsonl"
        self._wants_tensorboard = tensorboard
        self._patches = "" if mean_patch_bytes is None else f" · {mean_patch_bytes:.2f} bytes/patch"
        self._nats, self._num_bytes, self._seconds_before = 0.0, 0, 0.0  # since the last row
        self._saved: dict[str, Any] = {}  # the same, by the step of a checkpoint
        self._writer: Any = None
        self._bar: Bar | None = None
        self._task = TaskID(0)

    @contextmanager
    def following(self, progress: Progress) -> Iterator[None]:
        """Show and keep what happens; metrics written after the checkpoint that the run goes on from are dropped.

        Raises:
            CheckpointError: metrics or what was kept of the next row are damaged.
            MissingExtraError: TensorBoard is asked for and not installed.
        """
        if not self.is_main:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.metrics) if row["step"] <= progress.step]
        write_file(self.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._go_on_with_row(progress)
        if self._wants_tensorboard:
            self._writer = open_tensorboard(self.folder / "tensorboard", first_step=progress.step + 1)
        if progress.step:
            self.say(f"{self.stage}: going on after step {progress.step:,}")
        try:
            if self.console.is_terminal:
                self._open_bar(progress)
            yield
        finally:
            self._close()

    def saving(self, progress: Progress) -> None:
        """Keep what the next row has averaged so far, for a run that goes on from the checkpoint of this step.

        To be called before the checkpoint is written; what belongs to the one before is kept beside it, so that it does
        not matter which of them a kill leaves.
        """
        if self.is_main:
            sums = {"nats": self._nats, "num_bytes": self._num_bytes, "seconds_before": self._seconds_before}
            self._saved = dict([*self._saved.items()][-1:]) | {str(progress.step): sums}
            write_json(self.folder / "unlogged.json", self._saved)

    def _go_on_with_row(self, progress: Progress) -> None:
        """Go on with the row that was being averaged at the checkpoint; older run folders have not kept it.

        Raises:
            CheckpointError: what was kept is damaged.
        """
        self._nats, self._num_bytes, self._seconds_before = 0.0, 0, progress.seconds
        path = self.folder / "unlogged.json"
        self._saved = load_json(path, error=CheckpointError) if path.is_file() else {}
        self._saved = {key: sums for key, sums in self._saved.items() if key == str(progress.step)}
        for sums in self._saved.values():
            try:
                self._nats, self._num_bytes = float(sums["nats"]), int(sums["num_bytes"])
                self._seconds_before = float(sums["seconds_before"])
            except (KeyError, TypeError, ValueError, OverflowError):
                raise CheckpointError(f"{path}: is damaged; delete it, it only fills the next row of metrics") from None

    def step(self, progress: Progress, *, nats: float, num_bytes: int, norm: float, factor: float) -> None:
        """Note one optimiser step."""
        if not self.is_main:
            return
        self._nats += nats
        self._num_bytes += num_bytes
        if progress.step % self.config.log_every and progress.step != self.config.num_steps:
            return
        row = {
            "step": progress.step,
            "bytes": progress.num_bytes,
            "bits_per_byte": self._nats / max(1, self._num_bytes) / NATS_PER_BIT,
            "bytes_per_second": self._num_bytes / max(1e-9, progress.seconds - self._seconds_before),
            "gradient_norm": norm,
            "learning_rate_factor": factor,
            "seconds": progress.seconds,
        }
        self._nats, self._num_bytes, self._seconds_before = 0.0, 0, progress.seconds
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

    def say(self, line: str) -> None:
        """Show a line, above the progress bar if there is one."""
        if self.is_main:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _open_bar(self, progress: Progress) -> None:
        columns = ("{task.description}", "{task.completed:,.0f}/{task.total:,.0f}", "{task.fields[figures]}")
        name, count, figures = (TextColumn(column, markup=False) for column in columns)
        self._bar = Bar(
            name, BarColumn(), count, figures, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console
        )
        self._task = self._bar.add_task(
            self.stage, total=self.config.num_steps, completed=progress.step, figures=self._patches
        )
        self._bar.start()

    def _close(self) -> None:
        """End the display; files are complete at any time."""
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def _keep(self, row: dict[str, Any]) -> None:
        with named_failures(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])

    def _show(self, row: dict[str, Any]) -> None:
        figures = f"{row['bits_per_byte']:.3f} BPB · {row['bytes_per_second'] / 1000:.1f} kB/s{self._patches}"
        step, num_steps = row["step"], self.config.num_steps
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        else:
            left = (num_steps - step) * row["seconds"] / step
            self.say(f"{self.stage} step {step:,}/{num_steps:,} · {figures} · {_duration(left)} left")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; a last line cut short by a kill is dropped.

    Raises:
        CheckpointError: another line is no row of figures.
    """
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):
            row = line
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif row is not None and number < len(lines):  # the last line alone has no end
            raise CheckpointError(f"{path}: line {number} is damaged; delete that line to go on without it")
    return rows


def open_tensorboard(folder: Path, *, first_step: int) -> Any:
    """Open TensorBoard's writer; what it holds from `first_step` on is dropped.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", extra="track", purpose="tensorboard = true") from None
    return SummaryWriter(str(folder), purge_step=first_step)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


MISSING = "curves.png needs matplotlib: pip install 'blt-llm[track]'; the figures are in metrics.jsonl all the same"


def can_draw() -> bool:
    """Whether matplotlib (extra `track`), which draws the curves, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw bits per byte against bytes seen, training and held-out; nothing without matplotlib."""
    if not can_draw():
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = _points(rows, "bits_per_byte")
    held_out = _points(rows, "validation_bits_per_byte")
    if not (training or held_out):
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), linewidth=0.8, alpha=0.7, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), marker="o", label=f"held-out, {held_out[-1][1]:.3f} at the end")
    axes.set(title=title, xlabel="text seen (MB)", ylabel="bits per byte")
    lowest, highest = (choose(value for _, value in training + held_out) for choose in (min, max))
    if 0 < 2 * lowest < highest:  # the first steps would leave no room for the rest
        axes.set_ylim(0.95 * lowest, 2 * lowest)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    unfinished = path.with_name(f".{path.name}.unfinished.png")
    figure.savefig(unfinished, dpi=120)
    unfinished.replace(path)


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["bytes"] / 1e6, row[name]) for row in rows if name in row]
