"""The thread that owns the model."""

import asyncio
import threading

import pytest

import blt.generation.engine
from blt.errors import ConfigurationError
from blt.lm import DecodingSession
from blt.lm.static_decoding import StaticDecoding
from blt.serving.config import ServingConfig
from blt.serving.metrics import Metrics
from blt.serving.worker import Worker


def test_the_decoder_is_ready_before_the_first_request(tiny_lm, monkeypatch):
    """A cold cache is compiled, and weights are packed, before the server says that it serves."""
    made = []

    class Noted(DecodingSession):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(blt.generation.engine, "DecodingSession", Noted)

    async def started():
        worker = Worker(tiny_lm, ServingConfig(), Metrics())
        worker.start()
        ready = list(made)
        await worker.stop()
        return ready

    assert len(asyncio.run(started())) == 1


async def _started(lm, config):
    worker = Worker(lm, config, Metrics())
    worker.start()
    await worker.stop()
    return worker


def test_static_steps_are_compiled_before_the_first_request_in_the_thread_that_runs_them(tiny_lm, monkeypatch):
    """CUDA graphs belong to the thread that recorded them."""
    steps, honest = [], StaticDecoding._step

    def noted(self, ids):
        steps.append((len(ids), threading.current_thread().name))
        return honest(self, ids)

    monkeypatch.setattr(StaticDecoding, "_step", noted)
    monkeypatch.setattr(StaticDecoding, "_compiled", lambda self, function: function)
    worker = asyncio.run(_started(tiny_lm, ServingConfig(max_rows=3, static=True)))
    assert set(steps) == {(3, "blt-worker")}
    assert len(steps) >= 3
    assert worker._engines[1.0].session.num_rows == 0


def test_what_cannot_be_compiled_ends_the_start(tiny_lm, monkeypatch):
    def failing(self):
        raise ConfigurationError("static: torch.compile failed (no compiler); leave static out")

    monkeypatch.setattr(blt.generation.engine.Engine, "warm_up", failing)
    with pytest.raises(ConfigurationError, match="no compiler"):
        asyncio.run(_started(tiny_lm, ServingConfig(static=True)))
