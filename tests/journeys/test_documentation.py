"""The commands and Python blocks of `docs`, as they stand there; what trains at length is run by `test_readme.py`."""

import json
import shutil

import click
import pytest

from blt import cli
from blt.cli.options import fields_as_options
from blt.lm import folder as model_folder
from blt.training import load_recipe
from documents import PAGES, ROOT, blocks, commands
from hub_stand_in import TOKEN, the_only_hub
from tiny_training import made_up_documents, write_text

PYTHON = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in PAGES.items()
    if name != "guides/convert.md"  # transformers and a Hub: below
    for number, block in enumerate(blocks(text, language="python"))
]
ALL_COMMANDS = {" ".join(words): words for text in PAGES.values() for words in commands(text)}
QUICK = ("generate", "prepare", "patch", "calibrate", "plan", "evaluate")
"""Verbs that are run; every other command is parsed."""
ELSEWHERE = ("a.jsonl.gz", "--dataset", "cuda", "--fields", "models/tiny-int8")
"""Words of commands that need what a test has not, or what the command before them writes."""


@pytest.fixture
def _workplace(tiny_folder, tmp_path, monkeypatch):
    """A folder with what the pages name, and a small model in the bundled one's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_folder, "BUNDLED", tiny_folder)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copytree(tiny_folder, tmp_path / "runs/tiny/model")
    for seed, name in enumerate(("stories-train.txt", "stories-dev.txt", "stories-valid.txt", "my-text.txt")):
        write_text(tmp_path / name, made_up_documents(8, seed=seed, max_words=12))
    languages = ("Tom had a red ball.", "У Тома был красный мяч.", "你好，世界。")
    lines = [json.dumps({"text": text}) for text in languages]
    (tmp_path / "many-languages.jsonl").write_text("\n".join(lines))


@pytest.mark.usefixtures("_workplace")
@pytest.mark.parametrize("block", PYTHON)
def test_a_python_block_runs(block):
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own uploads
@pytest.mark.usefixtures("_workplace")
def test_transformers_and_the_hub_work_as_written(tmp_path, monkeypatch, capsys):
    page = PAGES["guides/convert.md"]
    to_transformers, back, _published, to_int8, from_int8 = commands(page)
    for command in (to_transformers, back, to_int8, from_int8):
        run(command)
    with_transformers, with_the_hub = blocks(page, language="python")
    exec(compile(with_transformers, "convert.md", "exec"), {})
    assert "Once upon a time" in capsys.readouterr().out
    with the_only_hub(monkeypatch, tmp_path) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        exec(compile(with_the_hub, "convert.md", "exec"), {})
        assert "license: mit" in hub.repositories["me/tiny"].commits.popitem()[1]["README.md"].decode()


@pytest.mark.usefixtures("_workplace")
@pytest.mark.parametrize("words", ALL_COMMANDS.values(), ids=ALL_COMMANDS)
def test_a_command_runs_or_at_least_has_a_verb_and_options_that_there_are(words):
    if words[:2] == ["prepare", "--check"]:
        run(["prepare", "my-text.txt", "--out", words[2]])
    if words[0] in QUICK and not set(words) & set(ELSEWHERE):
        run([*words, *({"evaluate": ["--bootstrap", "0"], "calibrate": ["--limit", "4"]}.get(words[0], []))])
    elif "--fields" not in words:
        check(words)


def check(words):
    """Parse a command; a recipe with its fields is loaded."""
    verb, *rest = words
    command = cli.cli.get_command(click.Context(cli.cli), verb)
    context = click.Context(command, **command.context_settings)
    values, extra, _ = command.make_parser(context).parse_args(rest)
    if verb == "train":
        load_recipe(values["recipe"], overrides=fields_as_options(extra))


def run(words):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0, words


def test_a_field_that_there_is_not_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="no_such_field"):
        check(["train", "recipes/tiny.toml", "--blt.loop.no_such_field", "3"])
    with pytest.raises(click.NoSuchOption):
        check(["generate", "--no-such-option"])


def test_there_are_commands_and_blocks_to_run():
    assert len(ALL_COMMANDS) > 30
    assert len(PYTHON) > 8
