"""`blt serve` under load: bytes per second beside the engine alone, time to first byte, overload, disconnects.

    python benchmarks/serving.py --out benchmarks/records/serving-cpu.json
    python benchmarks/serving.py --what disconnects --requests 10000 --out benchmarks/records/serving-cpu.json
    python benchmarks/serving.py --what exactness --requests 500 --out …
    python benchmarks/serving.py --what llama.cpp --peer llama/bin/python --out …   (see serving_llama_cpp.py)

A record that is there already keeps its other parts, so that each can be measured while the machine is idle.

The server is a process of its own; clients are coroutines of this one, on the same machine, so they take a share of its
processors. Every stream ends with a count of its bytes, so no answer can be lost unseen.
"""

import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from record import circumstances, command, write_record

from blt.api import ByteLM
from blt.generation import Engine, GenerationConfig, Request

CLAIMS = {
    "load": "under load beside the engine alone",
    "llama.cpp": "beside llama.cpp's server",
    "overload": "in overload",
    "disconnects": "with clients that go away",
    "exactness": "with the same answers in company as alone",
}
BY_CLIENTS = ("load", "llama.cpp")
"""Parts that are measured for each number of clients."""
PROMPTS = ["Once upon a time", "Tom had a red ball. ", "The cat sat on the mat. " * 8, "One day, Lily"]
NUM_BYTES = 400
BYTES_PER_TOKEN = 4
LLAMA = "f32:6:384"
"""As many parameters as the bundled model, and of the same type."""
REFUSED_SECONDS = 0.1
"""After which a client that was refused asks again."""

Form = Callable[[dict[str, Any]], dict[str, Any]]


class Served:
    """A server in a process of its own, on this machine."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port

    @classmethod
    def blt(cls, *options: str) -> "Served":
        """Start `blt serve` with the bundled model."""
        command = [sys.executable, "-m", "blt", "serve", "--port", "0", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r":(\d+) ", line)
        assert found is not None, line + process.stderr.read()
        return cls(process, int(found[1]))

    @classmethod
    def llama_cpp(cls, python: str) -> "Served":
        """Start llama.cpp's server with a Llama of the bundled model's size."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        script = Path(__file__).with_name("serving_llama_cpp.py")
        arguments = [str(port), LLAMA, json.dumps(PROMPTS), str(torch.get_num_threads())]
        return cls(subprocess.Popen([python, str(script), *arguments], text=True), port)

    def resident_bytes(self) -> int:
        """Return the memory that the server has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def __enter__(self) -> "Served":
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                asyncio.run(ask(self.port, body(0, num_bytes=8)))
                return self
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the server does not answer")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)


def body(number: int, *, num_bytes: int = NUM_BYTES) -> dict[str, Any]:
    """Return request number so and so."""
    return {
        "prompt": PROMPTS[number % len(PROMPTS)],
        "max_tokens": num_bytes,
        "seed": number,
        "temperature": 0.7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def tokens_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the same request for a server whose tokens are 4 bytes, without what it does not know."""
    return {name: value for name, value in request.items() if name != "stream_options"} | {
        "max_tokens": request["max_tokens"] // BYTES_PER_TOKEN
    }


async def ask(
    port: int,
    request: dict[str, Any],
    *,
    leave_after: float | None = None,
    pieces: list[tuple[float, int]] | None = None,
) -> dict[str, Any]:
    """Send a request over a connection of its own; return status, bytes, text and times.

    Args:
        port: of the server on this machine.
        request: the body.
        leave_after: go away after so many seconds, whatever has come.
        pieces: where to note the time of each piece, and its bytes.
    """
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    content = json.dumps(request).encode()
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json", "Connection": "close"}
    lines = [f"{name}: {value}\r\n" for name, value in (headers | {"Content-Length": len(content)}).items()]
    head = f"POST /v1/completions HTTP/1.1\r\n{''.join(lines)}\r\n"
    found: dict[str, Any] = {"status": 0, "bytes": 0, "is_whole": False, "text": ""}
    try:
        writer.write(head.encode() + content)
        async with asyncio.timeout(leave_after):
            found["status"] = int((await reader.readline()).split()[1])
            if found["status"] != 200:
                told = await reader.read()
                found["is_clean"] = b"\r\nretry-after: " in told.lower() and b'"type":"rate_limit_error"' in told
            async for line in reader:
                if not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    found["is_whole"] = "error" not in found
                    break
                event = json.loads(line[6:])
                found.setdefault("first", time.perf_counter() - start)
                if "error" in event:
                    found["error"] = event["error"]["message"]
                    continue
                text = "".join(choice["text"] for choice in event["choices"])
                found["text"] += text
                if pieces is not None:
                    pieces.append((time.perf_counter(), len(text.encode())))
                if not event["choices"]:
                    found["bytes"] = event["usage"]["completion_tokens"]
    except TimeoutError:
        found["has_left"] = True
    finally:
        writer.close()
    found["seconds"] = time.perf_counter() - start
    return found


