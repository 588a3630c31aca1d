import struct
import sys

import gguf
import numpy as np
import pytest

from blt.errors import MissingExtraError, ModelFolderError
from blt.interop.gguf_file import read_gguf
from llama_models import new_llama, write_gguf


@pytest.fixture
def small(tmp_path):
    """A file with a value of every type, and two tensors."""
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    writer.add_uint8("a.u8", 7)
    writer.add_int64("a.i64", -5)
    writer.add_float64("a.f64", 0.25)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "café")
    writer.add_array("a.texts", ["x", "yy", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("matrix", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("vector", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "small.gguf"


def test_values_and_tensors_are_those_that_were_written(small):
    file = read_gguf(small)
    assert file.fields["general.architecture"] == "llama"
    found = {key: value for key, value in file.fields.items() if key.startswith("a.")}
    assert found == {
        "a.u8": 7,
        "a.i64": -5,
        "a.f64": 0.25,
        "a.bool": True,
        "a.text": "café",
        "a.texts": ["x", "yy", ""],
        "a.numbers": [1, 2, 3],
    }
    assert file.names == ["matrix", "vector"]
    assert file.tensor("matrix").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert file.tensor("vector").tolist() == [0, 1, 2, 3, 4]


def test_every_tensor_agrees_with_the_reader_of_the_package(tmp_path):
    path = write_gguf(new_llama(), tmp_path / "model.gguf", kind="Q4_1")
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    assert ours.names == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.tensor(tensor.name).numpy(), wanted.reshape(tensor.shape[::-1]))


def read_all(path):
    file = read_gguf(path)
    for name in file.names:
        file.tensor(name)


def test_a_file_cut_off_anywhere_is_one_line_and_never_hangs(small):
    padded = small.read_bytes()
    whole = padded[: padded.rindex(np.float16(4).tobytes()) + 2]  # up to the last number of the last tensor
    cut = small.with_name("cut.gguf")
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelFolderError) as error:
            read_all(cut)
        assert str(error.value).startswith(str(cut))
        assert "\n" not in str(error.value)


def header(*parts, num_tensors=0, num_fields=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields) + b"".join(parts)


def text(value):
    return struct.pack("<Q", len(value)) + value


HUGE = 2**63
HOSTILE = {
    "no magic": b"GGML" + bytes(60),
    "another version": header(version=1) + bytes(60),
    "big endian": b"GGUF" + struct.pack(">I", 3) + bytes(60),
    "fields without end": header(num_fields=HUGE) + bytes(60),
    "tensors without end": header(num_tensors=HUGE) + bytes(60),
    "a name without end": header(struct.pack("<Q", HUGE), num_fields=1) + bytes(60),
    "a list without end": header(text(b"k"), struct.pack("<IIQ", 9, 4, HUGE), num_fields=1) + bytes(60),
    "strings without end": header(text(b"k"), struct.pack("<IIQ", 9, 8, HUGE), num_fields=1) + bytes(60),
    "a list of lists": header(text(b"k"), struct.pack("<IIQ", 9, 9, 1), num_fields=1) + bytes(60),
    "an unknown type": header(text(b"k"), struct.pack("<I", 99), num_fields=1) + bytes(60),
    "a field twice": header(*2 * (text(b"k"), struct.pack("<IB", 0, 1)), num_fields=2) + bytes(60),
    "alignment 0": header(text(b"general.alignment"), struct.pack("<II", 4, 0), num_fields=1) + bytes(60),
    "many dimensions": header(text(b"t"), struct.pack("<I", 2**31), num_tensors=1) + bytes(60),
    "a huge tensor": header(text(b"t"), struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0), num_tensors=1) + bytes(60),
    "a far tensor": header(text(b"t"), struct.pack("<IQIQ", 1, 4, 0, HUGE), num_tensors=1) + bytes(60),
    "an unknown kind": header(text(b"t"), struct.pack("<IQIQ", 1, 4, 999, 0), num_tensors=1) + bytes(60),
    "half a block": header(text(b"t"), struct.pack("<IQIQ", 1, 33, 8, 0), num_tensors=1) + bytes(99),
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(20)
def test_a_hostile_file_is_one_line(tmp_path, content):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        read_all(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ModelFolderError, match="No such file"):
        read_gguf(tmp_path / "nowhere.gguf")


def test_without_the_package_the_extra_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'gguf': pip install 'blt-llm\[byteify\]'"):
        read_gguf(small)
