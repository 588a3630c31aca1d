from dataclasses import dataclass, field
from typing import Literal

import pytest

from blt.configuration import describe_fields, dotted, field_help, from_dict, tag_of, to_dict, variant, with_overrides
from blt.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A base whose field its variants share."""

    warmup: int = 0
    """Steps until the full rate."""


@variant("constant")
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """One rate."""


@variant("cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """A falling rate."""

    final: float
    """Rate at the end,
    as a share of the full one."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run."""

    steps: int
    """How many steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"steps: at least 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Every kind of field there is."""

    name: str
    """What to call it."""
    rate: float = 1e-3
    """Learning rate."""
    is_dry: bool = False
    """Change nothing."""
    seed: int | None = None
    """Seed; None means another one every time."""
    max_length: int | None = 512
    """Longest row; none: no limit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the matrix products."""
    sizes: tuple[int, ...] = (3, 4)
    """N-gram sizes."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of both moments."""
    every: Literal["epoch"] | int = "epoch"
    """When to save."""
    schedule: Constant | Cosine = field(default_factory=Constant)
    """How the rate changes."""
    stage: Stage = field(default_factory=lambda: Stage(steps=10))
    """The only stage."""
    later: tuple[Stage, ...] = ()
    """Further stages."""
    undescribed: int = 0


FULL = Run(
    name="full",
    rate=0.5,
    is_dry=True,
    seed=3,
    max_length=None,
    precision="bf16",
    sizes=(5,),
    betas=(0.8, 0.9),
    every=7,
    schedule=Cosine(final=0.1, warmup=2),
    stage=Stage(steps=2),
    later=(Stage(steps=3), Stage(steps=4)),
)


@pytest.mark.parametrize("config", [FULL, Run(name="plain")])
def test_a_configuration_survives_being_written_and_read(config):
    assert from_dict(Run, to_dict(config)) == config


def test_what_is_written_is_plain():
    values = to_dict(FULL)
    assert values["schedule"] == {"type": "cosine", "warmup": 2, "final": 0.1}
    assert values["sizes"] == [5]
    assert values["later"] == [{"steps": 3}, {"steps": 4}]


def test_what_is_unset_by_default_is_not_written():
    values = to_dict(Run(name="plain"))
    assert "seed" not in values
    assert values["max_length"] == 512


def test_what_is_unset_against_its_default_is_written_as_a_word():
    assert to_dict(FULL)["max_length"] == "none"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "3e-4", 3e-4),
        ("rate", 1, 1.0),
        ("is_dry", "true", True),
        ("is_dry", "False", False),
        ("seed", "12_000", 12_000),
        ("seed", 2.0, 2),
        ("seed", "none", None),
        ("precision", "bf16", "bf16"),
        ("sizes", "3, 5,8", (3, 5, 8)),
        ("sizes", [6], (6,)),
        ("sizes", "", ()),
        ("betas", "0.5,1", (0.5, 1.0)),
        ("every", "epoch", "epoch"),
        ("every", "100", 100),
        ("schedule", {"type": "cosine", "final": "0.2"}, Cosine(final=0.2)),
        ("schedule", Cosine(final=0.2), Cosine(final=0.2)),
        ("later", [{"steps": "2"}], (Stage(steps=2),)),
    ],
)
def test_values_from_files_and_from_the_command_line_become_the_field_s_type(key, text, value):
    built = getattr(from_dict(Run, {"name": "x", key: text}), key)
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "^name: missing; it has no default$"),
        ({"nam": "x"}, "^nam: unknown key; did you mean 'name'\\?$"),
        ({"zzzzzz": 1}, "^zzzzzz: unknown key; known: betas, every, "),
        ({"stage": {"stepps": 1}}, "^stage.stepps: unknown key; did you mean 'steps'\\?$"),
        ({"stage": {"steps": 0}}, "^stage: steps: at least 1, got 0$"),
        ({"stage": 3}, "^stage: expected a table of keys, got 3$"),
        ({"stage": Constant()}, "^stage: expected a table of keys, got Constant"),
        ({"schedule": {}}, "^schedule.type: None is none of constant, cosine"),
        ({"schedule": {"type": ["cosine"]}}, r"^schedule.type: \['cosine'\] is none of constant, cosine"),
        ({"schedule": {"type": "cosin"}}, "^schedule.type: 'cosin' is none of .*did you mean 'cosine'\\?$"),
        ({"schedule": {"type": "constant", "final": 1.0}}, "^schedule.final: unknown key"),
        ({"schedule": {"type": "cosine"}}, "^schedule.final: missing"),
        ({"rate": "fast"}, "^rate: expected float, got 'fast'$"),
        ({"rate": True}, "^rate: expected float, got True$"),
        ({"seed": 1.5}, "^seed: expected int, got 1.5$"),
        ({"seed": True}, "^seed: expected int, got True$"),
        ({"is_dry": 1}, "^is_dry: expected bool, got 1$"),
        ({"name": 3}, "^name: expected str, got 3$"),
        ({"precision": "fp16"}, "^precision: 'fp16' is none of fp32, bf16$"),
        ({"sizes": 3}, "^sizes: expected a list, got 3$"),
        ({"sizes": ["a"]}, "^sizes: expected int, got 'a'$"),
        ({"betas": [0.9]}, "^betas: expected 2 values, got 1$"),
        ({"every": "week"}, "^every: expected 'epoch' or int, got 'week'$"),
    ],
)
def test_what_cannot_be_is_refused_naming_the_key_and_the_value(values, message):
    with pytest.raises(ConfigurationError, match=message):
        from_dict(Run, {"name": "x", **values} if values else {})


