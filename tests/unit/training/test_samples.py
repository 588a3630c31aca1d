import torch

from blt.training import samples
from blt.training.samples import write_sample


def test_a_sample_is_kept_with_its_step_and_leaves_the_random_numbers_of_training_alone(tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "SAMPLE_BYTES", 12)
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

    monkeypatch.setattr(samples, "generate", lambda *_, **__: Written())
    story = write_sample(tiny_lm, tmp_path / "samples.txt", prompt="", seed=0, step=1, bits_per_byte=1.0)
    assert story == "a\N{REPLACEMENT CHARACTER}[2Jb\nc\N{REPLACEMENT CHARACTER}"
