"""The README and the pages of `docs`, as tests read them: code blocks, commands, sections."""

import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
"""Every page by its path under `docs`; those that are generated when the site is built are not among them."""

sys.path.insert(0, str(DOCS / "tools"))  # what builds the site


def blocks(text, *, language=""):
    """Code blocks of a text."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for its_language, block in found if its_language == language]


def section(text, title):
    """The part of a text under a heading of level 2."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)[1]


def commands(text):
    """Every `blt …` in code blocks, split into words."""
    lines = [line.strip() for block in blocks(text) for line in re.split(r"\n|&&", block)]
    return [shlex.split(line)[1:] for line in lines if line.startswith("blt ")]
