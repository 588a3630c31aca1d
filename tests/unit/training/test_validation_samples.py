import errno
import os

import pytest
import torch

from blt.errors import OutputError
from blt.training import validation
from blt.training.validation import drop_samples_after, write_sample


def test_a_sample_is_kept_with_its_step_and_leaves_the_random_numbers_of_training_alone(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "SAMPLE_BYTES", 12)
    before = torch.get_rng_state()
    for step in (1000, 2000):
        story = write_sample(tiny_lm, tmp_path / "samples.txt", prompt="Tom", seed=0, step=step, bits_per_byte=2.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert story.startswith("Tom")
    kept = (tmp_path / "samples.txt").read_text()
    assert "--- step 1,000: held-out 2.5000 bits per byte\nTom" in kept
    assert kept.count(story) == 2


def test_control_characters_do_not_reach_the_terminal(tiny_lm, tmp_path, monkeypatch):
    class Written:
        text = "a\x1b[2Jb\nc\x07"

    monkeypatch.setattr(validation, "generate", lambda *_, **__: Written())
    story = write_sample(tiny_lm, tmp_path / "samples.txt", prompt="", seed=0, step=1, bits_per_byte=1.0)
    assert story == "a\N{REPLACEMENT CHARACTER}[2Jb\nc\N{REPLACEMENT CHARACTER}"


def test_samples_after_the_checkpoint_and_second_ones_are_dropped(tmp_path):
    path = tmp_path / "samples.txt"
    first, second, third = (
        f"--- step {step}: held-out 1.5000 bits per byte\nTom ran.\n\n" for step in ("500", "1,000", "1,500")
    )
    path.write_text(first + second + third + second + third)
    drop_samples_after(path, step=1000)
    assert path.read_text() == first + second
    before = path.stat().st_mtime_ns
    drop_samples_after(path, step=1000)
    assert path.stat().st_mtime_ns == before
    drop_samples_after(path, step=0)
    assert path.read_text() == ""
    drop_samples_after(tmp_path / "nowhere", step=0)


def test_a_full_disk_leaves_the_samples_so_far_as_they_were(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "SAMPLE_BYTES", 12)
    path = tmp_path / "samples.txt"
    write_sample(tiny_lm, path, prompt="Tom", seed=0, step=1000, bits_per_byte=2.5)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"samples\.txt: No space left on device; make room"):
        write_sample(tiny_lm, path, prompt="Tom", seed=0, step=2000, bits_per_byte=2.5)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["samples.txt"]
