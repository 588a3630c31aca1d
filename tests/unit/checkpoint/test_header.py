"""Headers of safetensors that are truncated, hostile or oversized: one clear line, and never much memory."""

import json
import tracemalloc

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blt.checkpoint import header as header_module
from blt.checkpoint import load_headers, load_tensors, read_header
from blt.errors import DataError, ModelFolderError

TENSORS = {
    "first": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "second": torch.ones(4, dtype=torch.bfloat16),
    "none": torch.zeros(0, 5),
}


KINDS = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32),
]


def file_of(header, *, data=b"\0" * 32, length=None):
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(written) if length is None else length).to_bytes(8, "little") + written + data


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFolderError) as error:
        read_header(path)
    with pytest.raises(ModelFolderError):
        load_tensors(path)
    said = str(error.value)
    assert said.isprintable()
    assert len(said) < 1100
    return said


def tensor(dtype="F32", shape=(8,), place=(0, 32)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


def test_what_a_whole_file_says_is_read(tmp_path):
    path = tmp_path / "whole.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"format": "pt"})
    found = read_header(path)
    assert {name: (header.dtype, header.shape) for name, header in found.items()} == {
        "first": ("F32", (2, 3)),
        "second": ("BF16", (4,)),
        "none": ("F32", (0, 5)),
    }


@pytest.mark.parametrize("dtype", KINDS)
def test_every_kind_of_number_that_we_write_is_known(tmp_path, dtype):
    path = tmp_path / "kinds.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(3, 2, dtype=dtype)}, path)
    assert read_header(path)["x"].shape == (3, 2)
    assert load_tensors(path)["x"].dtype == dtype


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes, fewer than 8"),
        (b"\1\0\0", "3 bytes, fewer than 8"),
        (file_of({}, length=2**63), "its header claims 9,223,372,036,854,775,808 bytes, the file has 42"),
        (file_of({"x": tensor()}, data=b"\0" * 31), "its tensors are 32 bytes, the file has 31"),
        (file_of({"x": tensor()}, data=b"\0" * 33), "its tensors are 32 bytes, the file has 33"),
        (file_of(b"[" * 100_000), "its header is not JSON"),
        (file_of(b"\xff\xfe{}"), "its header is not JSON"),
        (file_of(b'{"x": 1' + b"0" * 5000 + b"}"), "its header is not JSON"),
        (file_of([]), "its header is no table"),
        (file_of(b'{"x": {}, "x": {}}'), "a key of its header stands twice"),
        (file_of({"x": 3}), "x: no table"),
        (file_of({"x": {}}), "x: unknown dtype None"),
        (file_of({"x": tensor("F4096")}), "x: unknown dtype 'F4096'"),
        (file_of({"x": tensor(["F32"])}), "x: unknown dtype ['F32']"),
        (file_of({"x": tensor(shape=[-8])}), "x: no shape, [-8]"),
        (file_of({"x": tensor(shape=[8.0])}), "x: no shape, [8.0]"),
        (file_of({"x": tensor(shape=[True])}), "x: no shape, [True]"),
        (file_of({"x": tensor(shape=[1] * 99)}), "x: no shape, [1, 1,"),
        (file_of({"x": tensor(shape=[2**62, 2**62, 0], place=[0, 0])}), "is beyond counting"),
        (file_of({"x": tensor(shape=[2**32, 2**32])}), "is beyond counting"),
        (file_of({"x": tensor(shape=[9])}), "shape [9] of F32 is 36 bytes, its place has 32"),
        (file_of({"x": tensor(place=[32, 0])}), "its place has -32"),
        (file_of({"x": tensor(place=[0, 32, 64])}), "x: no place"),
        (file_of({"x": tensor(place=[32, 64])}), "x starts at 32, the tensor before ends at 0"),
        (file_of({"x": tensor(), "y": tensor()}), "y starts at 0, the tensor before ends at 32"),
        (file_of({"x" * 100_000: tensor()}), "a tensor is named 'xxxxxx"),
        (file_of({"x\x1b[2J": tensor()}), r"a tensor is named 'x\x1b[2J'"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_no_whole_file_says_is_told(tmp_path, content, said):
    assert said in refusal(tmp_path / "bad.safetensors", content)


def test_a_header_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(header_module, "MAX_HEADER_BYTES", 1000)
    content = file_of(b"{" + b" " * 1000 + b"}", data=b"")
    assert "a header of 1,002 bytes; at most 1,000 are read" in refusal(tmp_path / "long.safetensors", content)


def test_the_error_may_be_of_another_class(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(DataError):
        read_header(tmp_path / "x.safetensors", error=DataError)


def whole_file():
    return safetensors.torch.save(TENSORS, metadata={"format": "pt"})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
COUNTS = st.integers(min_value=-2, max_value=70) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 2**200])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*header_module.BYTES_OF, "F4", "F6_E2M3", "C64", "Q8_0", ""]) | JSON_VALUES,
        "shape": st.lists(COUNTS, max_size=4) | JSON_VALUES,
        "data_offsets": st.lists(COUNTS, max_size=3) | JSON_VALUES,
    }
)
HEADERS = st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), ENTRIES | JSON_VALUES, max_size=4)


@st.composite
def mutated_files(draw):
    """A whole file with some bytes changed, cut or added; or a header made up, with any data behind it."""
    if draw(st.booleans()):
        return file_of(draw(HEADERS), data=b"\0" * draw(st.integers(0, 70)))
    content = bytearray(whole_file())
    header_end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, header_end - 1))
        content[place] = draw(st.integers(0, 255) | st.sampled_from(b'0123456789{}[],:"'))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@settings(max_examples=400, deadline=None)
@given(content=mutated_files())
@example(content=whole_file())
def test_whatever_a_file_holds_either_it_is_read_or_one_clear_line_says_why_not(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    said, tensors = None, {}
    try:
        tensors = load_tensors(path)
    except ModelFolderError as error:
        said = str(error)
    if said is not None:
        assert said.isprintable()
        assert said.startswith(str(path))
    else:
        found = {name: header.shape for name, header in load_headers(path).items()}
        assert found == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        assert sum(tensor.nbytes for tensor in tensors.values()) <= len(content)


@settings(max_examples=200, deadline=None)
@given(content=mutated_files())
def test_what_the_library_refuses_is_refused_here(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    try:
        safetensors.torch.load_file(path)
    except Exception:
        with pytest.raises(ModelFolderError):
            load_tensors(path)


def test_a_hostile_header_costs_little_memory(tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(file_of({"x": tensor(shape=[2**50], place=[0, 2**52])}))
    tracemalloc.start()
    with pytest.raises(ModelFolderError):
        load_tensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
