"""`blt serve --replicas 2` on Ray Serve: the same answers, one address, and a replica that is killed under load."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx
import pytest

from blt.api import ByteLM
from running_server import new_lm, running, until

pytest.importorskip("ray", reason="the extra 'ray' is not installed: replicas are not tried")

KEY = {"Authorization": "Bearer sk-1"}
OPTIONS = {"max_new_bytes": 100_000, "stream_interval_ms": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas") / "tiny"
    new_lm().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scratch():
    """A folder for what Ray writes; the path of a socket in it has to be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        yield made


@pytest.fixture(scope="module")
def served(folder, scratch):
    """The process of a front with two replicas, and a client of it."""
    environment = os.environ | {"BLT_API_KEY": "sk-1", "TMPDIR": "/tmp"}
    command = [sys.executable, "-m", "blt", "serve", "--model", str(folder), "--port", "0"]
    command += ["--replicas", "2", "--replica-cpus", "1", "--max-new-bytes", "100000", "--stream-interval-ms", "5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line + process.stderr.read()
        with httpx.Client(base_url=url[0], timeout=60, headers=KEY) as client:
            until(lambda: _is_there(client))
            yield process, client
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _is_there(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def num_replicas(client):
    found = client.get("/metrics").text
    return int(re.search(r"^blt_replicas_running (\d+)$", found, re.MULTILINE)[1])


def descendants(pid):
    """Every process that a process has started, or they have."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def replicas_of(pid):
    """The processes of Ray that hold a model."""
    found = []
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_text().startswith("ray::ServeReplica"):
                found.append(child)
    return found


def listening(pids):
    """The addresses, as the kernel writes them, on which some processes listen."""
    sockets = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(re.sub(r"socket:\[(\d+)\]", r"\1", str(file.readlink())))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def body(number, *, num_bytes=40, stream=True):
    sampled = {"temperature": [0, 0.8][number % 2], "seed": number}
    return {"prompt": f"Tom {number}", "max_tokens": num_bytes, "stream": stream, "logit_bias": {"2": -100}} | sampled


def answered(client, body, started=None):
    """The text of an answer and the error that ended it; None where there was none."""
    with client.stream("POST", "/v1/completions", json=body) as answer:
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            if started is not None:
                started.set()
    if not body["stream"]:
        found = json.loads("".join(lines))
        assert (answer.status_code == 200) == ("choices" in found)
        return (found["choices"][0]["text"], None) if "choices" in found else ("", found["error"])
    assert answer.status_code == 200
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events.pop() == "[DONE]"
    events = [json.loads(event) for event in events]
    text = "".join(event["choices"][0]["text"] for event in events if "choices" in event)
    errors = [event["error"] for event in events if "error" in event]
    assert len(errors) <= 1
    assert errors or events[-1]["choices"][0]["finish_reason"] == "length"
    return text, errors[0] if errors else None


def test_replicas_answer_as_one_server_does_at_one_address_behind_one_key(served, folder):
    process, client = served
    bodies = [body(number, stream=number % 3 > 0) for number in range(8)]
    with running(ByteLM.from_pretrained(folder), **OPTIONS) as server:
        alone = [answered(server.http, one) for one in bodies]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: answered(client, one), bodies))
    assert together == alone
    assert not any(error for _, error in alone)

    with httpx.Client(base_url=client.base_url) as stranger:
        assert stranger.get("/health").status_code == 200
        for path in ("/metrics", "/v1/models", "/", "/openapi.json"):
            assert stranger.get(path).status_code == 401
        assert stranger.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    refused = client.post("/v1/completions", json={"prompt": "x", "max_tokens": -1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")
    page = client.get("/")
    assert "<title>" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")

    metrics = client.get("/metrics").text
    written = re.findall(r'^blt_new_bytes_total\{replica="(\w+)"\} (\d+)$', metrics, re.MULTILINE)
    assert len(written) == 2
    assert sum(int(count) for _, count in written) == 8 * 40
    assert 'blt_requests_total{path="/v1/completions",status="200"} 8' in metrics
    addresses = listening({process.pid} | descendants(process.pid))
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_a_replica_that_is_killed_fails_its_own_requests_alone_and_comes_back(served, folder):
    process, client = served
    bodies = [body(number, num_bytes=3000, stream=number % 4 > 0) for number in range(12)]
    with running(ByteLM.from_pretrained(folder), **OPTIONS) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        alone = [text for text, _ in pool.map(lambda one: answered(server.http, one), bodies)]
    victim, *others = replicas_of(process.pid)
    assert len(others) == 1
    started = [threading.Event() for _ in bodies]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        found = [pool.submit(answered, client, *one) for one in zip(bodies, started, strict=True)]
        for one, event in zip(bodies, started, strict=True):
            assert not one["stream"] or event.wait(timeout=60)
        os.kill(victim, signal.SIGKILL)
        found = [one.result(timeout=60) for one in found]
    failed = [number for number, (_, error) in enumerate(found) if error is not None]
    assert 0 < len(failed) < len(bodies)
    for number, (text, error) in enumerate(found):
        if error is None:
            assert text == alone[number]
        else:
            assert alone[number].startswith(text)
            assert (error["type"], error["code"]) == ("server_error", "replica_lost")
            assert "send the request again" in error["message"]
    assert answered(client, bodies[0])[0] == alone[0]
    until(lambda: num_replicas(client) == 2 and len(replicas_of(process.pid)) == 2, seconds=60)


def test_a_server_of_replicas_drains_and_leaves_nothing_behind(served, scratch):
    process, client = served
    children = descendants(process.pid)
    with client.stream("POST", "/v1/completions", json=body(0, num_bytes=5000)) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in (first, *rest[:-1])]
    assert len("".join(event["choices"][0]["text"] for event in events).encode()) == 5000
    assert process.wait(timeout=30) == 0
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert "Tom" not in process.stderr.read()
    assert not list(Path(scratch).iterdir())
