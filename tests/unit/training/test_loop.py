import math
import shutil
import signal
from dataclasses import dataclass, field

import pytest
import torch
from rich.console import Console
from torch import nn

import blt.training.parallelize
from blt.data import Shards, Windows
from blt.distributed import World
from blt.errors import OutputError, TrainingError
from blt.loss import next_byte_loss
from blt.training import Stopped, monitor
from blt.training.checkpoints import Checkpoints
from blt.training.loop import Trainer, parts_of, step_seed, stop_requests
from blt.training.monitor import Monitor, read_metrics
from blt.training.recipe import LoopConfig
from blt.training.schedules import CosineConfig


class Bigram(nn.Module):
    """The smallest byte model there is."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(260, 8)
        self.output = nn.Linear(8, 260)


@dataclass
class BigramObjective:
    module: Bigram = field(default_factory=Bigram)
    called: nn.Module = None
    seen_dtypes: list = field(default_factory=list)
    is_compiled: bool = False

    def loss_sum(self, batch):
        logits = self.module.output(self.module.table(batch.byte_ids))
        self.seen_dtypes.append(logits.dtype)
        return next_byte_loss(logits.float(), batch.targets)

    def costs(self, batch):
        return None

    def compile(self):
        self.is_compiled = True


@pytest.fixture
def new_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "can_draw", lambda: False)

    def build(*, asked_to_stop=lambda: False, validate=lambda step: 9.0 - step, **config):
        torch.manual_seed(0)
        loop = LoopConfig(
            **{"num_steps": 4, "batch_size": 4, "sequence_length": 8, "log_every": 1, "precision": "float32"}
            | {"schedule": CosineConfig(warmup_steps=1)}
            | config
        )
        shards = Shards.from_documents([b"Tom had a red ball.", b"Anna ran home.", b"Then they ate."])
        return Trainer(
            objective=BigramObjective(),
            windows=Windows(shards, sequence_length=8, seed=0),
            config=loop,
            validate=validate,
            checkpoints=Checkpoints(tmp_path / "checkpoints"),
            monitor=Monitor(tmp_path, stage="bigram", config=loop, console=Console(quiet=True)),
            device=torch.device("cpu"),
            world=World(),
            asked_to_stop=asked_to_stop,
        )

    return build


def test_gradients_are_clipped_once_per_step_however_many_parts(new_trainer, monkeypatch):
    honest, norms = blt.training.parallelize.clip_gradients, []

    def clip(weights, *, max_norm):
        weights = list(weights)
        norm = honest(weights, max_norm=max_norm)
        norms.append((float(norm), float(nn.utils.get_total_norm([weight.grad for weight in weights]))))
        return norm

    monkeypatch.setattr(blt.training.parallelize, "clip_gradients", clip)
    trainer = new_trainer(accumulation=4, clip=0.01)
    trainer.run()
    assert len(norms) == trainer.config.num_steps
    for before, after in norms:
        assert before > 0.01
        assert after == pytest.approx(0.01, rel=1e-3)


def test_the_gradient_is_that_of_the_mean_over_targets(new_trainer):
    trainer = new_trainer(accumulation=2)
    trainer.progress = trainer.checkpoints.progress()
    loss = trainer.accumulate_gradients()
    batch = trainer.windows.batch(0, rows=4)
    found = trainer.objective.module.output.weight.grad.clone()
    trainer.objective.module.zero_grad()
    mean = trainer.objective.loss_sum(batch) / (batch.targets >= 0).sum()
    mean.backward()
    torch.testing.assert_close(found, trainer.objective.module.output.weight.grad)
    assert loss.nats.sum().item() / loss.num_targets == pytest.approx(mean.item())
    assert loss.num_bytes <= loss.num_targets


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(new_trainer, poison):
    trainer = new_trainer(checkpoint_every=2)
    honest = trainer.objective.loss_sum
    trainer.objective.loss_sum = lambda batch: honest(batch) * (poison if trainer.progress.step == 2 else 1)
    with pytest.raises(
        TrainingError, match=r"step 3: loss (nan|inf), gradient norm nan; the last checkpoint is as it was"
    ):
        trainer.run()
    fresh = new_trainer()
    fresh.run()
    assert fresh.progress.step == 4
    assert all(weight.isfinite().all() for weight in fresh.objective.module.parameters())


def checkpoint_files(trainer):
    return {path: path.read_bytes() for path in trainer.checkpoints.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_neither_measured_nor_saved(new_trainer, poison):
    new_trainer(num_steps=2).run()
    measured = []
    trainer = new_trainer(num_steps=3, validate=lambda step: measured.append(step) or 1.0)
    before, honest = checkpoint_files(trainer), trainer.step

    def step():
        honest()
        with torch.no_grad():
            trainer.objective.module.output.bias[0] = poison

    trainer.step = step
    with pytest.raises(TrainingError, match=r"step 3: output.bias is not finite .*; the last checkpoint is as it was"):
        trainer.run()
    assert not measured
    assert checkpoint_files(trainer) == before


def test_a_held_out_figure_that_is_not_finite_stops_the_run_before_it_saves(new_trainer):
    new_trainer(num_steps=2).run()
    trainer = new_trainer(num_steps=3, validate=lambda step: math.nan)
    before = checkpoint_files(trainer)
    with pytest.raises(TrainingError, match="step 3: held-out loss nan; the last checkpoint is as it was"):
        trainer.run()
    assert checkpoint_files(trainer) == before


def test_too_little_memory_is_one_clear_line(new_trainer):
    trainer = new_trainer(accumulation=2)

    def loss_sum(batch):
        raise torch.OutOfMemoryError("Tried to allocate 80 GiB")

    trainer.objective.loss_sum = loss_sum
    with pytest.raises(TrainingError, match=r"2 rows × 8 bytes at once; set bigram.loop.accumulation above 2"):
        trainer.run()


def test_other_errors_of_pytorch_stay_as_they_are(new_trainer):
    trainer = new_trainer()

    def loss_sum(batch):
        raise RuntimeError("shapes differ")

    trainer.objective.loss_sum = loss_sum
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.run()


def test_a_stop_is_obeyed_after_the_step_and_saved(new_trainer):
    trainer = new_trainer(num_steps=9, asked_to_stop=lambda: trainer.progress.step == 5)
    with pytest.raises(Stopped, match="stopped after step 5, which is saved; run the same command to go on"):
        trainer.run()
    assert trainer.checkpoints.progress().step == 5


def test_a_run_may_be_made_longer_after_its_end(new_trainer):
    assert new_trainer(num_steps=2).run().is_finished
    longer = new_trainer(num_steps=3)
    assert longer.run().step == 3
    assert longer.checkpoints.progress().is_finished


def test_the_step_with_the_lowest_held_out_figure_is_the_best(new_trainer):
    trainer = new_trainer(validate=lambda step: abs(step - 2) + 1.0, validate_every=1)
    trainer.run()
    assert trainer.checkpoints.load_best(Bigram()).step == 2
    assert trainer.progress.best_bits_per_byte == 1.0


def test_validation_runs_in_evaluation_mode_and_training_does_not(new_trainer):
    modes = []
    trainer = new_trainer(validate=lambda step: modes.append(trainer.objective.module.training) or 1.0)
    trainer.run()
    assert modes == [False]
    assert trainer.objective.module.training


@pytest.mark.parametrize(
    ("precision", "built_in", "dtype"),
    [
        ("bfloat16", False, torch.bfloat16),
        ("float32", True, torch.float32),
        ("auto", False, torch.float32),
        ("auto", True, torch.bfloat16),
    ],
)
def test_products_have_the_precision_asked_for_and_weights_stay_float32(
    new_trainer, precision, built_in, dtype, monkeypatch
):
    monkeypatch.setattr(
        blt.training.parallelize, "fast_matmul_dtype", lambda device: torch.bfloat16 if built_in else torch.float32
    )
    trainer = new_trainer(precision=precision)
    trainer.run()
    assert set(trainer.objective.seen_dtypes) == {dtype}
    assert all(weight.dtype == torch.float32 for weight in trainer.objective.module.parameters())


def test_compiling_is_done_where_asked_for(new_trainer):
    for wanted in (False, True):
        trainer = new_trainer(compile=wanted)
        trainer.run()
        assert trainer.objective.is_compiled is wanted


def test_metrics_have_one_row_per_step_and_one_per_validation(new_trainer, tmp_path):
    trainer = new_trainer(validate_every=2)
    trainer.run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "bits_per_byte" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "validation_bits_per_byte" in row] == [2, 4]
    assert rows[-2]["bytes"] == trainer.progress.num_bytes
    assert next(row["learning_rate_factor"] for row in rows if "bits_per_byte" in row) == 1.0


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_are_the_rows_of_a_batch_in_order(new_trainer, count):
    batch = new_trainer().windows.batch(0, rows=4)
    parts = list(parts_of(batch, count))
    assert len(parts) == count
    assert torch.equal(torch.cat([part.byte_ids for part in parts]), batch.byte_ids)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)


@pytest.fixture
def interrupts():
    """Lets SIGINT raise KeyboardInterrupt, even where whoever started the tests has it ignored (nohup, `&`)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_first_signal_is_noted_and_a_second_acts_as_usual():
    with stop_requests() as asked_to_stop:
        assert not asked_to_stop()
        signal.raise_signal(signal.SIGINT)
        assert asked_to_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interrupts")
