"""Hooks of MkDocs: generated pages, figures from records, formulas as MathML, and no address outside the site."""

import html
import re
from typing import Any

import constants
import records
import reference
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]\s*</\1>', flags=re.DOTALL
)
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload))[^>]*\bhref=["']?(?:https?:)?//"""
)


def on_files(files: Files, *, config: Any) -> Files:
    """Add what is generated: command line, recipe fields, and the records themselves."""
    pages = {"reference/cli.md": reference.command_line_page(), "reference/recipe.md": reference.recipe_page()}
    for address, text in pages.items():
        files.append(File.generated(config, address, content=text))
    for path in sorted([*records.RECORDS.glob("*.json"), *records.RECORDS.glob("*.svg")]):
        files.append(File.generated(config, f"records/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Fill in figures, tables and constants."""
    up = "../" * page.file.src_uri.count("/")
    return records.fill(constants.fill(markdown), link=lambda name: f"{up}records/{name}.json")


def on_page_content(content: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn formulas into MathML, which browsers draw by themselves."""
    return _FORMULA.sub(_mathml, content)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuse a page that would load something from elsewhere."""
    found = _LOADED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri}: loads from outside the site: {found[0]}")
    return output


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["open"] == "[" else "inline"
    formula = convert(html.unescape(match["latex"].strip()), display=display)
    return f'<div class="formula">{formula}</div>' if display == "block" else formula
