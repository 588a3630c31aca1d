"""A server of a tiny model on this machine, and clients for it."""

import asyncio
import contextlib
import json
import socket
import threading
import time
import weakref

import httpx
import openai
import torch

from blt.api import ByteLM
from blt.codec import encode
from blt.decoder import kernels
from blt.generation import Sampler
from blt.serving import ServingConfig, create_app
from blt.serving.server import server_of
from tiny_config import TINY_CONFIG


def new_lm():
    """The model of `tiny_lm`, which a whole file of tests may share."""
    torch.manual_seed(1)
    return ByteLM.new(TINY_CONFIG).eval()


class Running:
    """A server that runs in a thread of this process."""

    def __init__(self, lm, config):
        self.lm, self.config = lm, config
        self.app = create_app(lm, config)
        self.state = self.app.state.serving
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = server_of(self.app, host="127.0.0.1", port=self.port, drain_seconds=5)
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        asyncio.run(self.server.serve(sockets=[self._socket]))

    def start(self):
        kernels()  # compiled before the first request, whose client may not wait so long
        self._thread.start()
        until(lambda: self.server.started)

    def stop(self):
        self.server.should_exit = True
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
        self._socket.close()
        self.http.close()

    def openai(self, **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=30, **options)

    def post(self, path, body, **options):
        return self.http.post(path, json=body, **options)

    def get(self, path, **options):
        return self.http.get(path, **options)

    def events(self, path, body):
        """What a stream's events hold, in order; the last is `[DONE]`."""
        answer = self.post(path, body | {"stream": True})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.text.split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        *events, last = [line.removeprefix("data: ") for line in lines]
        assert last == "[DONE]"
        return [json.loads(event) for event in events]


@contextlib.contextmanager
def running(lm=None, **options):
    """Run a server for as long as the block lasts."""
    options = {"model_name": "tiny", "stream_interval_ms": 0} | options
    server = Running(new_lm() if lm is None else lm, ServingConfig(**options))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def until(condition, *, seconds=20):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def scripted(monkeypatch, text, *, eos=True):
    """Let every text that is written from now on be this one, byte by byte, whatever the model expects."""
    ids = encode(text, eos=eos).tolist()
    written = weakref.WeakKeyDictionary()

    def choose(sampler, logits, *, room=None):
        return next(written.setdefault(sampler, iter(ids)))

    monkeypatch.setattr(Sampler, "choose", choose)
    monkeypatch.setattr(Sampler, "plain", lambda sampler, *, room: None)  # or the native decoder would choose
