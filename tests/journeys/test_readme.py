"""The README's commands, run as they stand there but for sizes."""

import json
import re
import shlex
import shutil

import click
import pytest

from blt import cli
from blt.lm import folder as model_folder
from documents import PAGES, README, ROOT, blocks, commands, section
from tiny_training import made_up_documents, write_text

SMALL = shlex.split("""
    --device cpu --sample_prompt Tom --data.validation_documents 3
    --entropy.loop.num_steps 2 --entropy.loop.batch_size 2 --entropy.loop.sequence_length 32
    --blt.loop.num_steps 2 --blt.loop.batch_size 2 --blt.loop.sequence_length 32
    --blt.loop.accumulation 1 --blt.loop.compile false
    --entropy.model.dim 16 --entropy.model.num_layers 1 --entropy.model.num_heads 2
    --blt.model.hash_embedding.num_rows 16
    --blt.model.local_encoder.dim 16 --blt.model.local_encoder.num_heads 2 --blt.model.local_encoder.num_layers 1
    --blt.model.local_decoder.dim 16 --blt.model.local_decoder.num_heads 2 --blt.model.local_decoder.num_layers 1
    --blt.model.global_transformer.dim 24 --blt.model.global_transformer.num_heads 2
    --blt.model.global_transformer.num_layers 1
""")
"""Makes a recipe of the README as small as it gets."""
STEERING = section(PAGES["guides/generate.md"], "Regular expressions and JSON schemas")


def run(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0, arguments


@pytest.fixture
def _a_model_without_a_name(request, monkeypatch):
    """The bundled model, or a small one in its place."""
    if not model_folder.BUNDLED.is_dir():
        monkeypatch.setattr(model_folder, "BUNDLED", request.getfixturevalue("tiny_folder"))


@pytest.mark.usefixtures("_a_model_without_a_name")
def test_the_python_block_runs(capsys):
    (block,) = blocks(section(README, "From Python"), language="python")
    exec(compile(block, "README.md", "exec"), {})
    assert "Once upon a time" in capsys.readouterr().out


@pytest.mark.usefixtures("_a_model_without_a_name")
def test_steering_what_is_written_works_as_written(capsys):
    (block,) = blocks(STEERING, language="python")
    exec(compile(block, "generate.md", "exec"), {})
    assert re.match("(very )*(happy|sad) and [0-9]{1,2} years old\n", capsys.readouterr().out)
    ours = commands(STEERING)
    assert len(ours) == 2
    for words in ours:
        run(words)
    said, json_line = capsys.readouterr().out.splitlines()
    assert re.fullmatch("Tom was (happy|sad) and [0-9]{1,2} years old", said)
    assert len(json.loads(json.loads(json_line)["continuation"])) <= 3


def test_training_ones_own_model_works_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    ours = commands(blocks_with_prepare()[0])
    assert [words[0] for words in ours] == ["prepare", "prepare", "train", "evaluate", "generate"]
    for seed, name in enumerate(word for words in ours for word in words if word.endswith(".txt")):
        write_text(tmp_path / name, made_up_documents(8, seed=seed, max_words=12))
    small = {"train": SMALL, "generate": ["--max-new", "5"], "evaluate": ["--bootstrap", "0"]}
    for words in ours:
        run([*words, *small.get(words[0], [])])
    said = capsys.readouterr().out
    assert "bits per byte" in said
    assert "Once upon a time" in said


def blocks_with_prepare():
    """The shell blocks of "Train your own", each as a text of its own."""
    return [f"```\n{block}```\n" for block in blocks(section(README, "Train your own")) if "blt prepare" in block]


def test_every_command_in_the_readme_names_a_verb_and_options_that_there_are():
    found = commands(README)
    assert len(found) > 5
    for verb, *rest in found:
        command = cli.cli.get_command(click.Context(cli.cli), verb)
        command.make_parser(click.Context(command, **command.context_settings)).parse_args(rest)


def test_the_table_of_verbs_names_all_verbs_that_there_are():
    verbs = re.findall(r"^\| `blt (\w+)` \|", section(README, "The verbs"), flags=re.MULTILINE)
    assert verbs
    assert set(verbs) == set(cli.VERBS)


def test_every_recipe_that_the_readme_names_exists():
    named = set(re.findall(r"recipes/[\w-]+\.toml", README))
    assert named
    assert all((ROOT / name).is_file() for name in named)
