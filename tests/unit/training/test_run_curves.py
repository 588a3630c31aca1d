import json

import pytest

from blt.configuration import to_dict
from blt.errors import CheckpointError, ConfigurationError
from blt.model.cost import cost_of, cost_of_entropy_model
from blt.training.run_curves import draw_runs, label_of, read_curve, training_flops
from tiny_training import tiny_recipe

ROWS = [
    {"step": 1, "bytes": 100, "bits_per_byte": 8.0, "seconds": 36.0},
    {"step": 2, "bytes": 200, "bits_per_byte": 6.0, "seconds": 72.0},
    {"step": 2, "bytes": 200, "validation_bits_per_byte": 5.5},
    {"step": 3, "bytes": 300, "bits_per_byte": 5.0, "seconds": 108.0},
]


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe(tmp_path)


@pytest.fixture
def run(tmp_path, recipe):
    folder = tmp_path / "run"
    for stage in ("blt", "entropy"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    return folder


def test_a_curve_runs_along_bytes_or_time(run):
    along_bytes = read_curve(run, stage="blt", along="bytes")
    assert along_bytes.name == "run"
    assert along_bytes.training == ((0.0001, 8.0), (0.0002, 6.0), (0.0003, 5.0))
    assert along_bytes.held_out == ((0.0002, 5.5),)
    along_time = read_curve(run, stage="blt", along="time", name="mine")
    assert along_time.name == "mine"
    assert [place for place, _ in along_time.training] == pytest.approx([0.01, 0.02, 0.03])
    assert along_time.held_out == ((pytest.approx(0.02), 5.5),), "a validation belongs to the step before"


def test_flops_are_those_that_the_accounting_says_of_the_recipe(run, recipe):
    model, stage = recipe.blt.model, recipe.entropy
    expected = cost_of(model, mean_patch_bytes=3.0, context_bytes=48).training_flops
    assert training_flops(run, stage="blt") == expected
    assert training_flops(run, stage="blt", mean_patch_bytes=6.0) < expected
    of_entropy = 3 * cost_of_entropy_model(stage.model, context_bytes=48).flops
    assert training_flops(run, stage="entropy") == of_entropy
    curve = read_curve(run, stage="blt", along="flops")
    assert curve.training[1] == (pytest.approx(200 * expected), 6.0)


@pytest.mark.parametrize(
    ("patching", "expected"),
    [
        ({"rule": {"type": "static", "length": 5}}, 5.0),
        ({"rule": {"type": "static", "length": 5, "max_length": 2}}, 2.0),
        ({"rule": {"type": "byte"}}, 1.0),
        ({"rule": {"type": "space"}}, None),
        ({"rule": {"type": "entropy", "threshold": 1.0}, "mean_patch_bytes": None}, None),
    ],
)
def test_rules_without_a_wanted_mean_patch_have_their_own_or_ask_for_one(run, recipe, patching, expected):
    settings = to_dict(recipe)
    settings["patching"] = patching
    (run / "recipe.json").write_text(json.dumps(settings))
    if expected is None:
        with pytest.raises(ConfigurationError, match="--mean-patch"):
            training_flops(run, stage="blt")
        expected = 2.5
        found = training_flops(run, stage="blt", mean_patch_bytes=2.5)
    else:
        found = training_flops(run, stage="blt")
    assert found == cost_of(recipe.blt.model, mean_patch_bytes=expected, context_bytes=48).training_flops


@pytest.mark.parametrize("value", ['"x"', "NaN", "true", "null", "1e999"])
def test_a_figure_that_is_none_is_named_with_its_step(run, value):
    (run / "blt" / "metrics.jsonl").write_text(f'{{"step": 7, "bytes": 1, "bits_per_byte": {value}}}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: step 7: bits_per_byte is"):
        read_curve(run, stage="blt", along="bytes")


def test_what_is_no_run_or_has_no_figures_is_refused(run, tmp_path):
    with pytest.raises(ConfigurationError, match="holds no metrics of a stage 'blt'; give the run folder"):
        read_curve(tmp_path, stage="blt", along="bytes")
    (run / "blt" / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="holds no figures yet"):
        read_curve(run, stage="blt", along="bytes")
    (run / "recipe.json").write_text('{"out": 3}')
    with pytest.raises(CheckpointError, match=r"recipe.json: "):
        training_flops(run, stage="blt")
    (run / "recipe.json").unlink()
    with pytest.raises(ConfigurationError, match="no such file, and FLOPs follow from the recipe"):
        training_flops(run, stage="blt")


def test_a_picture_has_a_line_and_points_for_each_run_and_leaves_out_the_first_steps(run):
    curves = [read_curve(run, stage="blt", along="bytes", name=name) for name in ("a", "_b $x")]
    axes = draw_runs(curves, along="bytes").axes[0]
    assert [list(map(tuple, line.get_xydata())) for line in axes.lines] == [
        list(curve) for each in curves for curve in (each.training, each.held_out)
    ]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["a, held-out 5.500 at the end", r" _b \$x, held-out 5.500 at the end"]
    assert axes.get_ylim()[1] > 8
    steep = [read_curve(run, stage="blt", along="bytes")]
    object.__setattr__(steep[0], "training", ((0.0, 30.0), (1.0, 2.0)))
    assert draw_runs(steep, along="bytes").axes[0].get_ylim() == pytest.approx((1.9, 4.0))


def test_labels_are_shown_as_they_are():
    assert label_of("_hidden") == " _hidden"
    assert label_of("a$b$") == r"a\$b\$"
    assert label_of("\udcff") == "?"
