"""A request's answer is the same alone and among any others."""

import concurrent.futures
import json
import random

import httpx

from running_server import running

NUM_CLIENTS = 32


def requests(count, *, seed=0):
    """Requests of all kinds: greedy and sampled, constrained or not, whole or streamed, long and short."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        body = {
            "prompt": rng.choice(["Tom had a red ball. ", "Zoë 魚 ", "", "x", "The cat sat. " * 40]),
            "max_tokens": rng.choice([1, 7, 20, 40]),
            "temperature": rng.choice([0, 0.7, 1.5]),
            "seed": number,
            "stream": rng.random() < 0.5,
        }
        body |= rng.choice([{}, {}, {"regex": "([a-z]{2,9} ){1,9}"}, {"json_schema": {"type": "array"}}, {"top_k": 5}])
        body |= rng.choice([{}, {}, {"logprobs": 2}, {"stop": ["a", "e"]}, {"presence_penalty": 1.0}, {"n": 2}])
        body |= rng.choice([{}, {}, {}, {"echo": True}, {"threshold_factor": 0.9}, {"frequency_penalty": 0.5}])
        found.append(body)
    return found


def answered(server, client, body):
    """What is answered, without what differs by the clock."""
    if not body["stream"]:
        answer = client.post(f"{server.url}/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return [_joined([choice]) for choice in answer.json()["choices"]]
    answer = client.post(f"{server.url}/v1/completions", json=body)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return [
        _joined([one for one in choices if one["index"] == number])
        for number in sorted({one["index"] for one in choices})
    ]


def _joined(choices):
    logprobs = [entry for one in choices if one["logprobs"] for entry in one["logprobs"]["token_logprobs"]]
    last = choices[-1]
    return "".join(one["text"] for one in choices), last["finish_reason"], last["stop_reason"], logprobs


def test_32_clients_at_once_get_what_each_gets_alone():

    bodies = requests(NUM_CLIENTS)
    with running(max_rows=24) as server:
        with httpx.Client(timeout=60) as client:
            alone = [answered(server, client, body) for body in bodies]
            with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
                together = list(pool.map(lambda body: answered(server, client, body), bodies))
        assert together == alone
        assert server.state.metrics.disconnects.value() == 0
        assert server.state.worker.num_admitted == 0
    assert len({str(answer) for answer in alone}) > NUM_CLIENTS * 0.9
