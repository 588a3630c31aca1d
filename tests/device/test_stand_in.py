"""The stand-in for a GPU itself: it refuses what CUDA refuses and no more, and counts what the host waits for."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._device import _device_constructors

from cuda_stand_in import CudaStandIn


@pytest.fixture
def gpu():
    """The stand-in, whatever BLT_DEVICE says."""
    with CudaStandIn() as stand_in:
        yield stand_in


def there(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype).to("cuda", non_blocking=True)


HOST, NUMBER, INDEX = torch.ones(3), torch.tensor(2.0), torch.tensor([0, 2])
MIXED_AND_REFUSED = {
    "a sum": lambda x: x + HOST,
    "a sum, the other way round": lambda x: HOST + x,
    "a sum in place": lambda x: x.add_(HOST),
    "a matmul": lambda x: x @ HOST,
    "a linear layer": lambda x: F.linear(x, torch.ones(2, 3)),
    "concatenation": lambda x: torch.cat([x, HOST]),
    "numbers that are stacked": lambda x: torch.stack([x[0], NUMBER]),
    "a choice": lambda x: torch.where(x > 0, x, HOST),
    "a gather by indices on the host": lambda x: x.gather(0, INDEX),
    "a selection by indices on the host": lambda x: x.index_select(0, INDEX),
    "an addition at indices on the host": lambda x: x.index_add(0, INDEX, x[:2]),
    "an embedding": lambda x: F.embedding(INDEX, x[:, None]),
    "a tensor on the host, indexed by one there": lambda x: HOST[(x[:2]).long()],
    "an assignment of several numbers on the host": lambda x: x.index_put_((INDEX.to("cuda"),), torch.ones(2)),
    "a loss whose targets are on the host": lambda x: F.cross_entropy(x[None], torch.tensor([1])),
}


@pytest.mark.parametrize("mix", MIXED_AND_REFUSED.values(), ids=MIXED_AND_REFUSED)
def test_tensors_of_two_devices_are_refused(gpu, mix):
    with pytest.raises(RuntimeError, match=r"same device"):
        mix(there(3))


def test_the_host_cannot_read_what_is_there(gpu):
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        there(3).numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        np.asarray(there(3))


MIXED_AND_ALLOWED = {
    "a number on the host in a sum": lambda x: x + NUMBER,
    "a number on the host on the left": lambda x: NUMBER * x,
    "a number on the host in a choice": lambda x: torch.where(x > 0, x, NUMBER),
    "a number of Python": lambda x: x * 2 + 1,
    "a mask that is filled with a number": lambda x: x.masked_fill(x > 0, 2.0),
    "an assignment of a number to a mask": lambda x: x.__setitem__(x > 0, 2.0),
    "a slice": lambda x: x[1:][0],
}


@pytest.mark.parametrize("mix", MIXED_AND_ALLOWED.values(), ids=MIXED_AND_ALLOWED)
def test_numbers_on_the_host_take_part_without_a_wait(gpu, mix):
    x = there(3)
    gpu.reset()
    mix(x)
    assert gpu.counts() == {"waits": 0, "to_device": 0, "to_host": 0}


WAITS = {
    "item": (lambda x: x[0].item(), {"waits": 1}),
    "a condition": (lambda x: bool(x[0] > 0), {"waits": 1}),
    "a number of Python made of it": (lambda x: float(x[0]) + int(x[1]), {"waits": 2}),
    "a range": (lambda x: range(x[0].long()), {"waits": 1}),
    "equal": (lambda x: torch.equal(x, x), {"waits": 1}),
    "nonzero": (lambda x: x.nonzero(), {"waits": 1}),
    "where, which is nonzero": (lambda x: torch.where(x > 0), {"waits": 1}),
    "a selection by a mask": (lambda x: x[x > 0], {"waits": 1}),
    "an assignment of a tensor to a mask": (lambda x: x.__setitem__(x > 0, x.clone()), {"waits": 1}),
    "unique": (lambda x: x.unique(), {"waits": 1}),
    "synchronize": (lambda x: torch.cuda.synchronize(), {"waits": 1}),
    "a list": (lambda x: x.tolist(), {"waits": 1, "to_host": 1}),
    "a copy to the host": (lambda x: x.cpu(), {"waits": 1, "to_host": 1}),
    "a copy into the host's": (lambda x: torch.zeros(3).copy_(x), {"waits": 1, "to_host": 1}),
    "a copy to the device": (lambda x: HOST.to("cuda"), {"waits": 1, "to_device": 1}),
    "a copy to the device by its name": (lambda x: HOST.cuda(), {"waits": 1, "to_device": 1}),
    "a copy to the device of another": (lambda x: HOST.to(x), {"waits": 1, "to_device": 1}),
    "a tensor made of a list": (lambda x: torch.tensor([1, 2], device=x.device), {"waits": 1, "to_device": 1}),
    "indices on the host": (lambda x: x[INDEX], {"waits": 1, "to_device": 1}),
    "a copy that does not block": (lambda x: HOST.pin_memory().to("cuda", non_blocking=True), {"to_device": 1}),
    "a copy into it that does not block": (lambda x: x.copy_(HOST, non_blocking=True), {"to_device": 1}),
    "other types and copies there": (lambda x: x.long().to("cuda").clone().double().copy_(x), {}),
    "what is made there": (
        lambda x: torch.zeros(3, device=x.device) + x.new_ones(3),
        {},
    ),
    "scans, sorts and sums": (lambda x: (x.cumsum(0), x.sort(), x.sum(), x.max(), x.argmax()), {}),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(("act", "expected"), WAITS.values(), ids=WAITS)
def test_what_the_host_waits_for_is_counted_and_nothing_else(gpu, act, expected, inference):
    x = there(3)
    gpu.reset()
    with torch.inference_mode(inference):
        act(x.clone() if inference else x)
    assert gpu.counts() == {"waits": 0, "to_device": 0, "to_host": 0} | expected


def test_a_copy_to_the_host_that_does_not_block_is_refused(gpu):
    with pytest.raises(NotImplementedError, match="when is it there"):
        there(3).to("cpu", non_blocking=True)


def test_gradients_are_those_of_the_cpu_and_stay_there(gpu):
    module = torch.nn.Linear(4, 2)
    inputs, expected = torch.randn(3, 4), torch.nn.Linear(4, 2)
    expected.load_state_dict(module.state_dict())
    expected(inputs).square().sum().backward()
    module.to("cuda")
    module(inputs.to("cuda")).square().sum().backward()
    assert module.weight.device == module.weight.grad.device == torch.device("cuda", 0)
    torch.testing.assert_close(module.weight.grad.cpu(), expected.weight.grad)


def test_a_view_is_written_through(gpu):
    x = there(3)
    x[1:] = 5
    x.view(1, 3)[0, 0] = 7
    assert x.tolist() == [7, 5, 5]


def test_the_device_meta_stays_what_it_is(gpu):
    for made in (torch.zeros(3, device="meta"), torch.empty(3, device=torch.device("meta"))):
        assert made.device.type == "meta"
        assert (made + 1).device.type == "meta"


def test_nothing_is_left_once_it_is_over():
    with CudaStandIn():
        x = there(3)
    assert not torch.cuda.is_available()
    assert torch.arange(3).device.type == "cpu"
    with pytest.raises(AssertionError, match="outside of it"):
        x + 1


def test_default_devices_work_within_and_afterwards():
    _device_constructors.cache_clear()
    with CudaStandIn(), torch.device("meta"):
        assert torch.empty(1).device.type == "meta"
    with torch.device("meta"):
        assert torch.empty(1).device.type == "meta"