def test_a_stop_whose_checkpoint_cannot_be_written_does_not_say_that_it_is_saved(new_trainer, monkeypatch):
    """Several ranks write in the background: what is begun then is not yet written."""

    def finish():
        raise OutputError("checkpoints: no room")

    trainer = new_trainer(num_steps=9, asked_to_stop=lambda: trainer.progress.step == 5)
    monkeypatch.setattr(trainer.parallel, "finish_saving", finish)
    with pytest.raises(OutputError, match="no room"):
        trainer.run()


def test_an_interrupt_that_is_to_be_ignored_stays_ignored_and_sigterm_stops_all_the_same():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as asked_to_stop:
        signal.raise_signal(signal.SIGINT)
        assert not asked_to_stop()
        signal.raise_signal(signal.SIGTERM)
        assert asked_to_stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("stop_after", [3, 4, 5])
def test_a_row_of_metrics_averages_the_same_steps_whether_or_not_the_run_was_stopped_among_them(
    new_trainer, tmp_path, stop_after
):
    options = {"num_steps": 9, "log_every": 4}
    new_trainer(**options).run()
    wanted = read_metrics(tmp_path / "metrics.jsonl")
    shutil.rmtree(tmp_path / "checkpoints")
    trainer = new_trainer(**options, asked_to_stop=lambda: trainer.progress.step == stop_after)
    with pytest.raises(Stopped):
        trainer.run()
    new_trainer(**options).run()
    found = read_metrics(tmp_path / "metrics.jsonl")
    names = ("step", "bytes", "bits_per_byte")
    assert [[row.get(name) for name in names] for row in found] == [[row.get(name) for name in names] for row in wanted]


def test_a_row_is_whole_too_when_a_kill_leaves_the_checkpoint_before(new_trainer, tmp_path, monkeypatch):
    options = {"num_steps": 8, "log_every": 8, "checkpoint_every": 3}
    new_trainer(**options).run()
    wanted = read_metrics(tmp_path / "metrics.jsonl")
    shutil.rmtree(tmp_path / "checkpoints")
    trainer = new_trainer(**options)
    honest = trainer.checkpoints.save

    def save(*arguments, **others):
        if trainer.progress.step == 6:
            raise InterruptedError
        honest(*arguments, **others)

    monkeypatch.setattr(trainer.checkpoints, "save", save)
    with pytest.raises(InterruptedError):
        trainer.run()
    new_trainer(**options).run()
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["bits_per_byte"] == wanted[0]["bits_per_byte"]


def test_what_is_dropped_is_drawn_anew_for_each_seed_step_and_rank():
    found = {step_seed(seed, step=step, rank=rank) for seed in (0, 1) for step in (0, 1, 2) for rank in (0, 1)}
    assert len(found) == 12
    assert step_seed(3, step=5, rank=1) == step_seed(3, step=5, rank=1)
