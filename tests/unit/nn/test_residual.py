"""What layers add, and which positions go without."""

import pytest
import torch

from blt.model import LocalConfig
from blt.nn import RowInputs, Transformer
from blt.nn.residual import add
from blt.nn.transformer import Layer
from blt.ops import only_references

SHAPE = (20, 133, 32)


@pytest.fixture(params=["native", "pytorch"])
def _backend(request):
    if request.param == "native":
        yield
        return
    with only_references():
        yield


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_some_positions_go_without_an_update_and_the_others_get_more(dtype):
    torch.manual_seed(0)
    states, update = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE).to(dtype).requires_grad_()
    out, above = add(states, update, dropout=0.25), torch.randn(SHAPE)
    of_states, of_update = torch.autograd.grad(out, [states, update], above)
    is_kept = (of_update != 0).any(-1, keepdim=True)
    assert abs(is_kept.float().mean() - 0.75) < 0.03
    torch.testing.assert_close(out, states + torch.where(is_kept, update.float() / 0.75, 0))
    assert torch.equal(of_states, above)
    torch.testing.assert_close(of_update, torch.where(is_kept, above / 0.75, 0).to(dtype))


@pytest.mark.usefixtures("_backend")
def test_without_dropout_it_is_a_sum():
    states, update = torch.randn(SHAPE), torch.randn(SHAPE)
    assert torch.equal(add(states, update), states + update)


def test_layers_drop_in_training_only():
    stack = Transformer(LocalConfig(dim=32, num_layers=2, num_heads=2, window=8), theta=100.0)
    inputs = RowInputs(torch.zeros(3, 20, dtype=torch.long), torch.arange(20).expand(3, -1))
    states = torch.randn(3, 20, 32)
    plain = stack(states, inputs)
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        layer.dropout = 0.5
    assert not torch.equal(stack(states, inputs), plain)
    assert torch.equal(stack.eval()(states, inputs), plain)
