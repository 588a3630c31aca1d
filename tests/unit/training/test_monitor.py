import builtins
import importlib.util
import io
import json

import pytest
from rich.console import Console

from blt.errors import CheckpointError, MissingExtraError
from blt.training import monitor
from blt.training.checkpoints import Progress
from blt.training.monitor import Monitor, draw_curves, read_metrics
from blt.training.recipe import LoopConfig


def new_monitor(folder, *, is_terminal=False, **options):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=200)
    return Monitor(folder, stage="blt", config=LoopConfig(num_steps=4, log_every=2), console=console, **options)


def note_steps(monitor, steps):
    for step in steps:
        progress = Progress(step=step, num_bytes=100 * step, seconds=0.5 * step)
        monitor.step(progress, nats=100.0, num_bytes=100, norm=1.0, factor=0.5)


def note_steps_and_fail(monitor, steps):
    note_steps(monitor, steps)
    raise ZeroDivisionError


def said(monitor):
    return monitor.console.file.getvalue()


def test_a_piped_run_says_a_line_per_row_with_loss_speed_patches_and_time_left(tmp_path):
    monitor = new_monitor(tmp_path, mean_patch_bytes=4.4)
    with monitor.following(Progress()):
        note_steps(monitor, [1, 2])
    assert said(monitor) == "blt step 2/4 · 1.443 BPB · 0.2 kB/s · 4.40 bytes/patch · 1 s left\n"


def test_a_terminal_shows_a_bar_that_is_closed_when_something_fails(tmp_path):
    monitor = new_monitor(tmp_path, is_terminal=True)
    with pytest.raises(ZeroDivisionError), monitor.following(Progress()):
        note_steps_and_fail(monitor, [1, 2])
    assert "2/4" in said(monitor)
    assert "1.443 BPB" in said(monitor)
    assert said(monitor).endswith("\x1b[?25h")  # the cursor is shown again


def test_rows_after_the_checkpoint_are_dropped_and_a_cut_line_too(tmp_path):
    rows = [{"step": step, "bytes": step} for step in (1, 2, 3)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "by')
    monitor = new_monitor(tmp_path)
    with monitor.following(Progress(step=2)):
        pass
    assert read_metrics(path) == rows[:2]
    assert said(monitor) == "blt: going on after step 2\n"


@pytest.mark.parametrize("line", ['{"step": 4, "by', "[]", "3", '{"bytes": 3}', '{"step": "4"}', "[" * 100_000, "\0\0"])
def test_a_damaged_line_among_the_metrics_is_named_and_not_dropped(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "bytes": 1}}\n{line}\n{{"step": 3, "bytes": 3}}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: line 2 is damaged; delete that line"):
        read_metrics(path)


@pytest.mark.parametrize("content", ['{"2": 3}', '{"2": {"nats": 1}}', '{"2": {"nats": "x"}}', "[]", "{"])
def test_a_damaged_note_of_the_next_row_is_one_clear_line(tmp_path, content):
    (tmp_path / "unlogged.json").write_text(content)
    monitor = new_monitor(tmp_path)
    with pytest.raises(CheckpointError, match=r"unlogged.json"), monitor.following(Progress(step=2)):
        pass


def test_other_ranks_write_and_say_nothing(tmp_path):
    monitor = new_monitor(tmp_path / "none", is_main=False)
    with monitor.following(Progress()):
        note_steps(monitor, [1, 2])
        monitor.validation(Progress(step=2), bits_per_byte=1.0)
    assert said(monitor) == ""
    assert not (tmp_path / "none").exists()


def test_a_validation_is_said_kept_and_drawn(tmp_path):
    monitor = new_monitor(tmp_path)
    with monitor.following(Progress()):
        note_steps(monitor, [1, 2])
        monitor.validation(Progress(step=2, best_bits_per_byte=1.5), bits_per_byte=1.5)
        monitor.validation(Progress(step=2, best_bits_per_byte=1.5), bits_per_byte=1.75)
    assert "blt step 2: held-out 1.5000 bits per byte (best)\n" in said(monitor)
    assert "blt step 2: held-out 1.7500 bits per byte\n" in said(monitor)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_speed_counts_the_time_of_steps_alone(tmp_path):
    monitor = new_monitor(tmp_path)
    with monitor.following(Progress(step=10, seconds=60.0)):
        for step in (11, 12):
            monitor.step(Progress(step=step, seconds=60.0 + step - 10), nats=1.0, num_bytes=50, norm=1.0, factor=1.0)
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["bytes_per_second"] == pytest.approx(50.0)


@pytest.mark.parametrize("rows", [[], [{"step": 1, "bytes": 9}], [{"step": 1, "bytes": 9, "bits_per_byte": 0.0}]])
def test_curves_of_next_to_nothing_are_no_error(tmp_path, rows):
    draw_curves(rows, tmp_path / "curves.png", title="blt")


def test_a_run_without_matplotlib_draws_nothing_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not monitor.can_draw()
    assert "pip install 'blt-llm[track]'" in monitor.MISSING
    draw_curves([{"step": 1, "bytes": 9, "bits_per_byte": 1.0}], tmp_path / "curves.png", title="blt")
    assert not (tmp_path / "curves.png").exists()


def test_tensorboard_that_is_wanted_and_missing_is_named(tmp_path, monkeypatch):
    honest = builtins.__import__

    def without_tensorboard(name, *arguments, **options):
        if "tensorboard" in name:
            raise ImportError(name)
        return honest(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    monitor = new_monitor(tmp_path, tensorboard=True)
    wanted = r"tensorboard = true needs .* pip install 'blt-llm\[track\]'"
    with pytest.raises(MissingExtraError, match=wanted), monitor.following(Progress()):
        pass
