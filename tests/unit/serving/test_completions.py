"""`/v1/completions`, by the `openai` client and by bare HTTP."""

import math
from dataclasses import replace

import pytest

from blt.codec import encode
from blt.generation import generate
from running_server import new_lm

PROMPTS = ["Tom had", "Zoë saw 魚", ""]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("temperature", [0, 1.3])
def test_a_completion_is_what_the_model_itself_writes(server, client, prompt, temperature):
    found = client.completions.create(model="tiny", prompt=prompt, max_tokens=20, temperature=temperature, seed=3)
    expected = generate(server.lm, prompt, max_new_bytes=20, temperature=temperature, seed=3)
    assert found.choices[0].text == expected.continuation
    assert found.choices[0].finish_reason == {"eos": "stop"}.get(expected.stopped_by, expected.stopped_by)
    assert found.object == "text_completion"
    assert found.model == "tiny"
    size = len(prompt.encode()), len(expected.new_bytes)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == size
    assert found.usage.total_tokens == sum(size)


def test_prompts_may_be_texts_ids_or_lists_of_them_with_choices_by_seed(server, client):
    texts = ["Tom", "The cat"]
    ids = [encode(text).tolist() for text in texts]
    by_text = client.completions.create(model="tiny", prompt=texts, max_tokens=9, n=2, seed=5)
    by_id = client.completions.create(model="tiny", prompt=ids, max_tokens=9, n=2, seed=5)
    expected = [
        generate(server.lm, text, max_new_bytes=9, temperature=1.0, seed=5 + number).continuation
        for text in texts
        for number in range(2)
    ]
    assert [choice.text for choice in by_text.choices] == [choice.text for choice in by_id.choices] == expected
    assert [choice.index for choice in by_text.choices] == [0, 1, 2, 3]
    assert client.completions.create(model="tiny", prompt=ids[1], max_tokens=9, seed=5).choices[0].text == expected[2]
    assert by_text.usage.prompt_tokens == len("TomThe cat")


def test_a_stream_has_the_same_text_and_then_a_finish_and_a_count(server, client):
    options = {"model": "tiny", "prompt": "Tom", "max_tokens": 25, "seed": 1, "n": 2}
    whole = client.completions.create(**options)
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        assert [one.finish_reason for one in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        assert mine[-1].text == ""
        assert all(one.text for one in mine[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_every_event_of_a_stream_has_the_keys_that_clients_read(server):
    events = server.events("/v1/completions", {"prompt": "Tom", "max_tokens": 3, "temperature": 0})
    for event in events:
        assert set(event) == {"id", "object", "created", "model", "system_fingerprint", "choices"}
        (choice,) = event["choices"]
        assert set(choice) == {"index", "text", "logprobs", "finish_reason", "stop_reason"}


def test_echo_begins_with_the_prompt(server, client):
    options = {"model": "tiny", "prompt": "Zoë", "max_tokens": 5, "temperature": 0}
    alone = client.completions.create(**options).choices[0].text
    assert client.completions.create(**options, echo=True).choices[0].text == "Zoë" + alone
    chunks = list(client.completions.create(**options, echo=True, stream=True))
    assert chunks[0].choices[0].text == "Zoë"
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Zoë" + alone


def test_no_new_bytes_are_an_answer_too(client):
    found = client.completions.create(model="tiny", prompt="Tom", max_tokens=0, echo=True).choices[0]
    assert (found.text, found.finish_reason) == ("Tom", "length")


def test_the_best_of_several_are_the_likeliest_per_byte(server, client):
    options = {"model": "tiny", "prompt": "Tom", "max_tokens": 8, "seed": 2, "temperature": 1.5}
    every = client.completions.create(**options, n=5, logprobs=0).choices
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs) for choice in every]
    order = sorted(range(5), key=lambda number: -means[number])
    best = client.completions.create(**options, n=2, best_of=5)
    assert [choice.text for choice in best.choices] == [every[number].text for number in order[:2]]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in every)


def test_penalties_biases_and_limits_of_sampling_are_those_of_the_model_itself(server, client):
    ours = {"top_k": 40, "min_p": 0.001, "repetition_penalty": 1.2, "repetition_window": 10}
    theirs = {"top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    found = client.completions.create(
        model="tiny", prompt="Tom", max_tokens=20, seed=4, logit_bias={"101": 5}, **theirs, extra_body=ours
    )
    options = ours | theirs | {"logit_bias": {101: 5}}
    expected = generate(server.lm, "Tom", max_new_bytes=20, temperature=1.0, seed=4, **options)
    assert found.choices[0].text == expected.continuation


def test_a_threshold_factor_gives_the_text_of_a_model_with_that_threshold(server, client):
    other = new_lm()
    other.patch_rule = replace(other.patch_rule, threshold=other.patch_rule.threshold * 0.9)
    options = {"model": "tiny", "prompt": "Tom had a red ball.", "max_tokens": 30, "temperature": 0, "logprobs": 0}
    found = client.completions.create(**options, extra_body={"threshold_factor": 0.9}).choices[0]
    expected = generate(other, options["prompt"], max_new_bytes=30, temperature=0, logprobs=0)
    assert found.text == expected.continuation
    assert found.logprobs.token_logprobs[:30] == [entry.logprob for entry in expected.logprobs]
    own = client.completions.create(**options).choices[0]
    assert own.logprobs.token_logprobs != found.logprobs.token_logprobs
    assert all(math.isfinite(one) for one in found.logprobs.token_logprobs)
