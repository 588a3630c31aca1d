import math

import numpy as np
import pytest
import torch

from blt.compression import coding
from blt.compression.frequencies import TOTAL
from blt.errors import CertificationError, DataError, ModelFolderError
from blt.evaluation import CONDITIONS, certify, evaluate
from blt.evaluation import certified as certified_module

DOCUMENTS = [
    b"Tom had a red ball. " * 9,
    b"",
    "Émile était là. 你好".encode() * 5,
    b"\xff\x00<|endoftext|>\n" * 6,
    b"a",
]


@pytest.fixture
def without_native(monkeypatch):
    monkeypatch.setattr("blt.decoder.library.library", lambda **_: None)


def test_the_certified_figure_is_that_of_evaluate_and_what_the_coder_adds(tiny_lm):
    found = certify(tiny_lm, DOCUMENTS, bootstrap=50)
    plain = evaluate(tiny_lm, DOCUMENTS, bootstrap=50)
    assert found.plain.bits_by_unit.tolist() == plain.bits_by_unit.tolist()
    # New weights give the three ids that are never coded as much as any other; without them every symbol is cheaper.
    spared = math.log2(260 / 257)
    assert found.frequency_bits_per_byte == pytest.approx(plain.bits_per_byte - spared, abs=0.05)
    assert found.num_streams == 1
    assert 0 < 8 * found.num_coded_bytes - found.frequency_bits_per_byte * plain.num_bytes < 80
    assert found.bits_per_byte == 8 * found.num_coded_bytes / plain.num_bytes
    assert found.bits_by_unit.sum() == pytest.approx(8 * found.num_coded_bytes)
    ratio = found.bits_by_unit / plain.bits_by_unit
    assert ratio == pytest.approx(np.full(4, ratio.mean()), rel=0.03)
    assert found.interval_low <= found.bits_per_byte <= found.interval_high
    assert found.difference == found.bits_per_byte - plain.bits_per_byte


def test_many_documents_fill_many_streams_in_order(tiny_lm, monkeypatch):
    monkeypatch.setattr(certified_module, "LEAST_SYMBOLS", 40)
    monkeypatch.setattr(certified_module, "STREAMS", 3)
    monkeypatch.setattr(certified_module, "MOST_SYMBOLS", 100)
    documents = [bytes([65 + number]) * length for number, length in enumerate([30, 1, 200, 7, 90, 50, 45, 2])]
    seen = []
    found = certify(tiny_lm, documents, bootstrap=0, progress=lambda *done: seen.append(done))
    assert found.num_streams > 3
    assert len(found.bits_by_unit) == len(documents)
    assert seen[-1] == (2 * (425 + 8),) * 2
    assert found.frequency_bits_per_byte == pytest.approx(certify(tiny_lm, documents).frequency_bits_per_byte, abs=0.01)


def test_pytorch_certifies_too(tiny_lm, without_native, without_shape_checks):
    found = certify(tiny_lm, DOCUMENTS[:1], bootstrap=0)
    assert found.kernels.startswith("PyTorch on cpu")
    assert found.to_dict()["interval_low"] is None


def test_json_names_the_conditions_and_the_difference(tiny_lm):
    values = certify(tiny_lm, DOCUMENTS, bootstrap=0).to_dict(units=True)
    assert list(values["conditions"]) == [
        "strictly causal", "full normalised distribution", "scored before any update", "one pass"
    ]  # fmt: skip
    assert values["conditions"] == CONDITIONS
    assert values["bits_per_byte"] - values["plain_bits_per_byte"] == values["difference"]
    assert len(values["bits_by_unit"]) == 4


def test_a_model_that_looks_ahead_is_not_certified(tiny_lm, monkeypatch):
    read = coding._Predictor.read

    def leaking(self, ids, active):
        found = read(self, ids, active)
        for column in range(ids.shape[1] - 1):  # where many bytes are read at once, the next one is there to be seen
            coming = ids[:, column + 1] - 4
            found[np.arange(len(ids)), column, np.where(coming >= 0, coming, 256)] += TOTAL
            found[:, column] = np.maximum(found[:, column] // 2, 1)
            found[np.arange(len(ids)), column, 0] += TOTAL - found[:, column].sum(1)
        return found

    monkeypatch.setattr(coding._Predictor, "read", leaking)
    with pytest.raises(
        CertificationError, match=r"other bytes than the text: the first is number 0, \d+ where the tex"
    ):
        certify(tiny_lm, DOCUMENTS[:1], bootstrap=0)


def test_frequencies_that_are_no_distribution_are_not_certified(tiny_lm, monkeypatch):
    read = coding._Predictor.read
    monkeypatch.setattr(coding._Predictor, "read", lambda *arguments: read(*arguments) * 2)
    with pytest.raises(ModelFolderError, match="no distribution"):
        certify(tiny_lm, DOCUMENTS[:1], bootstrap=0)


def test_weights_that_change_on_the_way_are_not_certified(tiny_lm, monkeypatch):
    decode_rows = certified_module.decode_rows

    def updating(lm, *arguments, **options):
        found = decode_rows(lm, *arguments, **options)
        with torch.no_grad():
            lm.blt.hash_embedding.bytes.weight[7, 3] += 1
        return found

    monkeypatch.setattr(certified_module, "decode_rows", updating)
    with pytest.raises(CertificationError, match="weights changed on the way"):
        certify(tiny_lm, DOCUMENTS[:1], bootstrap=0)


def test_nothing_to_certify_is_refused(tiny_lm):
    with pytest.raises(DataError, match="no documents"):
        certify(tiny_lm, [b""])
