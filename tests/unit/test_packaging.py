"""What pyproject.toml declares, and what is tried at its lowest version."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UNTRIED = {"torch", "ray"}
"""Only one build of torch is to be had without CUDA, and another ray takes a minute to install."""


def declared():
    """The lowest version of each package that users are asked to have, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for_users = [
        *project["dependencies"],
        *(word for name, words in extras.items() if name not in ("test", "docs") for word in words),
    ]
    others = [word for word in for_users if not word.startswith("blt-llm")]
    return dict(re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", word).groups() for word in others)


def tried():
    lines = (ROOT / "constraints-minimum.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", sorted(declared().keys() - UNTRIED))
def test_the_lowest_version_that_is_declared_is_the_one_that_is_tried(name):
    lowest = declared()[name]
    assert tried()[name] == lowest + ".0" * (2 - lowest.count("."))


def test_every_package_that_is_tried_is_declared_or_needed_by_one():
    lines = (ROOT / "constraints-minimum.txt").read_text().partition("# What these need")[0].splitlines()
    assert {line.split("==")[0] for line in lines if not line.startswith("#")} == declared().keys() - UNTRIED
