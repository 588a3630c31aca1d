"""What holds documentation and code together; links and anchors are checked by `mkdocs build --strict`."""

import html
import importlib
import json
import re
import shlex

import click
import pytest

import blt
from blt import cli, codec
from blt.configuration import describe_fields
from blt.evaluation import WINDOW
from blt.model import BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.training import Recipe
from documents import DOCS, PAGES, README, ROOT

# isort: split
import constants
import readme
import records
import reference

DIALECT = re.compile(r"\b(foresee\w*|think\w*|thought|river|banks|bricks?|nowhere)\b", flags=re.IGNORECASE)
SOURCE = ROOT / "src" / "blt"


def link(name):
    return f"records/{name}.json"


def object_at(path):
    """What a dotted path names."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


def documented():
    """Everything that a reference page takes its docstring from."""
    return [path for page in PAGES.values() for path in re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE)]


def test_every_public_name_is_in_the_reference():
    found = [object_at(path) for path in documented()]
    missing = [name for name in blt.__all__ if not any(getattr(blt, name) is each for each in found)]
    assert missing == ["__version__"]
    assert "## `__version__`" in PAGES["reference/python.md"]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_in_the_reference_with_its_help_and_on_another_page(verb):
    page = reference.command_line_page()
    assert f"## blt {verb} {{ #{verb} }}" in page
    assert f"Usage: blt {verb} " in page
    assert any(f"blt {verb}" in text for text in PAGES.values())


FENCE = re.compile(r"^```(?:bash|sh|console)?\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def commands_in(text):
    """The verb and the words of each `blt` command in a page's blocks of code, but for those with a gap in them."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|[|;]", re.sub(r"(^|\s)#.*", "", line)):
                found = re.search(r"(?:^|\s)blt ([a-z]+)\b(.*)", part)
                if found and found[1] in cli.VERBS and not re.search(r"[…<>]|\.\.\.", found[2]):
                    yield found[1], found[2]


def fault_of(verb, words):
    """What the command line would refuse in a command before it looks at anything; None if it takes it."""
    command = getattr(importlib.import_module(f"blt.cli.{verb}"), verb)
    context = click.Context(command, info_name=verb, **command.context_settings)
    try:
        values, surplus, _ = command.make_parser(context).parse_args(shlex.split(words))
    except click.UsageError as error:
        return str(error)
    lacking = [one.name for one in command.params if one.required and one.name not in values]
    takes_fields = verb == "train" or (verb == "plan" and all("." in word for word in surplus if word.startswith("--")))
    return f"surplus {surplus}" if surplus and not takes_fields else f"lacks {lacking}" if lacking else None


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_the_commands_of_a_page_are_ones_that_the_command_line_takes(name):
    text = PAGES.get(name, README)
    assert [(verb, words) for verb, words in commands_in(text) if fault_of(verb, words)] == []


def test_a_command_that_is_none_would_be_found():
    lines = ['ls && blt generate "Once" --model \\', "  tiny  # a comment", "blt bench --presett tiny", "blt convert a"]
    faults = [fault_of(*command) for command in commands_in("\n".join(["```bash", *lines, "```\n"]))]
    assert [fault.split(".")[0] for fault in faults] == [
        "surplus ['Once']",
        "No such option '--presett'",
        "lacks ['out']",
    ]
    assert sum(len(list(commands_in(text))) for text in PAGES.values()) > 30


def test_the_help_of_a_verb_is_what_the_command_prints(capsys):
    with pytest.raises(SystemExit):
        cli.main(["calibrate", "--help"])
    printed = capsys.readouterr().out
    assert reference.help_of("calibrate").split() == printed.split()


def test_every_field_of_a_recipe_is_in_the_reference():
    page = reference.recipe_page()
    rows = describe_fields(Recipe)
    assert rows
    tables = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE))
    places = [(f"`[{place}]`" if place else "The recipe itself", name) for place, _, name in map(split, rows)]
    assert [name for place, name in places if f"| `{name}` |" not in tables[place]] == []


def split(row):
    return row.path.rpartition(".")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_finds_all_its_figures_and_constants(name):
    filled = records.fill(constants.fill(PAGES[name]), link=link)
    assert "{{" not in filled


def test_a_figure_that_no_record_has_is_noticed():
    with pytest.raises(KeyError):
        records.fill("{{ figure bundled-model | no such key | .2f }}", link=link)
    with pytest.raises(KeyError):
        records.fill("{{ table no-such-table }}", link=link)


def test_every_record_is_listed():
    table = records.all_records(link)
    names = [path.stem for path in records.RECORDS.glob("*.json")]
    assert len(names) > 10
    assert [name for name in names if f"[{name}]({link(name)})" not in table] == []


