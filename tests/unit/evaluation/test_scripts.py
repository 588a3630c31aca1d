import json
import math
from dataclasses import replace

import pytest
from click.testing import CliRunner

from blt.cli.evaluate import evaluate as command_evaluate
from blt.errors import ConfigurationError
from blt.evaluation import by_script, evaluate, script_of
from blt.evaluation.scripts import NO_SCRIPT, script_of_character
from blt.model.cost import cost_of

LATIN, CYRILLIC, HAN = "The dog saw a ball.", "Собака увидела мяч.", "狗看到了一个球。"
DOCUMENTS = [text.encode() for text in (LATIN, CYRILLIC, LATIN * 2, HAN, "123 + 4", CYRILLIC)]


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("a", "Latin"),
        ("Ö", "Latin"),
        ("ﬁ", "Latin"),
        ("ж", "Cyrillic"),
        ("λ", "Greek"),
        ("漢", "Han"),
        ("か", "Hiragana"),
        ("カ", "Katakana"),
        ("한", "Hangul"),
        ("ก", "Thai"),
        ("ع", "Arabic"),
        ("क", "Devanagari"),
        ("ᐃ", "Canadian Aboriginal"),
        ("ꪀ", "Tai Viet"),
        ("7", None),
        (" ", None),
        ("。", None),
        ("º", None),
        ("\u0301", None),
        ("\x00", None),
    ],
)
def test_a_letters_script_is_known_by_its_name(character, script):
    assert script_of_character(character) == script


def test_most_letters_decide_and_bytes_that_are_no_text_do_not():
    assert script_of("Да, da! да") == "Cyrillic"
    assert script_of("漢字" * 9 + "かな") == "Japanese"
    assert script_of("漢字" * 90 + "か") == "Han"
    assert script_of(b"\xff\xfe abc \xd0") == "Latin"
    assert script_of("12 % \u2026") == NO_SCRIPT


def test_documents_are_divided_and_nothing_is_lost(tiny_lm):
    evaluation = evaluate(tiny_lm, DOCUMENTS, bootstrap=0)
    found = {one.script: one for one in by_script(tiny_lm, DOCUMENTS, evaluation, bootstrap=50)}
    assert found.keys() == {"Latin", "Cyrillic", "Han", NO_SCRIPT}
    assert sum(one.num_bytes for one in found.values()) == evaluation.num_bytes
    assert sum(one.num_documents for one in found.values()) == len(DOCUMENTS)
    bits = sum(one.bits_per_byte.value * one.num_bytes for one in found.values())
    assert bits == pytest.approx(evaluation.bits_by_unit.sum())
    assert found["Cyrillic"].num_characters == 2 * len(CYRILLIC)
    assert found["Han"].bytes_per_character == 3
    assert found["Han"].bits_per_character == pytest.approx(3 * found["Han"].bits_per_byte.value)
    alone = evaluate(tiny_lm, [HAN.encode()], bootstrap=0)
    assert found["Han"].bits_per_byte.value == pytest.approx(alone.bits_per_byte, rel=1e-5)
    assert found["Han"].mean_patch_bytes == pytest.approx(alone.mean_patch_bytes)
    low, high = found["Cyrillic"].bits_per_byte.low, found["Cyrillic"].bits_per_byte.high
    assert low == pytest.approx(high)  # both documents are the same
    assert found["Latin"].bits_per_byte.low < found["Latin"].bits_per_byte.high


def test_flops_of_a_character_are_those_of_its_bytes_with_the_entropy_model(tiny_lm):
    evaluation = evaluate(tiny_lm, DOCUMENTS, bootstrap=0)
    found = {one.script: one for one in by_script(tiny_lm, DOCUMENTS, evaluation, bootstrap=0)}["Han"]
    assert tiny_lm.entropy_model is not None
    cost = cost_of(
        tiny_lm.blt.config,
        mean_patch_bytes=found.mean_patch_bytes,
        context_bytes=len(HAN.encode()),
        entropy_model=tiny_lm.entropy_model.config,
    )
    assert found.flops_per_character == pytest.approx(3 * cost.flops_with_entropy_model)
    assert math.isnan(found.bits_per_byte.low)


def test_an_evaluation_of_windows_or_of_other_documents_is_refused(tiny_lm):
    evaluation = evaluate(tiny_lm, DOCUMENTS, bootstrap=0)
    with pytest.raises(ConfigurationError, match="not of these 5 documents"):
        by_script(tiny_lm, DOCUMENTS[1:], evaluation)
    with pytest.raises(ConfigurationError, match="needs the protocol documents, not windows"):
        by_script(tiny_lm, DOCUMENTS, replace(evaluation, protocol="windows"))


def test_the_command_shows_scripts_as_a_table_and_as_json(tiny_folder, tmp_path):
    runner = CliRunner()
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": document.decode()}) + "\n" for document in DOCUMENTS))
    command = ["--data", str(path), "--model", str(tiny_folder), "--by-script", "--bootstrap", "20"]
    shown = runner.invoke(command_evaluate, command)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.split("\n\n")[1].splitlines()
    assert lines[0].startswith("script ")
    assert [line.split()[0] for line in lines[1:]] == ["Cyrillic", "Latin", "Han", NO_SCRIPT]
    values = json.loads(runner.invoke(command_evaluate, [*command, "--json"]).stdout)
    assert [one["script"] for one in values["by_script"]] == ["Cyrillic", "Latin", "Han", NO_SCRIPT]
    assert values["by_script"][2]["bytes_per_character"] == 3
    assert values["by_script"][0]["bits_per_byte"].keys() == {"value", "low", "high"}
    refused = runner.invoke(command_evaluate, [*command, "--protocol", "windows"])
    assert refused.exit_code != 0
    assert "--by-script" in str(refused.exception or refused.output)
