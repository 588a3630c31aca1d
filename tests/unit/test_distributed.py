import pytest
import torch
from torch import nn

from blt.distributed import World, choose_device, joined_world
from blt.errors import ConfigurationError


def test_a_process_without_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as world:
        assert world == World()
        assert world.is_main
        assert world.sum(3) == 3
        world.wait()
        weight = nn.Parameter(torch.ones(2))
        world.sum_gradients([weight])
        assert weight.grad is None


def test_a_device_is_what_its_name_says():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_a_device_that_is_not_there_is_one_clear_line(name):
    with pytest.raises(ConfigurationError, match=rf"device: '{name}' cannot be used \(.*\); try 'cpu' or 'auto'"):
        choose_device(name)
