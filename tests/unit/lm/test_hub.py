"""The Hub, with the real `huggingface_hub` talking to a stand-in: down, cached, offline, up, and what is refused."""

import json
import warnings

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from blt.api import ByteLM
from blt.cli import main
from blt.codec import encode
from blt.errors import ConfigurationError, ModelFolderError
from blt.lm import CardFigure, LMConfig
from blt.lm.card import write_card
from blt.model.presets import PRESETS
from blt.patching import ByteRule, SpaceRule, StaticRule
from hub_stand_in import TOKEN, Hub, set_endpoint, the_only_hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own uploads
IDS = encode("Zoë ate 3 crêpes.", bos=True)[None]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with the_only_hub(monkeypatch, tmp_path) as stand_in:
        yield stand_in


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def refusal(act, *arguments, **options):
    with pytest.raises(ModelFolderError) as error:
        act(*arguments, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def load(name="you/tiny", **options):
    return ByteLM.from_pretrained(name, **options)


def test_a_model_is_downloaded_once_and_is_the_same(hub, tiny_lm, tiny_folder):
    hub.add("you/tiny", tiny_folder)
    assert torch.equal(load()(IDS), tiny_lm(IDS))
    downloads = hub.asked("GET /large/*")
    assert downloads == 2
    assert torch.equal(load()(IDS), tiny_lm(IDS))
    assert hub.asked("GET /large/*") == downloads


def test_shards_are_downloaded_as_one_model_is(hub, tiny_lm, tmp_path):
    tiny_lm.save_pretrained(tmp_path / "shards", max_shard_bytes=20_000)
    hub.add("you/tiny", tmp_path / "shards")
    assert torch.equal(load()(IDS), tiny_lm(IDS))


def test_what_is_cached_is_loaded_offline(hub, tiny_lm, tiny_folder, monkeypatch):
    hub.add("you/tiny", tiny_folder)
    assert "not whole in the cache (offline by choice)" in refusal(load, local_files_only=True)
    load()
    count = len(hub.requests)
    assert torch.equal(load(local_files_only=True)(IDS), tiny_lm(IDS))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(load()(IDS), tiny_lm(IDS))
    assert "not whole in the cache (offline by choice); go online once" in refusal(load, "you/other")
    assert len(hub.requests) == count


def test_what_is_cached_is_loaded_when_the_hub_does_not_answer(hub, tiny_lm, tiny_folder, monkeypatch):
    hub.add("you/tiny", tiny_folder)
    load()
    closed = Hub()
    closed.stop()
    set_endpoint(monkeypatch, closed.url)
    assert torch.equal(load()(IDS), tiny_lm(IDS))
    assert "not whole in the cache (no answer: ConnectError)" in refusal(load, "you/other")


def test_a_cache_of_ones_own_is_used(hub, tiny_folder, tmp_path):
    hub.add("you/tiny", tiny_folder)
    load(cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").glob("models--you--tiny/snapshots/*/model.safetensors"))
    load(cache_dir=tmp_path / "mine", local_files_only=True)
    assert "not whole in the cache" in refusal(load, local_files_only=True)


def test_a_revision_is_a_branch_or_a_commit(hub, tiny_lm, tiny_folder, tmp_path):
    repository = hub.add("you/tiny", tiny_folder)
    first = repository.branches["main"]
    torch.manual_seed(7)
    other = ByteLM.new(tiny_lm.config).eval()
    other.save_pretrained(tmp_path / "other")
    files = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    repository.commit("next", files, "second")
    assert torch.equal(load()(IDS), tiny_lm(IDS))
    assert torch.equal(load(revision="next")(IDS), other(IDS))
    assert torch.equal(load(revision=first)(IDS), tiny_lm(IDS))
    assert torch.equal(load(revision="next", local_files_only=True)(IDS), other(IDS))
    assert "no revision 'v9' there" in refusal(load, revision="v9")


def test_a_new_commit_is_noticed(hub, tiny_lm, tiny_folder, tmp_path):
    repository = hub.add("you/tiny", tiny_folder)
    load()
    torch.manual_seed(7)
    other = ByteLM.new(tiny_lm.config).eval()
    other.save_pretrained(tmp_path / "other")
    files = {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    repository.commit("main", files, "second")
    assert torch.equal(load(local_files_only=True)(IDS), tiny_lm(IDS))
    assert torch.equal(load()(IDS), other(IDS))


def test_a_model_that_is_not_there_is_one_line(hub):
    assert "you/none: no such folder, and not to be had from the Hub: no such model there, or a private one" in refusal(
        load, "you/none"
    )
    assert "not to be had from the Hub" in refusal(load, "you/n n")


def test_private_and_gated_models_want_a_token(hub, tiny_lm, tiny_folder):
    hub.add("you/tiny", tiny_folder, private=True)
    hub.add("you/gated", tiny_folder, gated=True)
    assert "or a private one; for your own, log in with `hf auth login`, set HF_TOKEN, or pass token" in refusal(load)
    assert "it is gated; ask for access on its page" in refusal(load, "you/gated")
    assert "not to be had" in refusal(load, token="hf_wrong")
    assert torch.equal(load(token=TOKEN)(IDS), tiny_lm(IDS))
    assert torch.equal(load("you/gated", token=TOKEN)(IDS), tiny_lm(IDS))
    load("you/gated", local_files_only=True)


def test_pickles_are_not_even_downloaded(hub, tmp_path):
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "config.json").write_text("{}")
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01." * 4000)
    hub.add("you/pickles", tmp_path / "pickles")
    assert "has no .safetensors file on the Hub; pickled weights (.bin, .pt) are never loaded" in refusal(
        load, "you/pickles"
    )
    assert hub.asked("*pytorch_model.bin") == 0


def test_a_mirror_can_be_named(hub, tiny_folder, monkeypatch):
    hub.add("you/tiny", tiny_folder)
    set_endpoint(monkeypatch, "http://127.0.0.1:9")
    load(endpoint=hub.url)


def test_the_command_line_takes_a_name_on_the_hub(hub, tiny_folder, capsys):
    hub.add("you/tiny", tiny_folder)
    for name, status in (("you/tiny", 0), ("you/none", 2)):
        with pytest.raises(SystemExit) as stop:
            main(["patch", "Tom had a red ball.", "--model", name])
        assert stop.value.code == status
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("blt: you/none: no such folder, and not to be had from the Hub")


@pytest.mark.usefixtures("logged_in")
def test_a_model_that_is_uploaded_comes_back(hub, tiny_lm):
    address = tiny_lm.push_to_hub("me/tiny", commit_message="My tiny model")
    repository = hub.repositories["me/tiny"]
    assert address == f"{hub.url}/me/tiny/commit/{repository.branches['main']}"
    assert repository.messages == ["initial commit", "My tiny model"]
    files = repository.commits[repository.branches["main"]]
    assert set(files) == {".gitattributes", "README.md", "config.json", "entropy.safetensors", "model.safetensors"}
    assert hub.asked("PUT /large/*") == hub.asked("POST /verify/*") == 2
    assert not repository.private
    back = load("me/tiny")
    assert torch.equal(back(IDS), tiny_lm(IDS))
    assert back.card == files["README.md"].decode()


@pytest.mark.usefixtures("logged_in")
def test_an_upload_leaves_no_weights_of_an_earlier_one_and_nothing_else_is_touched(hub, tiny_lm):
    tiny_lm.push_to_hub("me/tiny", private=True, max_shard_bytes=20_000)
    repository = hub.repositories["me/tiny"]
    assert repository.private
    shards = repository.commits[repository.branches["main"]]
    assert "model.safetensors.index.json" in shards
    assert "model.safetensors" not in shards
    repository.commit("main", shards | {"notes.txt": b"mine", "more/x.safetensors": b"mine too"}, "notes")
    torch.manual_seed(7)
    other = ByteLM.new(tiny_lm.config).eval()
    other.push_to_hub("me/tiny", dtype="bfloat16")
    files = repository.commits[repository.branches["main"]]
    assert not any("-of-" in path or path.endswith("index.json") for path in files)
    assert files["notes.txt"] == b"mine"
    assert "more/x.safetensors" in files
    assert torch.equal(load("me/tiny")(IDS), other.to(torch.bfloat16).float()(IDS))


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize(
    "theirs",
    [
        {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"theirs"},
        {"config.json": b"[" * 100_000, "pytorch_model.bin": b"theirs"},
        {"README.md": b"# Written by hand"},
    ],
    ids=["another model", "no JSON", "a card alone"],
)
def test_an_upload_replaces_only_a_model_of_ours_unless_it_is_asked_to(hub, tiny_lm, tmp_path, theirs):
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    repository = hub.add("me/theirs", tmp_path)
    before = dict(repository.branches)
    said = refusal(tiny_lm.push_to_hub, "me/theirs")
    assert said.startswith(f"me/theirs: holds {', '.join(sorted(theirs))} on the Hub")
    assert "replace=True" in said
    assert repository.branches == before
    tiny_lm.push_to_hub("me/theirs", replace=True)
    assert torch.equal(load("me/theirs")(IDS), tiny_lm(IDS))


@pytest.mark.usefixtures("logged_in")
def test_an_upload_may_go_to_a_branch(hub, tiny_lm):
    tiny_lm.push_to_hub("me/tiny", revision="trial")
    tiny_lm.push_to_hub("me/tiny", revision="trial")
    assert "no .safetensors file" in refusal(load, "me/tiny")
    assert torch.equal(load("me/tiny", revision="trial")(IDS), tiny_lm(IDS))


@pytest.mark.usefixtures("logged_in")
def test_a_name_without_an_owner_is_a_model_of_ones_own(hub, tiny_lm):
    assert "/me/tiny/commit/" in tiny_lm.push_to_hub("tiny")


def test_an_upload_without_the_right_to_it_is_one_line(hub, tiny_lm, monkeypatch):
    for name in ("me/tiny", "you/tiny"):
        assert "not uploaded: " in refusal(tiny_lm.push_to_hub, name)
    assert "not allowed (403); log in" in refusal(tiny_lm.push_to_hub, "you/tiny", token=TOKEN)
    assert hub.repositories == {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refusal(tiny_lm.push_to_hub, "me/tiny", token=TOKEN)


def front_matter(card):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return huggingface_hub.ModelCard(card, ignore_metadata_errors=False).data.to_dict()


@pytest.mark.usefixtures("logged_in")
def test_a_card_is_written_of_what_is_known_and_nothing_else(hub, tiny_lm):
    tiny_lm.push_to_hub("me/tiny")
    card = load("me/tiny").card
    assert front_matter(card) == {
        "license": "unknown",
        "library_name": "blt",
        "pipeline_tag": "text-generation",
        "tags": ["byte-latent-transformer", "tokenizer-free", "byte-level"],
    }
    assert 'ByteLM.from_pretrained("me/tiny")' in card
    assert "| local encoder | 1 × 16, 2 heads, window of 8 bytes |" in card
    assert "| patch rule | `entropy`, threshold = 5.11 |" in card
    assert "bits per byte" not in card
    count = sum(weight.numel() for weight in tiny_lm.blt.parameters())
    assert f"of {count / 1e6:.1f}M parameters" in card


@pytest.mark.usefixtures("logged_in")
def test_a_card_says_what_it_is_told_to(hub, tiny_lm):
    figure = CardFigure(text="stories", protocol="documents", bits_per_byte=1.23456)
    tiny_lm.push_to_hub("me/tiny", license="apache-2.0", figures=[figure])
    lm = load("me/tiny")
    assert front_matter(lm.card)["license"] == "apache-2.0"
    assert "| stories | documents | 1.2346 |" in lm.card
    lm.push_to_hub("me/again")
    assert load("me/again").card == lm.card
    with pytest.raises(ConfigurationError, match="a card of its own"):
        lm.push_to_hub("me/again", license="mit")


def test_a_licence_cannot_break_out_of_the_front_matter(hub, tiny_lm):
    with pytest.raises(ConfigurationError, match="give the Hub's abbreviation"):
        tiny_lm.push_to_hub("me/tiny", license="mit\ntags: [x]")


def test_the_python_of_a_card_runs(hub, tiny_lm, capsys):
    tiny_lm.push_to_hub("me/tiny", token=TOKEN)
    card = hub.repositories["me/tiny"].commits[hub.repositories["me/tiny"].branches["main"]]["README.md"].decode()
    code = card.split("```python\n")[1].split("```")[0].replace("max_new_bytes=300", "max_new_bytes=5")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Once upon a time")


def test_every_shape_has_a_card():
    rules = {
        "byte": ByteRule(),
        "space, max_length = 9": SpaceRule(max_length=9),
        "static, length = 6": StaticRule(length=6),
    }
    for shape in PRESETS.values():
        for said, rule in rules.items():
            card = write_card(
                LMConfig(blt=shape, patch_rule=rule), name="me/x", num_parameters=7, num_entropy_parameters=0
            )
            name, *values = said.split(", ")
            assert f"| patch rule | `{name}`{''.join(f', {value}' for value in values)} |" in card
            assert json.dumps(front_matter(card))
            assert "entropy model" not in card
