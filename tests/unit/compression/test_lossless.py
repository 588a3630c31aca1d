import dataclasses
import random
import re

import pytest
import torch

from blt.api import ByteLM
from blt.compression import Archive, compress, decompress
from blt.compression.coding import self_test
from blt.errors import ConfigurationError, DataError, ModelFolderError
from blt.lm import DecodingSession
from compress_everywhere import STORY, small_model
from tiny_config import TINY_CONFIG

STORIES = b"\n<|endoftext|>\n".join([STORY * 2] * 7)
ZOO = {
    "empty": b"",
    "one byte": b"\xff",
    "random": random.Random(0).randbytes(600),
    "sparse": b"\0" * 300 + b"\1" + b"\0" * 200,
    "UTF-16": "Ein Bär trank Öl.".encode("utf-16") * 8,
    "image": b"P6 16 16 255\n" + bytes(range(256)),
    "stories": STORIES,
    "separators alone": b"\n<|endoftext|>\n" * 30,
    "specials": b"<|endoftext|>\n<|endoftext|\n" * 9,
}


@pytest.fixture(scope="module")
def trained():
    """The weights of a tiny model that has read the stories some times."""
    return small_model().state_dict()


@pytest.fixture
def lm(trained):
    lm = ByteLM.new(TINY_CONFIG).eval()
    lm.load_state_dict(trained)
    return lm


@pytest.fixture
def without_native(monkeypatch):
    monkeypatch.setattr("blt.decoder.library.library", lambda **_: None)


def restored(lm, compressed):
    return decompress(lm, Archive.unpack(compressed))


@pytest.mark.parametrize("name", ZOO)
def test_what_is_compressed_is_restored_and_nothing_grows_much(lm, name):
    compressed = compress(lm, ZOO[name], learn=name in ("sparse", "stories", "UTF-16"))
    assert restored(lm, compressed) == ZOO[name]
    assert len(compressed) <= len(ZOO[name]) * 1.001 + 64


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_level_restores(lm, level):
    text = STORIES + b"x" * 700
    assert restored(lm, compress(lm, text, level=level)) == text


def test_learning_shrinks_what_repeats_itself(lm):
    text = random.Random(1).randbytes(400) * 6
    with_learning, without = compress(lm, text, learn=True), compress(lm, text)
    assert len(with_learning) < 0.5 * len(without)
    assert Archive.unpack(with_learning).model.learns


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_type_of_weights_restores(lm, dtype):
    lm.to_type(dtype)
    compressed = compress(lm, STORIES)
    assert Archive.unpack(compressed).model.dtype == dtype
    assert restored(lm, compressed) == STORIES


def test_int4_is_refused_since_its_rounding_is_not_reproducible(lm):
    with pytest.raises(ConfigurationError, match="load the model as float32, bfloat16, int8"):
        compress(lm.to_type("int4"), STORIES)


def test_any_number_of_threads_decodes(lm):
    compressed, before = compress(lm, STORIES), torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert restored(lm, compressed) == STORIES
            assert compress(lm, STORIES) == compressed
    finally:
        torch.set_num_threads(before)


def test_pytorch_restores_what_pytorch_compressed(lm, without_native, without_shape_checks):
    text = STORY * 3
    compressed = compress(lm, text)
    assert Archive.unpack(compressed).model.threads == torch.get_num_threads()
    assert restored(lm, compressed) == text


def test_pytorch_refuses_what_the_native_decoder_compressed(lm, monkeypatch):
    if not DecodingSession(lm, portable=True).is_native:
        pytest.skip("no compiler here")
    compressed = compress(lm, STORIES)
    monkeypatch.setattr("blt.decoder.library.library", lambda **_: None)
    with pytest.raises(ModelFolderError, match="compressed by the native decoder, and here PyTorch computes"):
        restored(lm, compressed)


def test_a_machine_with_other_figures_is_noticed_before_anything_is_decoded(lm, monkeypatch):
    compressed = compress(lm, STORIES)
    monkeypatch.setattr("blt.compression.lossless.self_test", lambda lm: self_test(lm) ^ 1)
    with pytest.raises(ModelFolderError, match="figures differ here"):
        restored(lm, compressed)


def test_the_self_test_depends_on_the_model(lm):
    torch.manual_seed(7)
    assert self_test(lm) != self_test(ByteLM.new(TINY_CONFIG).eval())


def test_another_model_is_refused(lm):
    compressed = compress(lm, STORIES)
    torch.manual_seed(7)
    with pytest.raises(ModelFolderError, match="another model"):
        restored(ByteLM.new(TINY_CONFIG).eval(), compressed)


