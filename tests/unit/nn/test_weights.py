"""Weights in fewer bytes."""

import pytest
import torch
from torch import nn

from blt.api import ByteLM
from blt.nn import QuantizedLinear, quantize_weights_
from blt.nn.weights import pack_int4, unpack_int4


@pytest.mark.parametrize(("stored_as", "error"), [("bfloat16", 2**-8), ("int8", 1 / 200), ("int4", 0.3)])
def test_a_product_differs_by_no_more_than_rounding_of_the_weights(stored_as, error):
    linear = nn.Linear(48, 20, bias=False)
    states = torch.randn(5, 48)
    cheap = QuantizedLinear(linear, stored_as=stored_as)
    bound = error * linear.weight.abs().amax(1) * states.abs().sum(1, keepdim=True)
    found = cheap(states)
    assert ((found - linear(states)).abs() <= bound).all()
    assert not torch.equal(found, linear(states))


@pytest.mark.parametrize("stored_as", ["bfloat16", "int8", "int4"])
def test_what_waits_for_a_file_has_the_shapes_and_types_of_what_is_rounded(stored_as):
    made, rounded = (
        QuantizedLinear(nn.Linear(77, 20, bias=False, device=device), stored_as=stored_as).state_dict()
        for device in ("meta", "cpu")
    )
    assert {name: (part.shape, part.dtype) for name, part in made.items()} == {
        name: (part.shape, part.dtype) for name, part in rounded.items()
    }
    assert all(part.is_meta for part in made.values())


@pytest.mark.parametrize("stored_as", ["int8", "int4"])
def test_a_row_of_zeros_stays_zero(stored_as):
    linear = nn.Linear(8, 2, bias=False)
    nn.init.zeros_(linear.weight)
    assert torch.equal(QuantizedLinear(linear, stored_as=stored_as)(torch.ones(1, 8)), torch.zeros(1, 2))


def test_int4_loses_less_than_the_plain_scale_of_the_largest_weight_and_keeps_odd_widths():
    weight = torch.randn(20, 77)
    found = unpack_int4(*pack_int4(weight), num_inputs=77)
    blocks = nn.functional.pad(weight, (0, 19)).view(20, 3, 32)
    plain = blocks.gather(2, blocks.abs().argmax(2, keepdim=True)) / -8
    rounded = ((blocks / plain).round().clamp(-8, 7) * plain).view(20, 96)[:, :77]
    assert (found - weight).square().sum() < 0.95 * (rounded - weight).square().sum()


def test_every_linear_layer_within_is_replaced():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4)))
    quantize_weights_(module, stored_as="int8")
    assert not [part for part in module.modules() if isinstance(part, nn.Linear)]


def test_a_model_in_int8_patches_alike_and_predicts_nearly_alike(tiny_folder):
    whole, cheap = ByteLM.from_pretrained(tiny_folder), ByteLM.from_pretrained(tiny_folder, dtype="int8")
    text = "Tom had a red ball."
    assert [part.data for part in cheap.patch(text)] == [part.data for part in whole.patch(text)]
    assert cheap.score(text).bits_per_byte == pytest.approx(whole.score(text).bits_per_byte, rel=0.05)
    assert cheap.score(text).bits_per_byte != whole.score(text).bits_per_byte
