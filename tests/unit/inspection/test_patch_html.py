import re
from html.parser import HTMLParser

import pytest

from blt.api import ByteLM
from blt.inspection import PatchView, html_page, view_patches
from blt.inspection.patch_html import MAX_POINTS
from blt.patching import EntropyRiseRule, SpaceRule

VOID = {"meta", "line", "polyline", "polygon"}


class Page(HTMLParser):
    """Checks that every element is closed, and collects what the page says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.patches: list[str] = []
        self.titles: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if str(values.get("class", "")).startswith("patch") and tag == "span":
            self.patches.append("")
        if "title" in values:
            self.titles.append(values["title"])
        assert not {"src", "href", "onload", "onclick"} & values.keys(), "the page needs nothing else"

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.patches and "span" in self.open:
            self.patches[-1] += data


def figures_of(view: PatchView, shape: str) -> list[list[float]]:
    (points,) = re.findall(rf'<{shape} class="[a-z]+" points="([^"]*)"', html_page(view, title="t"))
    return [[float(number) for number in point.split(",")] for point in points.split()]


def test_the_page_holds_every_patch_and_a_tooltip_for_every_character(tiny_lm):
    view = view_patches(tiny_lm, 'Tom ate 3 <crêpes> & "more".\n\xff'.encode("latin-1"))
    page = Page(html_page(view, title="a <b> & c"))
    assert len(page.patches) == len(view.patches)
    shown = "".join(page.patches)
    assert '<cr⟨ea⟩pes> & "more"' in shown
    assert "⏎" in shown
    assert "⟨ff⟩" in shown
    assert len(page.titles) == view.num_bytes
    assert page.titles[0] == f"byte 54, then {view.entropies[0]:.2f} nats"


def test_the_page_needs_no_script_and_nothing_from_elsewhere(tiny_lm):
    page = html_page(view_patches(tiny_lm, b"<script>alert(1)</script> http://x.y"), title="<script>")
    assert not {"script", "link", "img", "iframe"} & Page(page).tags
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_a_character_of_several_bytes_has_one_tooltip_with_all_their_entropies(tiny_lm):
    tiny_lm.patch_rule = EntropyRiseRule(threshold=99.0)
    view = view_patches(tiny_lm, "é")
    first, second = view.entropies
    assert Page(html_page(view, title="t")).titles == [f"bytes c3 a9, then {first:.2f}, {second:.2f} nats"]


def test_the_curve_has_a_point_for_every_byte_and_the_threshold_at_its_height(tiny_lm):
    view = view_patches(tiny_lm, b"Tom had a red ball.")
    points = figures_of(view, "polyline")
    assert len(points) == view.num_bytes
    (height,) = re.findall(r'class="threshold" x1="[\d.]+" y1="([\d.]+)"', html_page(view, title="t"))
    for (_, y), entropy in zip(points, view.entropies, strict=True):
        assert (y < float(height)) == (entropy > view.threshold) or abs(entropy - view.threshold) < 0.01


def test_a_long_text_has_a_short_curve_that_keeps_its_peaks(tiny_lm):
    view = view_patches(tiny_lm, bytes(range(256)) * 6)
    points = figures_of(view, "polyline")
    assert len(points) <= MAX_POINTS
    assert min(y for _, y in points) == 6.0, "the highest entropy reaches the top"
    assert all(0 <= x <= 960 and 0 <= y <= 130 for x, y in points)


@pytest.mark.parametrize("rule", [SpaceRule(), EntropyRiseRule(threshold=0.1)])
def test_a_threshold_is_drawn_only_where_entropies_are_compared_with_it(tiny_lm, rule):
    tiny_lm.patch_rule = rule
    page = html_page(view_patches(tiny_lm, b"a bc"), title="t")
    assert 'class="curve"' in page
    assert 'class="threshold"' not in page


def test_without_an_entropy_model_there_is_no_curve_and_no_bar(tiny_lm):
    lm = ByteLM(tiny_lm.blt, patch_rule=SpaceRule())
    page = html_page(view_patches(lm, b"a bc"), title="t")
    assert "svg" not in Page(page).tags
    assert "--h:" not in page
