"""The thread that owns the model."""

import asyncio

import blt.generation.engine
from blt.lm import DecodingSession
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