async def load(port: int, *, num_clients: int, seconds: float, form: Form = dict) -> dict[str, Any]:
    """Let so many clients ask without pause; the rate is that of the time in which all of them do.

    Args:
        port: of the server.
        num_clients: how many.
        seconds: in which they begin to ask; the first fifth does not count.
        form: turns a request of ours into one of the server's.
    """
    numbers, answers, end = iter(range(10**9)), [], time.perf_counter() + seconds
    pieces: list[tuple[float, int]] = []

    async def client() -> None:
        while time.perf_counter() < end:
            answers.append(await ask(port, form(body(next(numbers))), pieces=pieces))
            if answers[-1]["status"] == 429:
                await asyncio.sleep(REFUSED_SECONDS)

    start = time.perf_counter() + seconds / 5
    await asyncio.gather(*(client() for _ in range(num_clients)))
    num_bytes = sum(count for when, count in pieces if start < when < end)
    whole = [answer for answer in answers if answer["is_whole"]]
    first = sorted(answer["first"] for answer in whole if "first" in answer)
    return {
        "clients": num_clients,
        "requests": len(answers),
        "refused": sum(answer["status"] == 429 for answer in answers),
        "lost": sum(not answer["is_whole"] and not answer.get("is_clean") for answer in answers),
        "bytes_per_second": num_bytes / (end - start),
        "first_byte_p50_ms": 1000 * statistics.median(first),
        "first_byte_p99_ms": 1000 * first[min(len(first) - 1, int(0.99 * len(first)))],
    }


def engine_alone(lm: ByteLM, *, num_rows: int, seconds: float) -> float:
    """Return the bytes per second of the engine, with a new request in place of each that is over."""
    engine, requests, start = Engine(lm, prompt_bytes_per_step=512), [], time.perf_counter()
    before = 0
    while (now := time.perf_counter()) < start + seconds:
        while engine.num_running < num_rows:
            number = len(requests)
            config = GenerationConfig(max_new_bytes=NUM_BYTES, temperature=0.7, seed=number)
            requests.append(Request(body(number)["prompt"], config))
            engine.add(requests[-1:])
        if not before and now > start + seconds / 5:
            before, since = sum(request.num_written for request in requests), now
        engine.step()
    return (sum(request.num_written for request in requests) - before) / (time.perf_counter() - since)


