"""What the page asks: patches, surprise, alternatives and costs; and the page itself."""

import math

import numpy as np
import pytest

from blt.configuration import to_dict
from blt.generation import generate
from blt.inspection import page_files
from blt.model.cost import cost_of
from blt.patching import StaticRule

TEXT = "Zoë saw 魚 and ran.".encode() + b"\xff\xe2\x82"


def test_a_text_is_shown_in_the_patches_of_the_model_with_its_surprise(server):
    found = server.post("/api/patch", {"hex": TEXT.hex(), "alternatives": 3}).json()
    lm = server.lm
    shown, score = lm.patch(TEXT), lm.score(TEXT)
    pieces = [TEXT[patch["start"] : patch["end"]] for patch in found["patches"]]
    assert pieces == [patch.data for patch in shown if patch.data]
    assert [patch["is_complete"] for patch in found["patches"]] == [one.is_complete for one in shown if one.data]
    entropies = [value for patch in shown for value in patch.entropies]
    assert np.float32([found["start_entropy"], *found["entropies"]]).tolist() == entropies
    assert found["surprise"] == pytest.approx(score.bits_by_byte[:-1].tolist(), abs=1e-4)
    assert bytes.fromhex(found["hex"]) == TEXT
    assert found["rule"] == to_dict(lm.patch_rule)
    assert [len(some) for some in found["alternatives"]] == [3] * (len(TEXT) + 1)
    assert found["mean_patch_bytes"] == len(TEXT) / len(pieces)
    cost = cost_of(
        lm.config.blt,
        mean_patch_bytes=found["mean_patch_bytes"],
        context_bytes=len(TEXT),
        entropy_model=lm.config.entropy_model,
    )
    assert found["flops_per_byte"] == pytest.approx(cost.flops_with_entropy_model)


def test_a_text_may_be_read_by_another_rule(server):
    found = server.post("/api/patch", {"text": "Tom had a ball", "rule": {"type": "static", "length": 5}}).json()
    assert found["rule"] == to_dict(StaticRule(length=5))
    assert [(one["start"], one["end"]) for one in found["patches"]] == [(0, 5), (5, 10), (10, 14)]
    assert "alternatives" not in found
    empty = server.post("/api/patch", {"text": ""}).json()
    assert (empty["patches"], empty["mean_patch_bytes"], empty["flops_per_byte"]) == ([], None, None)


def test_alternatives_are_the_likeliest_next_bytes_and_the_end(server):
    found = server.post("/api/alternatives", {"text": "Tom", "count": 257}).json()["alternatives"]
    assert sum(one["probability"] for one in found) == pytest.approx(1, abs=0.05)
    assert [one["is_end"] for one in found].count(True) == 1
    assert {one["byte"] for one in found} == {None, *range(256)}
    assert all(one["hex"] == ("" if one["is_end"] else f"{one['byte']:02x}") for one in found)
    first = generate(server.lm, "Tom", max_new_bytes=1, temperature=0, logprobs=257, valid_utf8=False).logprobs[0]
    ours = {one.byte: one.logprob for one in first.top}
    assert [math.log(one["probability"]) for one in found] == pytest.approx(
        [ours[one["byte"]] for one in found], abs=1e-4
    )


def test_the_model_is_described_with_what_it_costs(server):
    found = server.get("/api/model").json()
    assert (found["id"], found["max_bytes"], found["has_entropy_model"]) == ("tiny", server.config.max_read_bytes, True)
    assert found["rule"] == to_dict(server.lm.patch_rule)
    flops, config = found["flops"], server.lm.config
    for mean in (1.0, 3.0, 7.5):
        cost = cost_of(
            config.blt, mean_patch_bytes=mean, context_bytes=flops["context_bytes"], entropy_model=config.entropy_model
        )
        told = flops["constant"] + flops["per_patch"] / mean + flops["per_patch_squared"] / mean**2
        assert told == pytest.approx(cost.flops_with_entropy_model)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/patch", {}, "text, hex: give one of them"),
        ("/api/patch", {"text": "a", "hex": "61"}, "text, hex: give one of them"),
        ("/api/patch", {"hex": "6"}, "two for each"),
        ("/api/patch", {"hex": "zz"}, "two for each"),
        ("/api/patch", {"text": "a" * 17000}, "17000 bytes, of which this server reads 16000"),
        ("/api/patch", {"text": "a", "rule": {"type": "words"}}, "rule: type"),
        ("/api/patch", {"text": "a", "rule": {"type": "static", "length": 0}}, "rule: "),
        ("/api/alternatives", {"text": "a", "count": 300}, "count"),
    ],
)
def test_what_cannot_be_shown_is_refused(server, path, body, message):
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_the_page_and_its_files_are_served_and_nothing_else(server):
    files = page_files()
    assert server.get("/").content == files["index.html"][1]
    for name, (kind, content) in files.items():
        answer = server.get(f"/page/{name}")
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, content, kind)
        assert "script-src 'self';" in answer.headers["content-security-policy"]
    for name in ("..%2fapp.py", "%2e%2e/app.py", "app.py", "nothing.js", "", "%2e%2e", "%00", "page%2fapp.js"):
        assert server.get(f"/page/{name}").status_code in (404, 307), name
