import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blt.api import ByteLM
from blt.errors import ConfigurationError, DataError
from blt.inspection import PatchView, glyphs, print_patches, view_patches
from blt.inspection.patch_view import COOL, HOT, WARM, colour_of, describe_rule
from blt.lm import ShownPatch
from blt.patching import ByteRule, EntropyRiseRule, EntropyRule, SpaceRule, StaticRule


def view_of(*pieces: bytes, entropy: float = 1.0, is_open: bool = False) -> PatchView:
    patches = [
        ShownPatch(data=piece, entropies=(entropy,) * len(piece), is_complete=not is_open or index < len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]
    return PatchView(
        tuple(patches), start_entropy=2.0, rule={"type": "entropy", "threshold": 1.5}, num_bytes_left_out=0
    )


def printed(view: PatchView, *, colours: bool = False, width: int = 80, **options) -> str:
    target = io.StringIO()
    system = "truecolor" if colours else None
    console = Console(file=target, force_terminal=colours, color_system=system, width=width, no_color=False)
    print_patches(view, console, **options)
    return target.getvalue()


def shown(data: bytes) -> list[str]:
    return [glyph.text for glyph in glyphs(ShownPatch(data=data, entropies=(), is_complete=True))]


@given(st.binary(max_size=30))
def test_glyphs_hold_every_byte_once_and_none_is_invisible(data):
    patch = ShownPatch(data=data, entropies=tuple(float(index) for index in range(len(data))), is_complete=True)
    cut = list(glyphs(patch))
    assert b"".join(glyph.data for glyph in cut) == data
    assert [value for glyph in cut for value in glyph.entropies] == list(patch.entropies)
    assert all(glyph.text.isprintable() for glyph in cut)


@given(st.text(max_size=20))
def test_characters_within_a_patch_are_never_broken(text):
    data = text.encode("utf-8", "replace")
    cut = list(glyphs(ShownPatch(data=data, entropies=(), is_complete=True)))
    assert [glyph.data.decode() for glyph in cut] == list(data.decode())


def test_what_does_not_print_is_shown_readably():
    assert shown("aé魚\n\t ".encode()) == ["a", "é", "魚", "⏎", "⇥", " "]
    assert shown(b"\xe2\x82") == ["⟨e2⟩", "⟨82⟩"]
    assert shown(b"\xc3a\xff") == ["⟨c3⟩", "a", "⟨ff⟩"]
    assert shown(b"\x1b[31m") == ["⟨1b⟩", "[", "3", "1", "m"]
    assert shown("\u202e".encode()) == ["⟨U+202E⟩"], "a text must not turn the terminal's direction"


@pytest.mark.parametrize(
    "rule", [EntropyRule(threshold=5.15), EntropyRiseRule(threshold=0.0), SpaceRule(), StaticRule(length=3), ByteRule()]
)
def test_a_view_holds_the_text_and_its_figures_by_any_rule(tiny_lm, rule):
    tiny_lm.patch_rule = rule
    text = "Tom ate 3 crêpes.\nOh!"
    view = view_patches(tiny_lm, text)
    assert b"".join(patch.data for patch in view.patches) == text.encode()
    assert view.num_bytes == len(view.entropies) == len(text.encode())
    assert view.mean_patch_bytes == view.num_bytes / len(view.patches)
    assert view.threshold == getattr(rule, "threshold", None)
    assert view.start_entropy == pytest.approx(tiny_lm.patch(text)[0].entropies[0])
    assert json.loads(json.dumps(view.to_dict()))["num_patches"] == len(view.patches)


def test_a_view_needs_no_entropy_model_for_a_rule_that_needs_none(tiny_lm):
    lm = ByteLM(tiny_lm.blt, patch_rule=SpaceRule())
    view = view_patches(lm, b"a b")
    assert view.entropies == []
    assert view.start_entropy is None
    assert "entropy" not in view.figures()
    assert "nats" not in printed(view, colours=True)
    lm.patch_rule = EntropyRule(threshold=1.0)
    with pytest.raises(ConfigurationError, match="needs entropies"):
        view_patches(lm, b"a b")


def test_only_as_many_bytes_are_read_as_asked(tiny_lm):
    view = view_patches(tiny_lm, b"x" * 50, limit=20)
    assert (view.num_bytes, view.num_bytes_left_out) == (20, 30)
    assert view.figures()["left out"] == "the last 30 bytes"


def test_an_empty_text_is_refused(tiny_lm):
    with pytest.raises(DataError, match="the text is empty"):
        view_patches(tiny_lm, "")


def test_without_colours_a_bar_stands_between_patches():
    assert printed(view_of(b"Tom ", b"had\n", b"\xc3")).splitlines()[:2] == ["Tom │had⏎", "│⟨c3⟩"]
    assert printed(view_of(b"a b"), show_spaces=True).startswith("a·b\n")
    assert "\x1b" not in printed(view_of(b"\x1b[31m", b"x"))


def test_without_colours_lines_are_not_cut_at_the_width_of_a_terminal():
    assert printed(view_of(b"x" * 300), width=20).startswith("x" * 300 + "\n")


def test_with_colours_patches_differ_in_background_and_show_a_legend():
    text = printed(view_of(b"ab", b"c", b"d"), colours=True, width=200)
    even, odd = "48;2;27;38;54", "48;2;58;47;77"
    assert text.index(even) < text.index(odd)
    assert "│" not in text
    assert "uncertain about the next byte" in text
    assert "threshold 1.5" in text


def test_a_warmer_character_is_one_with_more_uncertainty_after_it():
    assert colour_of(0.0) == COOL
    assert colour_of(0.5) == WARM
    assert colour_of(1.0) == colour_of(4.5) == HOT


def test_surprise_colours_each_byte_by_what_it_costs_itself():
    view = PatchView(
        view_of(b"ab", b"c").patches,
        start_entropy=2.0,
        rule={"type": "byte"},
        num_bytes_left_out=0,
        surprise=(0.0, 4.0, 8.0),
    )
    shown = printed(view, colours=True, width=200)
    for character, colour in zip("abc", (COOL, WARM, HOT), strict=True):
        assert f"38;2;{';'.join(map(str, colour))};" in shown[: shown.index(f"m{character}\x1b")].rsplit("\x1b[", 1)[1]
    assert "surprise at the byte:" in shown
    assert "8.0" in shown
    assert " bits" in shown
    assert "surprise: mean 4.00 bits per byte" in shown
    assert json.loads(json.dumps(view.to_dict()))["patches"][1]["surprise"] == [8.0]


def test_a_view_measures_surprise_where_asked(tiny_lm):
    assert view_patches(tiny_lm, "Tom ate").surprise == ()
    view = view_patches(tiny_lm, "Tom ate", with_surprise=True)
    assert view.surprise == pytest.approx(tiny_lm.score("Tom ate").bits_by_byte[:-1].tolist(), abs=1e-4)
    assert "surprise" not in view_patches(tiny_lm, "Tom ate").to_dict()["patches"][0]


@pytest.mark.parametrize("variable", ["NO_COLOR", "none"])
def test_no_color_in_the_environment_is_respected(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    target = io.StringIO()
    print_patches(view_of(b"ab", b"c"), Console(file=target, force_terminal=True))
    assert ("38;" in target.getvalue()) == (variable == "none")
    assert ("│" in target.getvalue()) == (variable == "NO_COLOR")


def test_rules_are_named_with_their_settings():
    assert describe_rule({"type": "space"}) == "space"
    assert describe_rule({"type": "entropy", "max_length": 8, "threshold": 1.23456}) == (
        "entropy (max length 8, threshold 1.235)"
    )