async def disconnects(served: Served, *, num_requests: int, num_clients: int) -> dict[str, Any]:
    """Send requests of which a third is left before its end; no other may lose a byte, and memory has to stay flat."""
    rng, memory, lost, left, whole = random.Random(0), [], 0, 0, 0
    numbers = iter(range(num_requests))

    async def client() -> None:
        nonlocal lost, left, whole
        for number in numbers:
            leaves = rng.uniform(0, 0.3) if rng.random() < 1 / 3 else None
            request = body(number, num_bytes=rng.choice([20, 60, 120])) | {"stream": True}
            answer = await ask(served.port, request, leave_after=leaves)
            left += bool(answer.get("has_left"))
            whole += answer["is_whole"]
            lost += not answer["is_whole"] and not answer.get("has_left") and answer["status"] != 429
            if number % max(1, num_requests // 20) == 0:
                memory.append(served.resident_bytes())

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return {"requests": num_requests, "left": left, "whole": whole, "lost": lost, "resident_bytes": memory}


async def exactness(port: int, *, num_requests: int, num_clients: int) -> dict[str, Any]:
    """Send requests alone, then many at once; return how many answers differ."""
    constraints = [{}, {}, {"regex": "([a-z]{2,9} ){1,12}"}, {"json_schema": {"type": "array"}}, {"logprobs": 1}]
    asked = [
        body(number, num_bytes=[20, 60, 120][number % 3])
        | constraints[number % len(constraints)]
        | {"temperature": [0, 0.7, 1.3][number % 3]}
        for number in range(num_requests)
    ]
    alone = [await ask(port, request) for request in asked]
    slots = asyncio.Semaphore(num_clients)

    async def one(request: dict[str, Any]) -> dict[str, Any]:
        async with slots:
            return await ask(port, request)

    together = await asyncio.gather(*(one(request) for request in asked))
    different = sum(a["text"] != b["text"] or not b["is_whole"] for a, b in zip(alone, together, strict=True))
    return {"requests": num_requests, "clients": num_clients, "different": different}


def loads(counts: Sequence[int], *, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure so many clients, and the engine alone with as many texts before and after, round after round."""
    lm, found = ByteLM.from_pretrained(), {}
    with Served.blt("--max-rows", "128", "--max-waiting", "512") as served:
        for count in counts:
            alone = [engine_alone(lm, num_rows=count, seconds=seconds / 2)]
            each = []
            for _ in range(rounds):
                each.append(asyncio.run(load(served.port, num_clients=count, seconds=seconds)))
                alone.append(engine_alone(lm, num_rows=count, seconds=seconds / 2))
                beside = (alone[-2] + alone[-1]) / 2
                each[-1] |= {"engine_alone": beside, "share_of_engine": each[-1]["bytes_per_second"] / beside}
            found[str(count)] = summary(each)
            print(json.dumps(found[str(count)]), flush=True)
    return found


def peers(python: str, counts: Sequence[int], *, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure llama.cpp's server under the same load."""
    found = {}
    with Served.llama_cpp(python) as served:
        for count in counts:
            each = [
                asyncio.run(load(served.port, num_clients=count, seconds=seconds, form=tokens_of))
                for _ in range(rounds)
            ]
            found[str(count)] = summary(each)
            print(json.dumps(found[str(count)]), flush=True)
    return found


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return sums of what is counted, and medians of what is measured."""
    counted = ("requests", "refused", "lost")
    return {
        name: rounds[0][name]
        if name == "clients"
        else (sum if name in counted else statistics.median)(one[name] for one in rounds)
        for name in rounds[0]
    }


PARTS = ("load", "overload", "disconnects", "exactness", "llama.cpp")


@click.command()
@click.option("--what", type=click.Choice(PARTS), multiple=True)
@click.option("--clients", default="1,8,32,128", show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Of each load.")
@click.option("--rounds", default=3, show_default=True, help="Of each load.")
@click.option("--requests", "num_requests", default=500, show_default=True, help="Of disconnects and exactness.")
@click.option("--peer", "python", help="Python of an environment with llama-cpp-python[server] and gguf.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    what: tuple[str, ...],
    clients: str,
    seconds: float,
    rounds: int,
    num_requests: int,
    python: str | None,
    out: Path | None,
) -> None:
    """Measure a server of the bundled model."""
    counts = [int(count) for count in clients.split(",")]
    parts = what or (PARTS if python else PARTS[:-1])
    results: dict[str, Any] = {"bytes_per_text": NUM_BYTES, "processors": len(os.sched_getaffinity(0))}
    if "load" in parts:
        results["load"] = loads(counts, seconds=seconds, rounds=rounds)
    if "llama.cpp" in parts:
        assert python is not None, "--what llama.cpp needs --peer"
        results["llama.cpp"] = peers(python, counts, seconds=seconds, rounds=rounds)
    if "overload" in parts:  # twice as many clients as texts that may be written or wait
        with Served.blt("--max-rows", "16", "--max-waiting", "16") as served:
            results["overload"] = asyncio.run(load(served.port, num_clients=64, seconds=seconds))
    if "disconnects" in parts:
        with Served.blt() as served:
            results["disconnects"] = asyncio.run(disconnects(served, num_requests=num_requests, num_clients=32))
    if "exactness" in parts:
        with Served.blt("--max-rows", "32") as served:
            results["exactness"] = asyncio.run(exactness(served.port, num_requests=num_requests, num_clients=32))
    print(json.dumps(results, indent=1))
    if out is not None:
        all_results = merged(out, results, measured={"command": command()} | circumstances("cpu"))
        write_record(out, claim=claim(all_results), device="cpu", results=all_results)


def merged(path: Path, results: dict[str, Any], *, measured: dict[str, Any]) -> dict[str, Any]:
    """Return results with those parts of an earlier record that were not measured again.

    Each part, and each number of clients, keeps what it was measured by as `measured`. Parts that have none are of
    records written before parts had their own.

    Args:
        path: of the record.
        results: of this run.
        measured: command and circumstances of this run.
    """
    before: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    for part in CLAIMS:
        if part not in results:
            continue
        if part in BY_CLIENTS:
            new = {count: found | {"measured": measured} for count, found in results[part].items()}
            both = before.get(part, {}) | new
            results[part] = {count: both[count] for count in sorted(both, key=int)}
        else:
            results[part] = results[part] | {"measured": measured}
    return before | results


def claim(results: dict[str, Any]) -> str:
    """Return the sentence that these results bear out, or not; it names the parts that are there."""
    found = "blt serve " + ", ".join(words for part, words in CLAIMS.items() if part in results)
    parts = [results[part] for part in CLAIMS if part in results and part not in BY_CLIENTS]
    parts += [each for part in BY_CLIENTS for each in results.get(part, {}).values()]
    if all("measured" in part for part in parts):
        return found
    return f"{found}; parts without `measured` were measured by commands that this record did not keep"


if __name__ == "__main__":
    main()
