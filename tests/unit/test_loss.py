import ast
from pathlib import Path

import pytest
import torch

import blt
from blt.codec import BOS_ID, EOS_ID, encode
from blt.loss import NOT_PREDICTED, next_byte_loss, next_byte_targets

SOURCE = Path(blt.__file__).parent


def test_a_target_is_the_id_that_follows():
    ids = encode(b"abc", bos=True, eos=True)[None]
    byte_ids, targets = next_byte_targets(ids)
    assert byte_ids.tolist() == ids[:, :-1].tolist()
    assert targets.tolist() == ids[:, 1:].tolist()


def test_neither_bos_nor_padding_is_a_target():
    ids = torch.tensor([[BOS_ID, 100, EOS_ID, BOS_ID, 101], [BOS_ID, 100, EOS_ID, EOS_ID, EOS_ID]])
    _, targets = next_byte_targets(ids, lengths=torch.tensor([5, 3]))
    assert targets.tolist() == [[100, EOS_ID, NOT_PREDICTED, 101], [100, EOS_ID, NOT_PREDICTED, NOT_PREDICTED]]
    assert ids[0, 3] == BOS_ID, "the caller's ids stay as they are"


def test_the_loss_is_the_negative_log_probability_of_the_targets_that_are_predicted():
    logits, targets = torch.randn(2, 3, 260), torch.tensor([[5, NOT_PREDICTED, 7], [9, 4, NOT_PREDICTED]])
    nats = next_byte_loss(logits, targets, reduction="none")
    expected = -logits.log_softmax(-1)
    assert nats[0, 0] == pytest.approx(float(expected[0, 0, 5]))
    assert nats[1, 1] == pytest.approx(float(expected[1, 1, 4]))
    assert nats[targets == NOT_PREDICTED].tolist() == [0, 0]
    assert next_byte_loss(logits, targets) == pytest.approx(float(nats.sum()), rel=1e-6)


def losses_and_shifts(code):
    """Lines that call a cross-entropy, or cut off the first of each row, as a shift of targets does."""
    found = []
    for node in ast.walk(ast.parse(code)):
        text = ast.unparse(node)
        is_loss = isinstance(node, ast.Attribute) and node.attr in ("cross_entropy", "nll_loss", "CrossEntropyLoss")
        is_shift = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and text.endswith("[:, 1:]")
        if (is_loss or is_shift) and isinstance(getattr(node, "ctx", None), ast.Load):
            found.append(text)
    return found


def test_no_other_file_shifts_targets_or_takes_a_loss():
    found = {
        str(path.relative_to(SOURCE)): losses_and_shifts(path.read_text())
        for path in SOURCE.rglob("*.py")
        if losses_and_shifts(path.read_text())
    }
    # segments.py compares each position with the one before it; no target is made of that
    assert set(found) == {"loss.py", "ops/segments.py"}
    assert found["ops/segments.py"] == ["segments[:, 1:]"]
