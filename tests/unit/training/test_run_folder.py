import json

import pytest
import torch

from blt.data import PrepareConfig, Shards, Windows, prepare
from blt.data.order import KEYED, TABLE
from blt.distributed import World
from blt.errors import CheckpointError, ConfigurationError, DataError
from blt.training import load_recipe
from blt.training.run_folder import locked, open_run
from tiny_training import made_up_documents, tiny_recipe, write_recipe


def claim(recipe, *, world=None):
    with open_run(recipe, device=torch.device("cpu"), world=world or World(), asked_to_stop=lambda: False) as run:
        return run


def begin(recipe, *stages):
    """Pretend that stages have saved a checkpoint."""
    run = claim(recipe)
    for stage in stages:
        folder = run.folder / stage / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.json").write_text("{}")


def test_a_run_folder_belongs_to_one_recipe(tmp_path):
    path = write_recipe(tmp_path)
    begin(load_recipe(path), "entropy", "blt")
    for key, value in (("blt.loop.batch_size", "8"), ("entropy.model.dim", "32"), ("patching.mean_patch_bytes", "4")):
        with pytest.raises(ConfigurationError, match=rf"run: holds a run with {key} = .*; choose another --out"):
            claim(load_recipe(path, overrides={key: value}))
    with pytest.raises(ConfigurationError, match="holds a run with seed = 0, this recipe says 1"):
        claim(load_recipe(path, overrides={"seed": "1"}))


def test_how_long_and_how_a_run_is_computed_may_change(tmp_path):
    path = write_recipe(tmp_path)
    begin(load_recipe(path), "entropy", "blt")
    overrides = {"blt.loop.num_steps": "99", "blt.loop.accumulation": "2", "blt.loop.validate_every": "7"}
    assert claim(load_recipe(path, overrides=overrides)).recipe.blt.loop.num_steps == 99


def test_a_stage_that_has_saved_nothing_may_still_change(tmp_path):
    path = write_recipe(tmp_path)
    begin(load_recipe(path), "entropy")
    claim(load_recipe(path, overrides={"blt.loop.batch_size": "8", "patching.mean_patch_bytes": "4"}))
    with pytest.raises(ConfigurationError, match=r"entropy\.loop\.batch_size = 4"):
        claim(load_recipe(path, overrides={"entropy.loop.batch_size": "8"}))


def test_a_field_that_blt_has_got_since_does_not_estrange_a_run(tmp_path):
    recipe = tiny_recipe(tmp_path)
    begin(recipe, "entropy", "blt")
    path = tmp_path / "run" / "recipe.json"
    values = json.loads(path.read_text())
    del values["blt"]["model"]["rope_theta"]
    path.write_text(json.dumps(values))
    claim(recipe)


def test_data_that_have_changed_are_refused(tmp_path):
    recipe = tiny_recipe(tmp_path)
    begin(recipe)
    other = tmp_path / "other.txt"
    other.write_text("\n<|endoftext|>\n".join(made_up_documents(seed=1)))
    prepare(PrepareConfig(inputs=(str(other),), out=str(tmp_path / "data"), validation=0.2, overwrite=True))
    with pytest.raises(DataError, match="the train documents are not those that this run began with"):
        claim(recipe)


def test_what_a_kill_left_half_written_is_deleted_and_unfinished_entropies_are_not(tmp_path):
    recipe = tiny_recipe(tmp_path)
    begin(recipe, "entropy", "blt")
    run = tmp_path / "run"
    left = [
        ".recipe.json.99999.unfinished",
        "blt/.curves.png.unfinished.png",
        "entropy/checkpoints/.last.json.7.unfinished",
    ]
    for name in left:
        (run / name).write_text("half")
    entropies = run / "entropies" / "train" / ".entropies-f.f32.unfinished"
    entropies.parent.mkdir(parents=True)
    entropies.write_text("half")
    claim(recipe)
    assert not any((run / name).exists() for name in left)
    assert entropies.exists()


def test_a_second_process_is_kept_out(tmp_path):
    with (
        locked(tmp_path, is_needed=True),
        pytest.raises(ConfigurationError, match="another process is training here"),
        locked(tmp_path, is_needed=True),
    ):
        pass
    with locked(tmp_path, is_needed=True):
        pass


