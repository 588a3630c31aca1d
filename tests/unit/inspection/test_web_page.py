"""The page as files, and in one file; what it does in a browser is tried in `tests/journeys/test_page.py`."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from blt.api import ByteLM
from blt.inspection import html_page, page_files, read, view_patches
from blt.inspection.web_page import FOLDER, bundled
from blt.patching import SpaceRule

MODULES = sorted(path.name for path in FOLDER.glob("*.js"))
TEXT = b'Tom ate 3 <crpes> </script><script>alert(1)</script> & "more".\n\xff'


class Page(HTMLParser):
    """The elements of a page, with what is in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), ""))

    def handle_endtag(self, tag):
        self.elements.append(("", {}, ""))  # what follows belongs to no element

    def handle_data(self, data):
        if self.elements:
            tag, attributes, before = self.elements[-1]
            self.elements[-1] = (tag, attributes, before + data)

    def named(self, name):
        return [(attributes, data) for tag, attributes, data in self.elements if tag == name]


def page_of(lm, text=TEXT, *, title="a <b>"):
    return html_page(view_patches(lm, text), read(lm, text), title=title)


def declared(source):
    """Names at the top level of a module."""
    return re.findall(r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)", source, flags=re.MULTILINE)


def test_the_saved_page_holds_the_reading_and_no_text_can_end_its_element(tiny_lm):
    page = Page(page_of(tiny_lm))
    scripts = page.named("script")
    assert [attributes["type"] for attributes, _ in scripts] == ["application/json", "module"]
    state = json.loads(scripts[0][1])
    assert state["readings"] == [read(tiny_lm, TEXT).to_dict()]
    assert bytes.fromhex(state["readings"][0]["hex"]) == TEXT
    assert page.named("title")[0][1] == "Patches: a <b>"


def test_the_saved_page_asks_for_nothing_from_elsewhere_and_runs_only_what_it_names(tiny_lm):
    page = Page(page_of(tiny_lm))
    references = [
        value for _, attributes, _ in page.elements for name in ("src", "href") if (value := attributes.get(name))
    ]
    assert references == ["data:,"]
    ((style_attributes, style),) = page.named("style")
    assert style_attributes == {}
    (policy,) = [
        each["content"] for each, _ in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy"
    ]
    for kind, content in (("style-src", style), ("script-src", page.named("script")[1][1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_without_scripts_the_saved_page_shows_the_text_with_bars_between_patches(tiny_lm):
    tiny_lm.patch_rule = SpaceRule()
    page = page_of(tiny_lm, b"Tom <had a\n\xff")
    assert "<noscript><pre>Tom │&lt;had │a⏎│⟨ff⟩</pre></noscript>" in page


def test_what_was_left_out_is_told(tiny_lm):
    page = html_page(view_patches(tiny_lm, b"x" * 50, limit=20), read(tiny_lm, b"x" * 20), title="t")
    assert "t; the last 30 bytes are left out" in page


def test_a_model_without_entropies_has_a_page_too(tiny_lm):
    lm = ByteLM(tiny_lm.blt, patch_rule=SpaceRule())
    state = json.loads(Page(page_of(lm)).named("script")[0][1])
    assert state["model"]["has_entropy_model"] is False
    assert state["readings"][0]["entropies"] is None


def test_the_served_page_asks_only_for_files_that_are_there():
    files = page_files()
    page = Page(files["index.html"][1].decode())
    asked = {attributes.get("src") or attributes.get("href") for tag, attributes, _ in page.elements}
    assert asked - {None, "data:,"} == {"page/style.css", "page/app.js"}
    for name in MODULES:
        content_type, content = files[name]
        assert content_type == "text/javascript; charset=utf-8"
        assert set(re.findall(r'from "\./([\w.]+)"', content.decode())) <= set(MODULES)
    assert files["saved.html"][1].startswith(b"<!doctype html>")


def test_the_served_page_lives_under_its_policy():
    page = Page(page_files()["index.html"][1].decode())
    assert page.named("style") == []
    for tag, attributes, data in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert tag != "script" or not data.strip()


@pytest.mark.parametrize("name", MODULES)
def test_modules_write_no_markup_and_no_style_attribute(name):
    source = (FOLDER / name).read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|setAttribute\(\"style\"", source
    )


def test_modules_can_share_one_scope_and_import_in_one_form():
    names = [name for module in MODULES for name in declared((FOLDER / module).read_text())]
    assert [name for name in names if names.count(name) > 1] == []
    script = bundled("app.js")
    assert re.findall(r"^(?:import|export)\b.*", script, flags=re.MULTILINE) == []
    assert set(declared(script)) == set(names), "every module is used"
    for module in MODULES:
        for imported, source in re.findall(r'^import \{ (.*) \} from "\./(.*)";', (FOLDER / module).read_text(), re.M):
            exported = re.findall(
                r"^export (?:async )?(?:function\*?|class|const) (\w+)",
                (FOLDER / source).read_text(),
                flags=re.MULTILINE,
            )
            assert set(imported.split(", ")) <= set(exported), module
