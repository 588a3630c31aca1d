import pytest

from blt.api import ByteLM
from blt.inspection import view_patches
from blt.inspection.text_plot import MAX_POINTS, draw_texts
from blt.patching import EntropyRiseRule, SpaceRule


def test_lengths_are_shares_of_all_patches(tiny_lm):
    tiny_lm.patch_rule = SpaceRule()
    axes = draw_texts({"t": view_patches(tiny_lm, "a bc d efg hi ")}).axes[0]
    (stairs,) = axes.patches
    values, edges, _ = stairs.get_data()
    assert list(values) == [0, pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.2)]
    assert list(edges) == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert "5 patches, mean 2.80" in axes.get_legend().get_texts()[0].get_text()


def test_one_text_has_a_curve_that_keeps_its_peaks_and_the_threshold(tiny_lm):
    view = view_patches(tiny_lm, bytes(range(256)) * 6)
    _, entropies, curve = draw_texts({"t": view}).axes
    line, threshold = curve.lines
    assert len(line.get_xdata()) <= MAX_POINTS
    assert max(line.get_ydata()) == max(view.entropies)
    assert list(threshold.get_ydata()) == [view.threshold, view.threshold]
    values, _, _ = entropies.patches[0].get_data()
    assert sum(values) == pytest.approx(1.0)
    assert entropies.lines


def test_several_texts_share_both_distributions_and_have_no_curve(tiny_lm):
    figure = draw_texts({name: view_patches(tiny_lm, text) for name, text in (("a", "Tom ate"), ("b", "x" * 50))})
    assert len(figure.axes) == 2
    assert [len(axes.patches) for axes in figure.axes] == [2, 2]


def test_a_threshold_is_drawn_only_where_entropies_are_compared_with_it(tiny_lm):
    tiny_lm.patch_rule = EntropyRiseRule(threshold=0.1)
    _, entropies, curve = draw_texts({"t": view_patches(tiny_lm, "Tom ate")}).axes
    assert not entropies.lines
    assert len(curve.lines) == 1


def test_without_an_entropy_model_there_are_lengths_only(tiny_lm):
    lm = ByteLM(tiny_lm.blt, patch_rule=SpaceRule())
    assert len(draw_texts({"t": view_patches(lm, "a bc")}).axes) == 1