def test_rows_must_divide_by_ranks_and_parts(tmp_path):
    recipe = tiny_recipe(tmp_path, {"blt.loop.accumulation": "2", "entropy.loop.batch_size": "3"})
    with pytest.raises(ConfigurationError, match=r"blt\.loop\.batch_size: 4 is no multiple of 3 ranks × 2 parts"):
        claim(recipe, world=World(size=3))
    assert not (tmp_path / "run").exists()


def test_no_held_out_documents_is_said_with_the_way_out(tmp_path):
    recipe = tiny_recipe(tmp_path, validation=0.0)
    with pytest.raises(DataError, match=r"'validation'.*or set data.validation to a folder of held-out documents"):
        claim(recipe)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_held_out_documents_stands_in_for_the_split(tmp_path):
    (tmp_path / "held-out").mkdir()
    write_recipe(tmp_path / "held-out", documents=made_up_documents(7, seed=3), validation=0.0)
    recipe = tiny_recipe(tmp_path, {"data.validation": str(tmp_path / "held-out" / "data")}, validation=0.0)
    assert claim(recipe).held_out.num_documents == 7


def test_missing_data_leave_no_run_folder(tmp_path):
    recipe = tiny_recipe(tmp_path, {"data.train": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match="nowhere"):
        claim(recipe)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_with_former_names_goes_on_and_still_belongs_to_one_recipe(tmp_path):
    path = write_recipe(tmp_path)
    begin(load_recipe(path), "entropy", "blt")
    written = tmp_path / "run" / "recipe.json"
    values = json.loads(written.read_text())
    for stage in ("entropy", "blt"):
        loop = values[stage]["loop"]
        loop["rows"], loop["window"] = loop.pop("batch_size"), loop.pop("sequence_length")
    written.write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=r"holds a run with blt\.loop\.batch_size = 4, this recipe says 8"):
        claim(load_recipe(path, overrides={"blt.loop.batch_size": "8"}))
    claim(load_recipe(path))


@pytest.fixture
def opened(tmp_path):
    """Opens the run of a tiny recipe, again and again, with fields set anew."""
    write_recipe(tmp_path)

    def open_it(overrides=None):
        recipe = load_recipe(tmp_path / "recipe.toml", overrides=overrides)
        return open_run(recipe, device=torch.device("cpu"), world=World(), asked_to_stop=lambda: False)

    return open_it


def test_a_run_keeps_the_order_that_it_began_with_and_one_from_before_there_was_a_choice_reads_a_table(
    opened, tmp_path
):
    path = tmp_path / "run" / "data.json"
    for _ in range(2):
        with opened() as run:
            assert run.order == run.windows("blt")._rings[0]._order == KEYED
    checksums = json.loads(path.read_text())
    assert checksums.pop("order") == KEYED
    path.write_text(json.dumps(checksums))
    for _ in range(2):
        with opened() as run:
            windows = run.windows("blt")
            of_table = Windows(run.train, sequence_length=48, seed=0, order=TABLE)
            assert [windows.start_of(row) for row in range(40)] == [of_table.start_of(row) for row in range(40)]
    assert json.loads(path.read_text()) == checksums  # an older blt goes on with it too
    path.write_text(json.dumps(checksums | {"order": 3}))
    with pytest.raises(CheckpointError, match=r"data\.json: reads windows in order 3, this blt knows 1 and 2; go on"):
        opened().__enter__()


def test_a_mixture_needs_rows_for_all_its_steps_and_is_named_by_its_folders(opened, tmp_path):
    folder = str(tmp_path / "data")
    mixture = [{"folder": folder, "weight": 3.0, "epochs": 1.0}, {"folder": folder, "weight": 1.0, "epochs": 1.0}]
    fields = {"data.train": "none", "data.validation": folder, "data.sources": mixture}
    with opened(fields) as run:
        assert run.train.num_documents == 2 * Shards.open(folder).num_documents
        windows = run.windows("blt")
        assert [windows.source_of(row) for row in range(8)].count(0) == 6
        num_rows = windows.num_rows
    with opened(fields | {"blt.loop.num_steps": num_rows // 4}) as run:
        run.windows("blt")
    with (
        opened(fields | {"blt.loop.num_steps": num_rows // 4 + 1}) as run,
        pytest.raises(ConfigurationError, match=rf"blt\.loop\.num_steps: .* the sources have {num_rows:,} in their"),
    ):
        run.windows("blt")
    with pytest.raises(ConfigurationError, match=r"holds a run with data\.sources"):
        opened(fields | {"data.sources": mixture[::-1]}).__enter__()
