"""The equal fight in `benchmarks/bpe_baseline`: what makes it equal."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from blt.api import ByteLM
from blt.codec import BOS_ID, EOS_ID, VOCABULARY_SIZE
from blt.entropy import EntropyConfig, EntropyModel
from blt.errors import ConfigurationError
from blt.evaluation import evaluate
from blt.nn import LocalConfig
from blt.ops import only_references

pytest.importorskip("tokenizers")
sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "docs" / "tools")]

import fight
from benchmarks.bpe_baseline import any_language, kept, noise, plan, report, texts, training
from benchmarks.bpe_baseline.one_run import append
from benchmarks.bpe_baseline.plan import BUDGETS, KNOBS, Job, final, in_order, larger_trials, trials
from benchmarks.bpe_baseline.queue import read_results
from benchmarks.bpe_baseline.sides import (
    FLOPS_BY_SIZE,
    SIDES,
    PlainTransformer,
    Reading,
    count_parameters,
    plain_cost,
    plain_shape,
)
from benchmarks.bpe_baseline.tokens import BPE, byte_ids
from benchmarks.bpe_baseline.training import Prepared, Stream, batches, bits_by_document, plain_loss, run, side_of

STORY = "Once upon a time there was a girl named Lily. She had a red ball, and she saw a big dog in the park. "
MIXED = "Всё хорошо 日本語 \u200bnaïve\n\tfoo(bar) 🙂 "


@pytest.fixture
def corpus():
    train = [(STORY * (1 + number % 3) + MIXED + str(number)).encode() for number in range(60)]
    some = texts.held_out([(str(number), (MIXED + STORY[: 40 + 9 * number]).encode()) for number in range(4)])
    return texts.Corpus(train=train, dev=some, test=some)


@pytest.fixture
def prepared(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "ENTROPY_FLOPS", 2e9)
    return Prepared(corpus, tmp_path / "corpus")


def job(side, **changes):
    told = {"blt": 4.5, "bpe": 512, "flat": 64}
    return replace(
        Job(purpose="trial", corpus="stories", side=side, rate=0.02, knob=told[side], size=0, budget=5e9), **changes
    )


def test_tokens_decode_to_the_bytes(corpus):
    bpe = BPE.train(corpus.train, vocabulary=400)
    assert bpe.vocabulary == 400
    for text in (STORY, MIXED, "никогда \x00 unseen 漢字", " ", "\n\n"):
        ids = bpe.encode(text.encode())
        assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID)
        assert bpe.decode(ids.tolist()) == text.encode()
    assert len(bpe.encode(STORY.encode())) < len(STORY) / 2


def test_bits_of_bpe_add_up_over_every_token_and_the_end_and_divide_by_every_byte(prepared, corpus):
    side = side_of(job("bpe"), prepared)
    with torch.no_grad():
        side.module.embedding.weight.zero_()  # every id as likely as any other
    bits, num_bytes = training.score(side, corpus.dev, prepared)
    bpe = prepared.bpe(512)
    tokens = [len(bpe.encode(piece)) - 1 for piece in corpus.dev.pieces]
    assert bits == pytest.approx(np.array(tokens) * math.log2(bpe.vocabulary), rel=1e-5)
    assert num_bytes.tolist() == [len(piece) for piece in corpus.dev.pieces]
    assert num_bytes.sum() == corpus.dev.num_bytes


def test_every_side_reads_the_same_text_in_the_same_order(prepared, corpus):
    bpe = prepared.bpe(512)
    sides = [Stream(prepared.byte_documents, seed=3), Stream(prepared.tokens(bpe), seed=3)]
    read = [side.take(2_000)[0] for side in sides]
    as_bytes = (read[0][read[0] >= 4] - 4).astype(np.uint8).tobytes()
    assert bpe.decode(read[1].tolist()).startswith(as_bytes)
    other, _ = Stream(prepared.byte_documents, seed=4).take(2_000)
    assert (other != read[0]).any()


def test_a_stream_goes_on_in_a_new_order_and_every_id_is_predicted_once():
    documents = [np.array([BOS_ID, 10 + number, EOS_ID]) for number in range(5)]
    ids, _ = Stream(documents, seed=0).take(31)
    assert sorted(ids[:15]) == sorted(ids[15:30])
    some = list(batches(Stream(documents, seed=0), width=5, steps=3, rows=2))
    assert np.concatenate([batch.byte_ids.flatten().numpy() for batch in some]).tolist() == ids[:30].tolist()
    targets = torch.cat([batch.targets.flatten() for batch in some]).numpy()
    assert targets[targets >= 0].tolist() == ids[1:][ids[1:] != BOS_ID].tolist()


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_side_spends_the_budget_within_a_hundredth(prepared, budget):
    for side in SIDES:
        built = side_of(job(side, size=1, budget=budget), prepared)
        steps = built.steps(job(side, budget=budget))
        per_step = built.cost.training * training.ROWS * built.width / built.reading.positions_per_byte
        spent = per_step * steps + built.cost.once
        assert abs(spent - budget) <= max(0.01 * budget, 0.51 * per_step)  # of the smallest budgets, half a step


@pytest.mark.parametrize(("per_byte", "context"), [(1.0025, 850.0), (0.3, 260.0), (0.42, 800.0)])
def test_plain_shapes_meet_flops_and_parameters_within_a_hundredth(per_byte, context):
    reading = Reading(positions_per_byte=per_byte, context=context)
    vocabulary = 260 if per_byte > 1 else 2048
    for flops in FLOPS_BY_SIZE[1:]:
        shape = plain_shape(vocabulary=vocabulary, reading=reading, window=256, flops=flops)
        assert plain_cost(shape, vocabulary=vocabulary, reading=reading).forward == pytest.approx(flops, rel=0.01)
    shape = plain_shape(vocabulary=vocabulary, reading=reading, window=256, parameters=2_000_000)
    module = PlainTransformer(shape, vocabulary=vocabulary)
    assert count_parameters(module) == pytest.approx(2_000_000, rel=0.01)
    assert count_parameters(module) == plain_cost(shape, vocabulary=vocabulary, reading=reading).parameters


def test_no_shape_is_made_up_where_none_fits():
    with pytest.raises(ConfigurationError, match="no plain Transformer of 50000 ids"):
        plain_shape(vocabulary=50_000, reading=Reading(positions_per_byte=0.3, context=100), window=64, flops=1e5)


def test_the_flops_of_matmuls_are_those_that_pytorch_counts():
    shape, vocabulary, length = LocalConfig(dim=64, num_layers=2, num_heads=2, window=16), 700, 48
    module = PlainTransformer(shape, vocabulary=vocabulary)
    with only_references(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.randint(4, vocabulary, (1, length)))
    counted = counter.get_flop_counts()["Global"]
    matmuls = sum(count for name, count in counted.items() if name in (torch.ops.aten.mm, torch.ops.aten.addmm))
    reading = Reading(positions_per_byte=1.0, context=length)
    cost = plain_cost(shape, vocabulary=vocabulary, reading=reading)
    visible = np.minimum(np.arange(1, length + 1), 16).sum()
    attention = shape.num_layers * 4 * shape.dim * visible / length
    assert cost.forward - attention == pytest.approx(matmuls / length)


def test_whole_attention_is_counted_exactly_over_documents_of_all_lengths():
    lengths = [3, 50, 200]
    reading = Reading.of([np.zeros(length, np.int64) for length in lengths], num_bytes=sum(lengths))
    shape = LocalConfig(dim=32, num_layers=1, num_heads=1, window=10_000)
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    without = plain_cost(replace(shape, window=1), vocabulary=260, reading=reading).forward - 4 * 32
    counted = plain_cost(shape, vocabulary=260, reading=reading).forward - without
    assert counted == pytest.approx(4 * 32 * pairs / sum(lengths), rel=0.005)


def test_a_plain_transformer_on_bytes_is_the_entropy_model_of_its_shape():
    shape = EntropyConfig(dim=32, num_layers=2, num_heads=1, window=8)
    plain, same = PlainTransformer(shape, vocabulary=VOCABULARY_SIZE), EntropyModel(shape)
    same.load_state_dict({name.replace("embedding.", "bytes."): weight for name, weight in plain.state_dict().items()})
    ids = torch.from_numpy(np.concatenate([byte_ids(b"Tom sat."), byte_ids(b"The end.")]))[None]
    assert torch.allclose(plain(ids), same(ids), atol=1e-6)


def test_each_side_is_tuned_with_as_many_trials_and_none_of_them_sees_the_test_documents():
    results = {}
    for turn in itertools.count():
        jobs = [each for each in in_order(results) if each.name not in results]
        if not jobs:
            break
        for number, each in enumerate(jobs):
            results[each.name] = {
                "dev_bits_per_byte": 1 + (7 * turn + number) % 5,
                "bytes_read": 1e6,
                "forward_flops_per_byte": 7e5,
                "parameters": 2_000_000,
            }
    for corpus in texts.CORPORA:
        for side in SIDES:
            found, choice = trials(corpus, side, results)
            assert len(found) == len({each.name for each in found}) == (10 if corpus == texts.STORIES else 4)
            assert choice is not None
            assert not any(each.scores_test for each in found)
            assert results[choice.name]["dev_bits_per_byte"] == min(
                results[each.name]["dev_bits_per_byte"] for each in found
            )
            tuned = [final(corpus, side, results, budget=number) for number in range(len(BUDGETS))]
            assert all(each.name in results for each in tuned)
            found, larger = larger_trials(corpus, side, results)
            assert len(found) == len({each.name for each in found}) == (4 if corpus == texts.STORIES else 2)
            assert not any(each.scores_test for each in found)
            expected = [(each.knob, each.size) for each in (choice, larger)]
            assert [(each.knob, each.size) for each in tuned] == [expected[0]] * 2 + [expected[1]] * 2
    assert len(KNOBS["blt"]) == len(KNOBS["bpe"]) == len(KNOBS["flat"])
    assert {each.purpose for each in in_order(results)} == set(plan.Purpose.__args__)


def test_a_trial_that_is_a_reported_run_is_not_run_again(all_results):
    found, choice = larger_trials("python", "bpe", all_results)
    reported, (other,) = replace(choice, purpose="budget"), [each for each in found if each != choice]
    figure = {"dev_bits_per_byte": all_results[choice.name]["dev_bits_per_byte"]}
    results = all_results | {reported.name: all_results[reported.name] | figure}
    del results[choice.name]
    assert larger_trials("python", "bpe", results) == (found, choice)
    assert choice not in list(in_order(results))
    del results[other.name], results[reported.name]
    assert {choice, other} <= set(in_order(results))


def test_a_smaller_vocabulary_is_taken_where_none_fits(all_results):
    jobs = [each for corpus in texts.CORPORA for each in plan.equals(corpus, all_results)]
    failed = next(each for each in jobs if each.side == "bpe" and each.knob > min(KNOBS["bpe"]))
    results = all_results | {failed.name: {"failed": "no shape", "dev_bits_per_byte": math.inf}}
    (more,) = [each for each in plan.equals(failed.corpus, results) if each not in jobs]
    assert more == replace(failed, knob=max(each for each in KNOBS["bpe"] if each < failed.knob))


@pytest.mark.parametrize("side", SIDES)
def test_a_run_learns_and_tells_what_it_spent(prepared, side, tmp_path):
    told = job(side, purpose="budget", budget=1.5e10)
    found = run(told, prepared, keep=tmp_path / side)
    assert found["training_flops"] == pytest.approx(1.5e10, rel=0.15)  # few steps
    assert found["dev_bits_per_byte"] < 7.5  # of 8 and the end
    assert sum(found["test_bits"]) / sum(found["test_bytes"]) == found["test_bits_per_byte"]
    assert found["bytes_read"] == pytest.approx(found["steps"] * training.ROWS * texts.MAX_BYTES, rel=0.05)
    json.dumps(found)
    assert list((tmp_path / side).iterdir())


def test_blt_is_scored_as_the_command_evaluate_does(prepared, corpus, tmp_path):
    found = run(job("blt", purpose="budget"), prepared, keep=tmp_path / "blt")
    lm = ByteLM.from_pretrained(str(tmp_path / "blt"))
    assert found["test_bits"] == pytest.approx(evaluate(lm, corpus.test.pieces).bits_by_unit.tolist(), rel=1e-4)


def test_padding_changes_no_bits():
    torch.manual_seed(0)
    module = PlainTransformer(LocalConfig(dim=32, num_layers=1, num_heads=1, window=8), vocabulary=260).eval()
    documents = [byte_ids(b"a"), byte_ids(b"a longer document than that"), byte_ids(b"and another")]
    together = bits_by_document(plain_loss(module), documents)
    alone = [bits_by_document(plain_loss(module), [document])[0] for document in documents]
    assert together == pytest.approx(alone, rel=1e-5)


def test_pieces_join_to_the_document_and_cut_no_character():
    document = ("я" * 700 + "\n" + "日本" * 900 + "x\n" * 30).encode()
    pieces = texts.pieces_of(document, limit=512)
    assert b"".join(pieces) == document
    assert all(0 < len(piece) <= 512 and piece.decode() for piece in pieces)
    assert texts.pieces_of(b"") == []


def test_no_held_out_line_of_a_language_is_trained_on(tmp_path):
    rows = [
        {"code": f"l{number}", "text": "".join(f"{number} line {place:02} {'x' * 90}\n" for place in range(100))}
        for number in range(70)
    ]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = texts.languages(str(path))
    trained = {line for piece in corpus.train for line in piece.split(b"\n") if line}
    for part in (corpus.dev, corpus.test):
        held = {line for piece in part.pieces for line in piece.split(b"\n") if line}
        assert held
        assert not held & trained
    assert {line.split()[2] for line in trained} == {f"{place:02}".encode() for place in range(80)}
    unseen = [name for name in corpus.test.names if name.startswith("unseen")]
    assert unseen == ["unseen l31", "unseen l63"]
    assert not any(line.startswith((b"31 ", b"63 ")) for line in trained)
    assert len(corpus.test.names) == 70


def test_finished_runs_are_kept_and_a_line_cut_short_is_run_again(tmp_path):
    first, second = job("blt"), job("flat")
    path = tmp_path / "runs.jsonl"
    append(path, first, {"dev_bits_per_byte": 1.0})
    append(path, second, {"dev_bits_per_byte": math.inf, "failed": "no shape"})
    assert read_results(path).keys() == {first.name, second.name}
    path.write_text(path.read_text()[:-20])
    assert read_results(path).keys() == {first.name}


def test_workers_end_with_a_command_that_is_killed():
    program = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from benchmarks.bpe_baseline.queue import end_with_parent
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    for _ in range(300):
        if not is_running(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived the command")


def is_running(number):
    """Whether a process is there, and is not one that has ended and is waited for by nobody."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def all_results():
    """Every run of the plan, with figures that are drawn."""
    generator, results = np.random.default_rng(0), {}
    while jobs := [each for each in in_order(results) if each.name not in results]:
        for each in jobs:
            num_bytes = np.array([100, 200, 300])
            bits = num_bytes * generator.uniform(1.0, 2.0, 3)
            results[each.name] = {
                "dev_bits_per_byte": float(generator.uniform(1, 2)),
                "bytes_read": 1e6,
                "forward_flops_per_byte": 7e5,
                "training_flops": each.budget or 1e12,
                "parameters": 2_000_000,
                "ids_per_patch": each.knob + 0.1,
                "test_bits_per_byte": float(bits.sum() / num_bytes.sum()),
                "test_bits": bits.tolist(),
                "test_bytes": num_bytes.tolist(),
            }
    failed = next(each for each in in_order(results) if each.rule == "entropy-rise")
    results[failed.name] = {"failed": "no threshold", "dev_bits_per_byte": math.inf}
    return results