def test_every_table_is_on_a_page():
    used = set(re.findall(r"\{\{ table ([\w-]+) \}\}", "".join(PAGES.values())))
    assert used == set(records.TABLES) - {"speed"}  # that one is the README's


def test_the_tables_of_the_readme_are_those_of_the_records():
    assert "<!-- table: speed -->" in README
    assert readme.filled(README) == README


def test_a_changed_figure_in_the_readme_is_noticed():
    changed = README.replace("| generate, float32 | ", "| generate, float32 | 1")
    assert changed != README
    assert readme.filled(changed) != changed


def test_the_sentences_of_the_readme_have_the_figures_of_the_records():
    record = records.load("bundled-model")
    said = [
        f"{record['parameters'] / 1e6:.1f}M parameters",
        f"entropy model of {record['entropy_parameters'] / 1e6:.2f}M",
    ]
    for run in (record["began_with"], record):
        megabytes, minutes = run["train"]["distinct_bytes"] / 1e6, run["stages"]["blt"]["seconds"] / 60
        said.append(f"{megabytes:.1f} MB in {minutes:.0f} minutes on {run['trained_on']}")
    assert [words for words in said if words not in README.replace("\n", " ")] == []


def test_the_constants_of_the_codec_in_the_spec_are_those_of_the_code():
    spec = PAGES["spec/model.md"]
    found = {name: int(value) for name, value in re.findall(r"`([A-Z_]+)` = (\d+)", spec)}
    assert {"BOE_ID", "BOS_ID", "EOS_ID", "BPE_ID", "VOCABULARY_SIZE"} <= set(found)
    assert {name: getattr(codec, name) for name in found} == found
    assert f"`BYTE_OFFSET` = b + {codec.BYTE_OFFSET} " in spec


def test_other_constants_of_the_spec_are_those_of_the_code():
    shape = TransformerConfig(dim=8, num_layers=1, num_heads=1)
    local = LocalConfig(dim=8, num_layers=1, num_heads=1)
    config = BLTConfig(local_encoder=local, global_transformer=shape, local_decoder=local)
    spec = PAGES["spec/model.md"]
    assert rf"\theta = {config.rope_theta:.0f}$$" in spec
    sizes = HashConfig().ngram_sizes
    assert f"sizes {sizes[0]} to {sizes[-1]}" in spec
    assert sizes == tuple(range(sizes[0], sizes[-1] + 1))
    assert f"windows of {WINDOW}" in PAGES["concepts/bits-per-byte.md"]
    assert f"2 \\cdot {codec.VOCABULARY_SIZE} \\cdot D" in PAGES["spec/accounting.md"]


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("spec/")])
def test_every_file_that_the_spec_names_is_there(name):
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py|codec\.py|generation/)`", PAGES[name])
    assert [file for file in named if not (SOURCE / file).exists()] == []
    assert named or name == "spec/index.md"


def test_every_recipe_that_is_named_exists():
    text = README + "".join(PAGES.values())
    named = set(re.findall(r"recipes/[\w-]+\.toml", text))
    assert named
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", *PAGES])
def test_the_words_are_those_of_the_field(name):
    text = PAGES[name] if name in PAGES else (ROOT / name).read_text(encoding="utf-8")
    assert [match[0] for match in DIALECT.finditer(text)] == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_docstrings_say_what_is_returned_or_done_in_the_words_of_the_field(path):
    code = path.read_text(encoding="utf-8")
    assert re.findall(r'"""(?:Give|Say)\b.*', code) == []
    assert re.findall(r"(?i)bank of the river|\bforesee|products of matrices|who feeds|hard to guess", code) == []


def test_a_word_of_our_own_would_be_found():
    assert DIALECT.search("hard to foresee, and thinks once per patch")


def test_the_figure_of_patches_has_the_patches_of_the_bundled_model():
    figures = importlib.import_module("figures")
    lm = blt.ByteLM.from_pretrained()
    drawn = (DOCS / "images" / "patches.svg").read_text(encoding="utf-8")
    patches = "|".join(patch.text for patch in lm.patch(figures.SENTENCE))
    assert f"<desc>Patches: {patches}</desc>" in drawn


def test_the_figure_of_the_architecture_is_the_one_that_is_drawn():
    figures = importlib.import_module("figures")
    assert (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8") == figures.draw_architecture()


def test_the_still_of_a_run_tells_the_story_of_the_record():
    drawn = (DOCS / "images" / "run.svg").read_text(encoding="utf-8")
    story = json.loads((records.RECORDS / "bundled-model.json").read_text())["samples"]["Once upon a time"]
    shown = html.unescape(re.search(r"<desc>(.*?)</desc>", drawn, flags=re.DOTALL)[1])
    assert story.split() == shown.split("--seed 0\n")[1].split("\n\n")[0].split()
