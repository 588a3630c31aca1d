"""`blt serve` as it is run: it starts, answers, drains and ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from blt.cli import main


@pytest.fixture
def served(tiny_folder, tmp_path):
    """A server's process, and its address."""
    (tmp_path / "key").write_text("sk-1\n")
    environment = {name: value for name, value in os.environ.items() if name != "BLT_API_KEY"}
    command = [sys.executable, "-m", "blt", "serve", "--model", str(tiny_folder), "--port", "0"]
    command += ["--max-new-bytes", "1000000", "--api-key-file", str(tmp_path / "key"), "--stream-interval-ms", "5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment | {"OMP_NUM_THREADS": "1"}, text=True)
    try:
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line + process.stderr.read()
        _until_ready(url[0])
        yield process, url[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _until_ready(url):
    for _ in range(500):
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def test_a_server_that_is_told_to_end_answers_what_it_has_begun_and_ends_well(served, tmp_path):
    process, url = served
    headers = {"Authorization": "Bearer sk-1"}
    body = {"prompt": "Tom", "max_tokens": 4000, "stream": True, "logit_bias": {"2": -100}, "temperature": 0}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in (first, *rest[:-1])]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    written = "".join(choice["text"] for event in events for choice in event["choices"])
    assert len(written.encode()) == 4000
    assert process.wait(timeout=30) == 0
    told = process.stderr.read()
    assert "Traceback" not in told
    assert "Tom" not in told
    host, _, port = url.removeprefix("http://").partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("blt.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(SystemExit) as stop:
        main(["serve"])
    assert stop.value.code == 2
    assert "the server needs the package 'fastapi': pip install 'blt-llm[serve]'" in capsys.readouterr().err