def test_the_size_is_that_of_the_bits_that_the_model_gives(lm):
    documents = [STORY * 3, STORY * 2 + b"Then", STORY * 3]
    archive = Archive.unpack(compress(lm, b"\n<|endoftext|>\n".join(documents), level=3))
    bits = sum(lm.score(document).bits for document in documents) - lm.score(documents[-1]).bits_by_byte[-1]
    assert len(archive.blocks) == 1
    assert 8 * len(archive.blocks[0]) == pytest.approx(bits, rel=0.01, abs=64)


def test_the_patch_rule_is_the_models_own_again(lm):
    before = lm.patch_rule
    compress(lm, STORIES, level=1)
    assert lm.patch_rule == before


def faults(data, number):
    """Return files with one random fault each."""
    draw = random.Random(3)
    for _ in range(number):
        kind, at = draw.choice(("flip", "cut", "grow", "swap", "zero")), draw.randrange(len(data))
        if kind == "flip":
            yield data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif kind == "cut":
            yield data[:at]
        elif kind == "grow":
            yield data[:at] + bytes([draw.randrange(256)]) + data[at:]
        elif kind == "swap":
            size, other = draw.randrange(1, 40), draw.randrange(len(data))
            first, second = sorted((at, other))
            middle = data[first + size : second]
            yield (
                data[:first]
                + data[second : second + size]
                + middle
                + data[first : first + size]
                + data[second + size :]
            )
        else:
            yield data[:at] + bytes(8) + data[at + 8 :]


TALK = b"".join(random.Random(5).choices((b"Tom ", b"Lily ", b"sat. "), k=40))
LONG = b"".join(random.Random(5).choices((b"Tom ", b"Lily ", b"sat. "), k=500))[:2048]  # two blocks


@pytest.mark.parametrize("learn", [False, True])
def test_random_faults_are_noticed(lm, learn):
    compressed = compress(lm, TALK, learn=learn)
    assert Archive.unpack(compressed).model is not None
    tried = 0
    for damaged in faults(compressed, 40):
        if damaged == compressed:
            continue
        tried += 1
        with pytest.raises((DataError, ModelFolderError)):
            restored(lm, damaged)
    assert tried > 30


def test_damage_stays_in_its_block(lm):
    archive = Archive.unpack(compress(lm, LONG))
    assert len(archive.blocks) == 2
    second = archive.blocks[1]
    damaged = [archive.blocks[0], second[:-1] + bytes([second[-1] ^ 1])]
    with pytest.raises(DataError, match="in block 2 of 2"):
        restored(lm, dataclasses.replace(archive, blocks=damaged).pack())


def test_blocks_that_change_places_are_noticed(lm):
    archive = Archive.unpack(compress(lm, LONG))
    model = dataclasses.replace(archive.model, blocks=archive.model.blocks[::-1])
    with pytest.raises(DataError, match="block 1 of 2"):
        restored(lm, dataclasses.replace(archive, model=model, blocks=archive.blocks[::-1]).pack())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no file of `blt compress`"),
        (b"BLTz", "cut"),
        (b"PK\3\4" + bytes(60), "no file of `blt compress`"),
        (b"BLTz\x63" + bytes(60), "format 99"),
    ],
)
def test_other_files_are_refused_in_one_line(data, message):
    with pytest.raises(DataError, match=message):
        Archive.unpack(data)


def test_a_header_that_lies_is_refused_though_its_checksum_is_right(lm):
    archive = Archive.unpack(compress(lm, STORIES))
    for change in (
        {"rows": 0},
        {"rows": 10**9},
        {"threads": 10**9},
        {"blocks": [dataclasses.replace(b, num_symbols=0) for b in archive.model.blocks]},
        {"blocks": [dataclasses.replace(b, num_symbols=1 << 50) for b in archive.model.blocks]},
    ):
        for num_bytes in (
            archive.num_bytes,
            1 << 60,
        ):  # no block has so many symbols, whatever the length is said to be
            model = dataclasses.replace(archive.model, **change)
            with pytest.raises(DataError, match="numbers that cannot be"):
                Archive.unpack(dataclasses.replace(archive, num_bytes=num_bytes, model=model).pack())


def test_a_number_that_never_ends_is_refused(lm):
    archive = Archive.unpack(compress(lm, STORIES))
    packed = dataclasses.replace(archive, num_bytes=1 << 7_000).pack()
    with pytest.raises(DataError, match="a number that cannot be"):
        Archive.unpack(packed)


def test_a_level_that_is_none_is_refused(lm):
    with pytest.raises(ConfigurationError, match=re.escape("level: 9 is none of 1, 2, 3")):
        compress(lm, b"x", level=9)


def test_progress_ends_at_all(lm):
    told = []
    compress(lm, STORIES, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)
