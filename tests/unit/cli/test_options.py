"""Options that several verbs share."""

import importlib
import json

import click
import pytest

from blt import cli


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return stopped.value.code


def options_named(name):
    commands = {verb: getattr(importlib.import_module(f"blt.cli.{verb}"), verb) for verb in cli.VERBS}
    return {
        verb: parameter
        for verb, command in commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and name in parameter.opts
    }


def test_every_verb_computes_on_a_gpu_if_there_is_one_unless_told_otherwise():
    found = options_named("--device")
    assert set(found) >= {"generate", "evaluate", "bench", "patch", "verify"}
    assert {option.default for option in found.values()} == {"auto"}


def test_every_type_has_both_of_its_names_in_every_verb(tiny_folder, capsys):
    found = options_named("--dtype")
    assert set(found) >= {"generate", "evaluate", "bench", "verify"}
    for option in found.values():
        context = click.Context(click.Command("any"))
        for name, dtype in {"fp32": "float32", "bf16": "bfloat16", "float32": "float32"}.items():
            assert option.type.convert(name, option, context) == dtype
    arguments = ("bench", "--model", tiny_folder, "--bytes", 16, "--repeats", 1, "--json", "--dtype")
    assert run(*arguments, "bf16") == run(*arguments, "bfloat16") == 0
    assert [json.loads(line)["dtype"] for line in capsys.readouterr().out.splitlines()] == ["bfloat16"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("patch", "Tom", "--json", "--show-spaces"), "--show-spaces: "),
        (("patch", "Tom", "--html", "page.html", "--show-spaces"), "--show-spaces: "),
        (("evaluate", "--data", "stories.txt", "--units"), "--units: needs --json"),
        (("evaluate", "--data", "stories.txt", "--bootstrap", "0", "--seed", "1"), "--seed: nothing is drawn"),
        (("bench", "--what", "prefill", "--after", "9"), "--after: "),
        (("bench", "--what", "prefill", "--batch", "2"), "--batch: "),
        (("bench", "--what", "train", "--draft", "decoder"), "--draft: "),
        (("bench", "--max-draft", "2"), "--max-draft: needs --draft"),
        (("bench", "--draft", "decoder", "--batch", "2"), "--batch: "),
        (("bench", "--draft", "decoder", "--after", "2"), "--after: "),
        (("bench", "--draft", "decoder", "--repeats", "2"), "--repeats: "),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(arguments, said, capsys):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
