import fsspec
import pytest

from blt.cli import main
from blt.data.entropies import entropies_path
from blt.training import run_recipe
from stores import upload
from tiny_training import tiny_recipe

ADDRESS = "memory://test-run-folder/corpus"


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose documents lie in a store, and nowhere else."""
    recipe = tiny_recipe(tmp_path, {"data.train": ADDRESS, "blt.loop.num_steps": 3, "entropy.loop.num_steps": 2})
    upload(tmp_path / "data", ADDRESS)
    (tmp_path / "data").rename(tmp_path / "taken-away")
    yield recipe
    fsspec.filesystem("memory").rm("/test-run-folder", recursive=True)


def test_a_recipe_trains_on_a_folder_in_a_store_and_keeps_its_entropies_here(recipe, tmp_path):
    before = fsspec.filesystem("memory").find("/test-run-folder")
    assert (run_recipe(recipe) / "config.json").is_file()
    (stored,) = (tmp_path / "run" / "entropies" / "train").glob("entropies-*.f32")
    fingerprint = stored.stem.removeprefix("entropies-")
    assert stored == entropies_path(tmp_path / "run" / "entropies", split="train", fingerprint=fingerprint)
    assert fsspec.filesystem("memory").find("/test-run-folder") == before


def test_an_address_with_no_prepared_folder_is_one_line_at_the_command_line(tmp_path, capsys):
    tiny_recipe(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "recipe.toml"), "--data.train", "memory://nothing/here"])
    assert stop.value.code == 2
    assert "memory://nothing/here: has no index.json; expected a folder that `blt prepare`" in capsys.readouterr().err
