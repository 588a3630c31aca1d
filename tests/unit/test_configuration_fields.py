"""Every field of every configuration: explained, and read by something."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import blt
from blt.configuration import FORMER_NAME, field_help, from_dict, to_dict
from blt.training.recipe import Recipe

SOURCE = Path(blt.__file__).parent


def configurations():
    """Every dataclass of the package whose name ends in Config, Rule or Stage, and the recipe: what files can set."""
    found = {Recipe}
    for info in pkgutil.walk_packages(blt.__path__, "blt."):
        if not info.name.endswith("__main__") and info.name != "blt.generate":
            for cls in vars(importlib.import_module(info.name)).values():
                if inspect.isclass(cls) and dataclasses.is_dataclass(cls) and cls.__module__.startswith("blt."):
                    found |= {cls} if cls.__name__.endswith(("Config", "Rule", "Stage")) else set()
    return sorted(found, key=lambda cls: cls.__qualname__)


def attributes_read():
    """Every attribute name that the package reads anywhere but in a class's checks of its own fields."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        _collect(ast.parse(path.read_text()), names)
    return names


def _collect(node, names):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and child.name == "__post_init__":
            continue
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
            names.add(child.attr)
        _collect(child, names)


CONFIGURATIONS = configurations()
READ = attributes_read()


def unread_fields(cls):
    return [field.name for field in dataclasses.fields(cls) if field.name not in READ]


def test_the_configurations_are_found():
    names = {cls.__name__ for cls in CONFIGURATIONS}
    assert {"BLTConfig", "HashConfig", "EntropyConfig", "LMConfig", "PrepareConfig", "EntropyRule", "Recipe"} <= names


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_field_has_a_help_text(cls):
    helps = field_help(cls)
    assert [field.name for field in dataclasses.fields(cls) if not helps.get(field.name, "").strip()] == []


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_field_is_read_by_something_besides_the_checks_of_its_class(cls):
    assert unread_fields(cls) == []


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_configuration_is_frozen_and_takes_keywords_only(cls):
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls) if field.init)


def test_a_field_that_nothing_reads_would_be_found():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class ForgottenConfig:
        dim: int
        nothing_ever_reads_this: int

    assert unread_fields(ForgottenConfig) == ["nothing_ever_reads_this"]


def test_every_former_name_is_read_as_the_field_and_belongs_to_no_other():
    met = {}
    for cls in CONFIGURATIONS:
        names = {field.name for field in dataclasses.fields(cls)}
        former = {
            field.metadata[FORMER_NAME]: field for field in dataclasses.fields(cls) if FORMER_NAME in field.metadata
        }
        assert not names & former.keys(), cls
        met |= {(cls.__name__, old): field.name for old, field in former.items()}
        for old, field in former.items():
            needed = {"num_steps": 1} if "num_steps" in names else {}
            built = from_dict(cls, needed | {old: 3})
            assert to_dict(built)[field.name] == 3
            assert old not in to_dict(built)
    assert met == {("LoopConfig", "rows"): "batch_size", ("LoopConfig", "window"): "sequence_length"}
