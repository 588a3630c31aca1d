import json
import sys

import datasets
import pytest

from blt.data import PrepareConfig, Shards, prepare, read_dataset
from blt.errors import DataError, MissingExtraError

STORIES = [f"story {number} ž" for number in range(2500)]


@pytest.fixture(autouse=True)
def _offline_with_a_cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture
def data_files(tmp_path):
    """A data set as people upload it: a folder of JSONL files named by split."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for split, stories in {"train": STORIES, "test": STORIES[:3]}.items():
        lines = [json.dumps({"id": number, "text": story}) for number, story in enumerate(stories)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def saved(tmp_path):
    """What `save_to_disk` writes for one split."""
    folder = str(tmp_path / "saved")
    datasets.Dataset.from_dict({"text": ["one", "", "two"], "id": [1, 2, 3], "hole": ["x", None, "y"]}).save_to_disk(
        folder
    )
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_is_read_from_its_split(data_files, streaming):
    assert list(read_dataset(data_files, streaming=streaming)) == [story.encode() for story in STORIES]
    assert list(read_dataset(data_files, split="test", streaming=streaming)) == [s.encode() for s in STORIES[:3]]


def test_a_data_set_saved_to_disk_is_read_with_and_without_splits(saved, tmp_path):
    assert list(read_dataset(saved)) == [b"one", b"two"]
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["in a split"]})})
    splits.save_to_disk(str(tmp_path / "splits"))
    assert list(read_dataset(str(tmp_path / "splits"))) == [b"in a split"]
    with pytest.raises(DataError, match=r"split 'dev': cannot be loaded \(KeyError: 'dev'\)"):
        list(read_dataset(str(tmp_path / "splits"), split="dev"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_field": "story"}, "has no column 'story', only text, id, hole; choose with --text-field"),
        ({"text_field": "id"}, "row 1 has a int in column 'id', not a string"),
        ({"text_field": "hole"}, "row 2 has a null in column 'hole', not a string"),
    ],
)
def test_a_column_that_holds_no_text_is_refused(saved, options, message):
    with pytest.raises(DataError, match=message):
        list(read_dataset(saved, **options))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_or_split_that_is_not_there_is_refused_in_one_line(data_files, tmp_path, streaming):
    for name, split in ((data_files, "dev"), (str(tmp_path / "nothing"), "train"), ("nobody/nothing", "train")):
        with pytest.raises(DataError, match="cannot be loaded") as caught:
            list(read_dataset(name, split=split, streaming=streaming))
        assert "\n" not in str(caught.value)


def test_an_empty_data_set_is_refused(tmp_path):
    datasets.Dataset.from_dict({"text": ["", ""]}).save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="has no documents"):
        list(read_dataset(str(tmp_path / "empty")))


def test_a_data_set_is_prepared_after_the_files_and_known_again(data_files, tmp_path):
    (tmp_path / "first.txt").write_bytes(b"first of all")
    config = PrepareConfig(
        inputs=(str(tmp_path / "first.txt"),),
        dataset=data_files,
        split="test",
        out=str(tmp_path / "out"),
        validation=0.0,
    )
    assert not prepare(config).was_already_prepared
    assert prepare(config).was_already_prepared
    shards = Shards.open(tmp_path / "out")
    documents = [shards.document(number).tobytes().decode() for number in range(shards.num_documents)]
    assert documents == ["first of all", *STORIES[:3]]
    names = [source["name"] for source in json.loads((tmp_path / "out" / "index.json").read_text())["sources"]]
    assert names == ["first.txt", "stories/test"]


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'datasets': pip install 'blt-llm\[data\]'"):
        list(read_dataset("any"))