def test_the_record_has_every_comparison_with_intervals(all_results):
    found = report.record(all_results)
    json.dumps(found, allow_nan=False)
    rows = found["equal_training_flops"]
    assert {(each["corpus"], each["side"], each["budget"]) for each in rows} == set(
        itertools.product(texts.CORPORA, SIDES, BUDGETS)
    )
    for each in rows:
        figure, seeds = each["bits_per_byte"], each["over_seeds"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert seeds["low"] < seeds["value"] < seeds["high"]
        assert seeds["num_seeds"] == 3
    assert len(found["equal_forward_flops"]) == len(found["equal_parameters"]) == 9
    ruled = {each["rule"] for each in found["patch_rules"]}
    assert ruled == {"space", *plan.PATCH_RULES}
    assert [each["failed"] for each in found["patch_rules"] if "failed" in each] == ["no threshold"]
    assert all(len(side["trials"]) in (4, 10) for each in found["tuned"].values() for side in each.values())


def test_a_difference_is_taken_document_by_document():
    one = {"test_bits": [100.0, 400.0], "test_bytes": [100, 200]}
    other = {"test_bits": [90.0, 380.0], "test_bytes": [100, 200]}
    found = report.difference(one, other)
    assert found["value"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(found["high"])  # all documents differ alike, by the byte


def test_an_interval_over_seeds_is_students():
    found = report.over_seeds([1.0, 1.1, 1.2])
    assert found["value"] == pytest.approx(1.1)
    assert found["high"] - found["value"] == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert report.over_seeds([1.0]) is None


def test_what_has_not_finished_is_left_out_and_counted(all_results):
    some = {name: found for name, found in all_results.items() if "python" not in name and "languages" not in name}
    found = report.record(some)
    assert {each["corpus"] for each in found["equal_training_flops"]} == {"stories"}
    assert found["runs_finished"] < found["runs_planned_so_far"]
    assert report.record({})["equal_training_flops"] == []
    some[final("stories", "bpe", some, budget=0).name] = {"failed": "no shape", "dev_bits_per_byte": math.inf}
    rows = report.record(some)["equal_training_flops"]
    assert {each["side"] for each in rows if each["budget"] == BUDGETS[0]} == {"blt", "flat"}


def test_the_curves_are_drawn_alike_each_time(all_results, tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.bpe_baseline.draw import draw

    found = report.record(all_results)
    for name in ("one", "other"):
        draw(found, tmp_path / f"{name}.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "other.svg").read_text()
    assert all(words in drawn for words in ("TinyStories", "528 languages", "flat bytes", "rise of entropy"))


def test_scripts_are_divided_for_both_sides_and_continuations_are_looked_at(prepared, tmp_path, monkeypatch):
    some = [
        ("lat", STORY),
        ("rus", "Всё будет хорошо, сказала она. " * 3),
        ("unseen jpn", "日本語の文章です。" * 4),
    ]
    held = texts.held_out([(name, text.encode()) for name, text in some])
    told = replace(prepared.corpus, test=held)
    prepared = Prepared(told, prepared.folder)
    results = {}
    jobs = [job(side, purpose="budget", corpus="languages", budget=6e9) for side in ("blt", "bpe")]
    for each in jobs:
        results[each.name] = run(each, prepared, keep=tmp_path / "models" / each.name)
    monkeypatch.setattr(any_language, "largest", lambda *_: {each.side: each for each in jobs})
    monkeypatch.setattr(any_language, "NEW_BYTES", 6)
    found = any_language.any_language(results, prepared, tmp_path)
    assert set(found["by_script"]) == {"Latin", "Cyrillic", "languages never seen"}
    for side in ("blt", "bpe"):
        bits = sum(each[side]["bits_per_byte"]["value"] * each["bytes"] for each in found["by_script"].values())
        assert bits == pytest.approx(sum(results[jobs[side == "bpe"].name]["test_bits"]))
        assert set(found["valid_utf8"][side]) == {"Latin", "other scripts"}
        assert found["valid_utf8"][side]["other scripts"]["continuations"] == 2
    japanese, latin = found["by_script"]["languages never seen"], found["by_script"]["Latin"]
    assert japanese["bytes"] == 3 * japanese["characters"]
    assert japanese["bpe"]["flops_per_character"] > 2 * latin["bpe"]["flops_per_character"]
    assert japanese["blt"]["flops_per_character"] > 2 * latin["blt"]["flops_per_character"]
    json.dumps(found, allow_nan=False)


def test_no_language_is_looked_at_without_the_models(all_results, tmp_path):
    assert any_language.any_language(all_results, None, tmp_path) is None
    (tmp_path / "models" / final("languages", "blt", all_results, budget=1).name).mkdir(parents=True)
    assert any_language.any_language(all_results, None, tmp_path) is None


def test_models_of_the_largest_budget_that_all_sides_have_kept_are_looked_at(all_results, tmp_path):
    jobs = {
        (side, budget): final("stories", side, all_results, budget=budget)
        for side in ("blt", "bpe")
        for budget in (0, 2)
    }
    for each in jobs.values():
        (tmp_path / "models" / each.name).mkdir(parents=True)
    found = kept.largest("stories", ("blt", "bpe"), all_results, tmp_path)
    assert found == {side: jobs[side, 2] for side in ("blt", "bpe")}
    (tmp_path / "models" / jobs["bpe", 2].name).rmdir()
    found = kept.largest("stories", ("blt", "bpe"), all_results, tmp_path)
    assert found == {side: jobs[side, 0] for side in ("blt", "bpe")}
    assert kept.largest("stories", SIDES, all_results, tmp_path) is None


def test_a_language_never_seen_counts_for_its_script_where_continuations_are_looked_at(monkeypatch):
    some = [("lat", STORY), ("unseen fin", "Kaikki on hyvin. " * 3), ("unseen jpn", "日本語の文章です。" * 4)]
    held = texts.held_out([(name, text.encode()) for name, text in some])
    groups = any_language.groups_of(held)
    assert groups == {"Latin": {0}, "languages never seen": {1, 2}}
    lm = SimpleNamespace(generate=lambda _prompt, **_: SimpleNamespace(new_bytes=b"ab"))
    monkeypatch.setattr(any_language, "continue_by_tokens", lambda *_, **__: b"\xff")
    found = any_language.valid_utf8(lm, None, None, SimpleNamespace(test=held), groups)
    for kinds in found.values():
        assert {kind: each["continuations"] for kind, each in kinds.items()} == {"Latin": 2, "other scripts": 1}


def test_a_plain_transformer_scores_a_continuation_on_its_own_segmentation(prepared):
    bpe = prepared.bpe(300)
    torch.manual_seed(0)
    shape = LocalConfig(dim=32, num_layers=1, num_heads=1, window=64)
    module = PlainTransformer(shape, vocabulary=bpe.vocabulary).eval()
    pairs = [(b"Tom sat", b" on the mat."), (b"Tom sat", b" up"), (b"", b"The end"), (b"Tom", b"")]
    found = noise.PlainScorer(module, bpe).logprobs(pairs)
    for (prompt, rest), logprob in zip(pairs, found, strict=True):
        start, ids = bpe.encode(prompt)[:-1], bpe.encode(rest)[1:-1]
        row = torch.from_numpy(np.concatenate([start, ids]))
        told = module(row[None]).detach()[0].log_softmax(-1)[len(start) - 1 : -1].gather(1, row[len(start) :, None])
        assert logprob == pytest.approx(float(told.sum()), abs=1e-4)
    assert found[0] < found[1] < found[3] == 0


def test_noise_is_measured_on_the_models_that_were_kept(prepared, tmp_path, monkeypatch):
    told = replace(prepared.corpus, test=texts.held_out([(str(number), STORY.encode()) for number in range(4)]))
    prepared = Prepared(told, prepared.folder)
    assert noise.noise({}, prepared, tmp_path) is None
    jobs = {side: job(side, purpose="budget", budget=6e9) for side in SIDES}
    for each in jobs.values():
        run(each, prepared, keep=tmp_path / "models" / each.name)
    monkeypatch.setattr(noise, "largest", lambda *_: jobs)
    found = noise.noise({}, prepared, tmp_path)
    assert found["by_side"].keys() == set(SIDES)
    for measured in found["by_side"].values():
        assert measured["num_documents"] == 4
        assert len(measured["noised"]) == 15
    header, rows = fight.noise({"noise": found})
    assert len(rows) == 6
    assert {len(row) for row in rows} == {len(header)} == {10}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        (b"abc", True),
        ("日本".encode(), True),
        ("日本".encode()[:-1], True),
        (b"a\xffb", False),
        (b"\x80", False),
        (b"", True),
    ],
)
def test_only_a_last_character_may_be_cut_short(data, valid):
    assert any_language.is_utf8(data) == valid


def test_every_table_of_the_page_is_made_from_a_record(all_results):
    side = {"bits_per_byte": {"value": 2.0, "low": 1.9, "high": 2.1}, "bytes_per_unit": 3.0, "flops_per_character": 1e6}
    script = {"documents": 3, "bytes": 300, "characters": 100, "blt": side, "bpe": side}
    share = {"Latin": {"continuations": 8, "valid": {"value": 0.5, "low": 0.2, "high": 0.8}}}
    languages = {"by_script": {"Thai": script}, "valid_utf8": {"blt": share, "bpe": share}}
    figure = {"value": 0.5, "low": None, "high": None}
    told = {
        "bits_per_clean_byte": figure,
        **{name: dict.fromkeys(fight.PAIRS, figure) for name in ("accuracy", "lost")},
    }
    noised = {"perturbation": "UpperCase", "place": "both"} | told
    measured = {"clean": {"perturbation": None, "place": None} | told, "noised": [noised]}
    by_side = {"by_side": dict.fromkeys(SIDES, measured)}
    found = report.record(all_results) | {"any_language": languages, "noise": by_side}
    for make in fight.TABLES.values():
        header, rows = make(found)
        assert rows
        assert {len(row) for row in rows} == {len(header)}
    assert fight.scripts(found)[1][0][:3] == ["Thai", "3", "3.00"]


@pytest.mark.parametrize("ends", [(None, None), (5.2, 5.2)])
def test_the_page_shows_no_interval_of_one_document(ends):
    side = {"bits_per_byte": {"value": 5.2, "low": ends[0], "high": ends[1]}, "bytes_per_unit": 3.0}
    side["flops_per_character"] = 1e6
    script = {"documents": 1, "bytes": 300, "characters": 100, "blt": side, "bpe": side}
    (row,) = fight.scripts({"any_language": {"by_script": {"Lao": script}}})[1]
    assert row[3] == "5.200"


def test_a_curve_is_drawn_of_figures_without_intervals(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.bpe_baseline.draw import draw

    figure = {"value": 2.0, "low": None, "high": None}
    rows = [{"corpus": "stories", "side": "blt", "training_flops": cost, "bits_per_byte": figure} for cost in (1, 2)]
    draw({"equal_training_flops": rows, "patch_rules": []}, tmp_path / "drawn.svg")
    assert "TinyStories" in (tmp_path / "drawn.svg").read_text()


def test_the_page_says_who_wins_whoever_it_is():
    def row(side, bits):
        return {"corpus": "python", "budget": 5e11, "side": side, "bits_per_byte": {"value": bits}}

    rows = [row("blt", 1.5), row("bpe", 1.25), row("flat", 2.0)]
    _, (line,) = fight.verdict({"equal_training_flops": rows})
    assert line == ["Python source", "5e11", "**BPE**, 1.250", "BLT +0.250, flat bytes +0.750"]
