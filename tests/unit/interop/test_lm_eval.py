import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("lm_eval")

from blt.codec import BYTE_OFFSET, EOS_ID, encode
from blt.errors import ConfigurationError, ModelFolderError
from blt.evaluation import evaluate
from blt.interop.lm_eval import HarnessLM

TEXTS = ["Tom had a red ball.", "Zoë, who was 7½, saw 魚. " * 9, "a", "the cat sat on the mat and then it ran " * 4]


@pytest.fixture
def harness(tiny_folder):
    return HarnessLM(pretrained=str(tiny_folder))


def request(*arguments):
    return SimpleNamespace(args=arguments)


def log_likelihood(lm, text, *, start):
    """The nats of the bytes from `start` on, by `ByteLM.score`."""
    return -lm.score(text).bits_by_byte[start:-1].sum() * math.log(2)


@pytest.mark.parametrize("batch_size", [1, "3", "auto", None])
def test_a_continuation_has_the_likelihood_of_its_bytes_after_the_context(harness, tiny_folder, batch_size):
    harness = HarnessLM(pretrained=str(tiny_folder), batch_size=batch_size)
    pairs = [(text[:cut], text[cut:]) for text in TEXTS for cut in (0, 1, len(text) // 2, len(text))]
    found = harness.loglikelihood([request(*pair) for pair in pairs])
    for (context, continuation), (nats, _) in zip(pairs, found, strict=True):
        wanted = log_likelihood(harness.lm, context + continuation, start=len(context.encode()))
        assert nats == pytest.approx(wanted, abs=1e-4)


def test_nothing_is_certain_and_greedy(harness):
    assert harness.loglikelihood([request("Tom", ""), request("", "")]) == [(0.0, True), (0.0, True)]
    assert harness.loglikelihood([]) == []


def test_a_continuation_is_greedy_if_every_byte_of_it_is_the_likeliest_that_could_be_written(harness):
    context, greedy = "Tom had", ""
    with torch.no_grad():
        for _ in range(5):
            logits = harness.lm(encode(context + greedy, bos=True)[None])[0, -1]
            logits[[*range(BYTE_OFFSET + 128, 260), *range(EOS_ID), EOS_ID + 1]] = -math.inf  # ASCII, and EOS
            best = int(logits.argmax())
            if best == EOS_ID:
                break
            greedy += chr(best - BYTE_OFFSET)
        everything = harness.lm(encode(context + greedy, bos=True)[None])[0]
    ids = encode(context + greedy, bos=True)
    everything[:, [*range(EOS_ID), EOS_ID + 1]] = -math.inf
    is_best = (everything[:-1].argmax(-1) == ids[1:])[len(context) :].tolist()
    asked = [request(context, greedy[:count]) for count in range(len(greedy) + 1)]
    found = [flag for _, flag in harness.loglikelihood(asked)]
    assert found == [all(is_best[:count]) for count in range(len(greedy) + 1)]


def test_a_rolling_likelihood_is_that_of_blt_evaluate(harness):
    texts = [*TEXTS, "", "Tom had a red ball."]
    found = harness.loglikelihood_rolling([request(text) for text in texts])
    full = [text.encode() for text in texts if text]
    evaluation = evaluate(harness.lm, full, bootstrap=0)
    assert found.pop(4) == 0.0
    assert found == [-bits * math.log(2) for bits in evaluation.bits_by_unit.tolist()]
    bits_per_byte = -sum(found) / math.log(2) / sum(map(len, full))
    assert bits_per_byte == pytest.approx(evaluation.bits_per_byte, rel=1e-12)


def test_without_the_end_of_text_only_bytes_count(harness, tiny_folder):
    without = HarnessLM(pretrained=str(tiny_folder), count_eos=False)
    asked = [request(text) for text in [*TEXTS, ""]]
    both = zip([*TEXTS, ""], harness.loglikelihood_rolling(asked), without.loglikelihood_rolling(asked), strict=True)
    for text, with_end, alone in both:
        assert alone == pytest.approx(log_likelihood(harness.lm, text, start=0), abs=1e-4)
        assert with_end < alone or not text


def test_texts_are_continued_to_their_stop_strings_each_with_its_own_options(harness):
    asked = [
        ("Tom", {"until": ["\x00never"], "max_gen_toks": 5}),
        ("", {"until": "\x00never", "max_gen_toks": 5, "do_sample": False, "temperature": 0.0}),
        ("Tom had a ball", {"max_gen_toks": 2}),
        ("Tom", {"until": ["\x00never"], "max_gen_toks": 5}),
    ]
    found = harness.generate_until([request(*pair) for pair in asked])
    for (context, options), text in zip(asked, found, strict=True):
        wanted = harness.lm.generate(context, max_new_bytes=4 * options["max_gen_toks"], temperature=0)
        assert text == wanted.continuation
    stop = found[0][3:5]
    cut = harness.generate_until([request("Tom", {"until": [stop, ""], "max_gen_toks": 5})])[0]
    assert cut == found[0][: found[0].index(stop)]


def test_sampling_is_sampling(harness):
    greedy, sampled, hot = harness.generate_until(
        [
            request("Tom", {"max_gen_toks": 5}),
            request("Tom", {"max_gen_toks": 5, "do_sample": True, "top_k": 50}),
            request("Tom", {"max_gen_toks": 5, "temperature": 3.0}),
        ]
    )
    assert len({greedy, sampled, hot}) == 3
    wanted = harness.lm.generate("Tom", max_new_bytes=20, temperature=1.0, top_k=50, seed=0)
    assert sampled == wanted.continuation


def test_an_option_that_would_be_ignored_is_refused(harness):
    with pytest.raises(ConfigurationError, match="'num_beams' has no meaning for blt; known: until"):
        harness.generate_until([request("Tom", {"num_beams": 4})])


def test_results_are_offered_to_the_harness_cache(harness):
    kept = []
    harness.set_cache_hook(SimpleNamespace(add_partial=lambda *entry: kept.append(entry)))
    results = [
        *harness.loglikelihood([request("a", "b")]),
        *harness.loglikelihood_rolling([request("ab")]),
        *harness.generate_until([request("a", {"max_gen_toks": 1})]),
    ]
    assert [entry[0] for entry in kept] == ["loglikelihood", "loglikelihood_rolling", "generate_until"]
    assert [entry[2] for entry in kept] == results


def test_arguments_come_as_the_harness_gives_them(tiny_folder):
    arguments = {"pretrained": str(tiny_folder), "bytes_per_token": 2}
    given = {
        "batch_size": "auto:4",
        "max_batch_size": None,
        "device": "cuda:0" if not torch.cuda.is_available() else "cpu",
    }
    harness = HarnessLM.create_from_arg_obj(arguments, given)
    assert harness.device == torch.device("cpu")
    assert len(harness.generate_until([request("Tom", {"max_gen_toks": 3, "until": []})])[0].encode()) <= 6
    from lm_eval.api.registry import get_model

    assert get_model("blt") is HarnessLM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": 0}, "batch_size: 0; at least 1, or auto"),
        ({"bytes_per_token": 0}, "bytes_per_token: 0; above 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tiny_folder, arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        HarnessLM(pretrained=str(tiny_folder), **arguments)
    with pytest.raises(ModelFolderError):
        HarnessLM(pretrained="nowhere")


@pytest.mark.parametrize(
    "way", ["runpy.run_module('blt.interop.lm_eval', run_name='__main__')", "import blt.interop.lm_eval"]
)
def test_without_the_harness_the_extra_is_named(way):
    code = f"import runpy, sys; sys.modules['lm_eval'] = sys.modules['lm_eval.api'] = None; {way}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.endswith("the evaluation harness needs the package 'lm-eval': pip install 'blt-llm[eval]'")
    if "runpy" in way:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    "given",
    [
        {"num_beams": 1, "do_sample": False, "max_gen_toks": "16"},
        {"top_k": 0, "temperature": "0.0", "max_gen_toks": 16.0},
        {"num_beams": "1", "top_k": "0", "repetition_penalty": "1.0", "max_new_tokens": "16"},
        {"num_return_sequences": 1, "early_stopping": False, "repetition_penalty": None, "max_gen_toks": 16},
    ],
    ids=str,
)
def test_what_published_task_files_state_is_understood(harness, given):
    wanted = harness.generate_until([request("Tom had", {"until": ["z"], "max_gen_toks": 16})])
    assert harness.generate_until([request("Tom had", {"until": ["z"]} | given)]) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_beams": 4}, "'num_beams' has no meaning"),
        ({"max_gen_toks": "many"}, "max_gen_toks: 'many'; expected a number"),
        ({"max_gen_toks": None}, "max_gen_toks: None; expected a number"),
        ({"max_gen_toks": "inf"}, "max_gen_toks: at least 0, got inf"),
        ({"max_gen_toks": -1}, "max_gen_toks: at least 0, got -1"),
        ({"temperature": [1]}, r"temperature: \[1\]; expected a number"),
        ({"top_k": -3}, "top_k"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(harness, given, said):
    with pytest.raises(ConfigurationError, match=said):
        harness.generate_until([request("Tom had", {"until": []} | given)])


def test_a_model_that_gives_no_numbers_has_no_likelihood(harness):
    with torch.no_grad():
        harness.lm.blt.local_decoder.norm.weight[0] = math.nan
    for ask in (harness.loglikelihood, harness.generate_until, harness.loglikelihood_rolling):
        with pytest.raises(ModelFolderError, match=r"nan"):
            ask([request("Tom had", {"until": []} if ask == harness.generate_until else " a")])
