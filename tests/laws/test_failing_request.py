"""Law: what goes wrong with one request ends that request alone."""

import pytest
from tiny_models import tiny_lm

from blt.errors import ConfigurationError
from blt.generation import (
    DraftConfig,
    Drafter,
    Engine,
    GenerationConfig,
    Request,
    Sampler,
    generate,
    generate_batch,
    stream,
)

DRAFTS = [None, *(DraftConfig(by=by, max_draft=4, min_probability=0.0) for by in ("entropy", "decoder"))]
every_draft = pytest.mark.parametrize("draft", DRAFTS, ids=lambda draft: draft.by if draft else "one by one")
TOO_COMPLEX = r"(\w{1,300} ?){1,300}x"


class PlantedError(Exception):
    """What no request is prepared for."""


def eight_requests():
    return [
        Request(f"Tom {seed}", GenerationConfig(seed=seed, max_new_bytes=16, valid_utf8=False, temperature=1.0))
        for seed in range(8)
    ]


def run(lm, requests, draft):
    engine = Engine(lm, drafter=None if draft is None else Drafter(draft))
    engine.add(requests)
    while engine.step():
        pass
    return engine


@every_draft
@pytest.mark.parametrize(
    "planted", [PlantedError("so it goes"), ConfigurationError("the regex is too complex")], ids=repr
)
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_failing_request_among_eight_leaves_the_others_as_they_are(draft, planted, after, monkeypatch):
    lm, expected, requests = tiny_lm(), eight_requests(), eight_requests()
    run(lm, expected, None)
    failing, choose = requests[3]._sampler, Sampler.choose
    requests[3].plain_sampling = lambda: None  # the host chooses its bytes

    def fails(sampler, logits, *, room=None):
        if sampler is failing and requests[3].num_left == 16 - after:
            raise planted
        return choose(sampler, logits, room=room)

    monkeypatch.setattr(Sampler, "choose", fails)
    engine = run(lm, requests, draft)
    assert engine.num_running == engine.session.num_rows == 0
    for number, (request, other) in enumerate(zip(requests, expected, strict=True)):
        if number != 3:
            assert request.generation() == other.generation()
    found = requests[3].generation()
    assert (found.stopped_by, found.error, requests[3].error) == ("error", str(planted), planted)
    assert found.new_bytes == expected[3].generation().new_bytes[:after]
    late = eight_requests()[5:6]
    engine.add(late)  # the engine goes on, in the rows that are free again
    while engine.step():
        pass
    assert late[0].generation() == expected[5].generation()


def test_a_grammar_that_grows_too_complex_raises_where_one_text_was_asked_for_and_is_told_where_many_were():
    lm, options = tiny_lm(), {"regex": TOO_COMPLEX, "max_new_bytes": 200, "seed": 0}
    with pytest.raises(ConfigurationError, match="too complex"):
        generate(lm, "Tom", **options)
    pieces = []
    with pytest.raises(ConfigurationError, match="too complex"):
        pieces.extend(stream(lm, "Tom", **options))
    found = generate_batch(lm, ["Tom", "Tom"], **options)
    assert [one.stopped_by for one in found] == ["error", "error"]
    assert all("too complex" in one.error for one in found)
    assert found[0].continuation == "".join(pieces)


def test_a_session_gives_back_the_rows_of_prompts_that_it_could_not_read(monkeypatch):
    lm = tiny_lm()
    engine = Engine(lm)
    engine.add(eight_requests()[:2])
    decoding = engine.session._decoding

    def without_memory(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(decoding, "_fill", without_memory)
    with pytest.raises(RuntimeError):
        engine.add(eight_requests()[2:4])
    assert engine.num_running == engine.session.num_rows == 2
    monkeypatch.undo()
    rest = eight_requests()[2:]
    engine.add(rest)
    while engine.step():
        pass
    expected = eight_requests()
    run(lm, expected, None)
    assert [request.generation() for request in rest] == [request.generation() for request in expected[2:]]
    assert engine.num_running == engine.session.num_rows == 0
