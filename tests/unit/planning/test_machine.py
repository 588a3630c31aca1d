from dataclasses import replace

import pytest

from blt.errors import ConfigurationError
from blt.planning import MACHINES, machine


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_names_the_source_of_its_figures(name):
    found = machine(name)
    assert "NVIDIA" in found.source
    assert found.float32_flops < found.bfloat16_flops
    assert found.bandwidth_between < found.bandwidth_inside < found.memory_bandwidth
    assert found.latency_inside < found.latency_between


def test_an_unknown_machine_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"machine 'h100' is none of h100-sxm, .* TOML file"):
        machine("h100")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": 0.0}, "memory: 0.0; above 0"),
        ({"watts": float("nan")}, "watts: nan; above 0"),
        ({"bfloat16_flops": -1.0}, "bfloat16_flops: -1.0; above 0"),
        ({"utilisation": 1.5}, "utilisation: 1.5; a share"),
        ({"usable_memory": 0.0}, "usable_memory: 0.0; a share"),
        ({"latency_between": -1.0}, "latency_between: -1.0; at least 0"),
        ({"ranks_per_node": 0}, "ranks_per_node: 0; at least 1"),
    ],
)
def test_figures_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(machine("h100-sxm"), **fields)