def test_the_place_of_a_configuration_stands_before_its_keys():
    with pytest.raises(ConfigurationError, match=r"^recipe\.stage\.steps: expected int"):
        from_dict(Run, {"name": "x", "stage": {"steps": "many"}}, where="recipe")


def test_overrides_set_dotted_keys_and_leave_the_original():
    values = {"name": "x", "stage": {"steps": 1}, "schedule": {"type": "cosine", "final": 0.1}}
    changed = with_overrides(values, {"stage.steps": "5", "schedule.final": 0.2, "seed": 4, "new.deep.key": 1})
    assert changed == {
        "name": "x",
        "stage": {"steps": "5"},
        "schedule": {"type": "cosine", "final": 0.2},
        "seed": 4,
        "new": {"deep": {"key": 1}},
    }
    assert values == {"name": "x", "stage": {"steps": 1}, "schedule": {"type": "cosine", "final": 0.1}}


def test_dotted_paths_are_what_overrides_take():
    values = {"stage": {"steps": 1, "inner": {"rate": 0.1}}, "seed": 4}
    assert dotted(values) == {"stage.steps": 1, "stage.inner.rate": 0.1, "seed": 4}
    assert with_overrides({}, dotted(values)) == values


def test_an_override_within_a_single_value_is_refused_with_its_whole_path():
    with pytest.raises(ConfigurationError, match=r"^stage\.steps\.more: stage\.steps is a single value, 1"):
        with_overrides({"stage": {"steps": 1}}, {"stage.steps.more": 2})


def test_help_is_the_docstring_under_a_field_inherited_ones_too():
    assert field_help(Cosine) == {
        "warmup": "Steps until the full rate.",
        "final": "Rate at the end, as a share of the full one.",
    }
    assert "undescribed" not in field_help(Run)


def test_a_description_lists_every_key_of_every_variant_with_its_help():
    rows = {row.path: row for row in describe_fields(Run)}
    assert (rows["name"].type, rows["name"].help) == ("text", "What to call it.")
    assert (rows["stage.steps"].type, rows["stage.steps"].help) == ("int", "How many steps.")
    assert rows["schedule.warmup"].help == "Steps until the full rate."
    assert rows["schedule.final"].type == "float"
    assert (rows["undescribed"].type, rows["undescribed"].help) == ("int", "")
    assert "stage" not in rows
    assert [(row.path, row.variant, row.help) for row in describe_fields(Constant | Cosine)] == [
        ("type", None, "Which of constant, cosine."),
        ("warmup", "constant", "Steps until the full rate."),
        ("warmup", "cosine", "Steps until the full rate."),
        ("final", "cosine", "Rate at the end, as a share of the full one."),
    ]


def test_a_variant_knows_its_tag():
    assert tag_of(Cosine(final=0.1)) == "cosine"
