"""The formulas of `docs/spec`, written out once more in plain numbers and compared with the code."""

import math

import pytest
import torch

from blt.codec import BOS_ID, encode
from blt.model import PRESETS, HashConfig
from blt.model.cost import cost_of
from blt.model.hash_embedding import ngram_hashes
from blt.nn.transformer import FeedForward, RMSNorm
from blt.ops import PRIMES, muon, rotary_table, rotate
from blt.ops.muon import COEFFICIENTS
from blt.training.muon import Muon
from blt.training.schedules import CosineConfig, WSDConfig


def wrapped(number):
    """A signed 64-bit number after overflow."""
    return (number + 2**63) % 2**64 - 2**63


def test_an_ngram_is_hashed_by_the_sum_of_the_spec():
    config = HashConfig(ngram_sizes=(3, 8), num_rows=1009, num_functions=2)
    ids = encode("a red ball", bos=True)
    found = ngram_hashes(ids[None], torch.arange(len(ids))[None], config)[0]
    padded = [0] * 8 + ids.tolist()
    for t in range(len(ids)):
        expected = []
        for function in range(2):
            for n in (3, 8):
                newest = t + 8
                terms = [padded[newest - n + 1 + j] * PRIMES[function] ** j for j in range(n)]
                expected.append(wrapped(sum(terms)) % 1009 + 1009 * len(expected))
        assert found[t].tolist() == expected
    assert ids[0] == BOS_ID


def test_rope_rotates_pairs_of_halves_by_the_angle_of_the_spec():
    width, theta, position = 8, 500000.0, 37
    states = torch.randn(1, 1, 1, width)
    found = rotate(states, rotary_table(torch.tensor([[position]]), head_dim=width, theta=theta))[0, 0, 0]
    for i in range(width // 2):
        angle = position / theta ** (2 * i / width)
        first, second = states[0, 0, 0, i].item(), states[0, 0, 0, i + width // 2].item()
        assert found[i].item() == pytest.approx(first * math.cos(angle) - second * math.sin(angle), abs=1e-5)
        assert found[i + width // 2].item() == pytest.approx(
            second * math.cos(angle) + first * math.sin(angle), abs=1e-5
        )


def test_norm_and_feed_forward_are_those_of_the_spec():
    states = torch.randn(1, 3, 8)
    norm, feed_forward = RMSNorm(8, epsilon=1e-5), FeedForward(8, hidden=16)
    with torch.no_grad():
        norm.weight.normal_()
        expected = norm.weight * states / (states.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(norm(states), expected)
        gate, up = states @ feed_forward.gate.weight.T, states @ feed_forward.up.weight.T
        expected = (gate * torch.sigmoid(gate) * up) @ feed_forward.down.weight.T
        torch.testing.assert_close(feed_forward(states), expected)


@pytest.mark.parametrize("name", PRESETS)
def test_flops_are_those_of_the_spec(name):
    shape, p, n = PRESETS[name], 4.4, 512

    def stack(part, length, window):
        m = min(length, window)
        kappa = m * (1 - (m - 1) / (2 * length))
        matrices = 4 * part.dim**2 + 3 * part.dim * part.feed_forward_width
        return 2 * part.num_layers * matrices + 4 * part.num_layers * part.dim * kappa

    width, wide, k = shape.local_encoder.dim, shape.global_transformer.dim, shape.queries_per_patch
    count = shape.local_decoder.num_layers if shape.decoder_cross_attention == "every" else 1
    joined = 0 if k * width == wide else k * width * wide
    total = stack(shape.local_encoder, n, shape.local_encoder.window)
    total += stack(shape.local_decoder, n, shape.local_decoder.window)
    total += stack(shape.global_transformer, n / p, math.inf) / p
    total += 2 * ((k * width**2 + joined + 2 * k * width**2) / p + 2 * width**2) + 4 * k * width
    total += 2 * ((wide * k * width + 2 * count * k * width**2) / p + 2 * count * width**2) + 4 * count * k * width
    total += 2 * 260 * width
    assert cost_of(shape, mean_patch_bytes=p, context_bytes=n).flops == pytest.approx(total)


def test_schedules_are_those_of_the_spec():
    steps, warm, final, share = 100, 10, 0.1, 0.4
    cosine = CosineConfig(warmup_steps=warm, final_factor=final)
    wsd = WSDConfig(warmup_steps=warm, decay_fraction=share, final_factor=final)
    for s in range(steps):
        falling = final + (1 - final) / 2 * (1 + math.cos(math.pi * (s - warm) / (steps - warm)))
        assert cosine.factor(s, num_steps=steps) == pytest.approx((s + 1) / warm if s < warm else falling)
        left = final + (1 - final) * min(1, (steps - s) / (share * steps))
        assert wsd.factor(s, num_steps=steps) == pytest.approx(min(1, (s + 1) / warm) * left)


def test_a_step_of_muon_is_that_of_the_spec(monkeypatch):
    monkeypatch.setattr(muon, "fast_matmul_dtype", lambda device: torch.float32)  # no product of bfloat16
    weight = torch.nn.Parameter(torch.randn(6, 4, dtype=torch.float64))
    gradients = [torch.randn(6, 4, dtype=torch.float64) for _ in range(2)]
    expected, m = weight.detach().clone(), torch.zeros(6, 4, dtype=torch.float64)
    rate, decay, momentum = 1.0, 0.1, 0.9
    optimizer = Muon([weight], lr=rate, momentum=momentum, weight_decay=decay)
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
        m = momentum * m + (1 - momentum) * g
        u = (1 - momentum) * g + momentum * m
        x = u.T / (1.02 * u.norm())
        for a, b, c in COEFFICIENTS[:5]:
            product = x @ x.T
            x = a * x + b * product @ x + c * product @ product @ x
        expected = (1 - rate * decay) * expected - rate * math.sqrt(max(1, 6 / 4)) * x.T
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-9)
