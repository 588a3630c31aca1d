"""Times, speed and energy: what must hold whatever the figures of a machine are, and one case worked out by hand."""

from dataclasses import replace

import pytest

from blt.model import entropy_preset, preset
from blt.planning import MachineConfig, Workload, estimate, machine
from blt.planning.weights import flops_of_muon

H100 = machine("h100-sxm")
WORKLOAD = Workload(model=preset("blt-1b"), batch_size=4096, sequence_length=4096, parallel="fsdp")


def test_one_rank_takes_what_flops_and_memory_traffic_take():
    slow = MachineConfig(
        memory=1e12,
        float32_flops=1e12,
        utilisation=0.5,
        memory_bandwidth=1e11,
        bandwidth_inside=1.0,
        bandwidth_between=1.0,
        watts=100.0,
    )
    workload = Workload(model=preset("tiny"), batch_size=8, sequence_length=256, bfloat16=False)
    found = estimate(workload, slow, ranks=1)
    flops, parameters = workload.cost.training_flops * 8 * 256, workload.cost.num_parameters
    seconds = flops / 5e11 + 28 * parameters / 1e11
    assert found.step_seconds() == found.step_seconds(overlap=False) == pytest.approx(seconds)
    assert found.communication_share() == 0
    assert found.bytes_per_second() == pytest.approx(8 * 256 / seconds)
    assert found.kilowatt_hours(1e6) == pytest.approx(100 * 1e6 * seconds / (8 * 256) / 3.6e6)
    assert found.model_flops_utilisation() == pytest.approx(0.5 * (flops / 5e11) / seconds)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_overlap_hides_what_fits_beside_computing_and_never_more(parallel):
    # by a network so slow that nothing is hidden whole, by one so fast that nearly all is, and by one between
    shares = []
    for factor in (1e-3, 1.0, 1e3):
        on = replace(H100, bandwidth_inside=factor * 450e9, bandwidth_between=factor * 50e9)
        found = estimate(replace(WORKLOAD, parallel=parallel), on, ranks=64)
        computing = found.computing_seconds
        assert computing < found.step_seconds() <= found.step_seconds(overlap=False)
        assert found.step_seconds(overlap=False) == pytest.approx(computing + found.communication_seconds)
        assert found.step_seconds() >= found.communication_seconds  # ranks exchange all of it in that time
        shares.append(found.communication_share())
    assert shares[0] > 0.5 > shares[1] > shares[2]
    assert shares[2] < 0.01


def test_ddp_overlaps_with_the_backward_pass_of_the_last_part_alone():
    slow = replace(H100, bandwidth_inside=45e9, bandwidth_between=5e9)
    whole, parts = (estimate(replace(WORKLOAD, parallel="ddp", accumulation=count), slow, ranks=64) for count in (1, 8))
    assert parts.communication_seconds == whole.communication_seconds
    hidden = [found.communication_seconds - found.exposed_seconds for found in (whole, parts)]
    assert hidden[1] <= parts.backward_seconds / 8 * 1.001 < hidden[0]


def test_more_ranks_are_faster_and_cost_more_energy():
    found = [estimate(replace(WORKLOAD, shards=8), H100, ranks=ranks) for ranks in (8, 64, 512, 4096)]
    speeds = [each.bytes_per_second() for each in found]
    energies = [each.kilowatt_hours(1e12) for each in found]
    assert speeds == sorted(speeds)
    assert energies == sorted(energies)
    assert speeds[1] == pytest.approx(8 * speeds[0], rel=0.05)
    assert speeds[3] < 0.8 * 512 * speeds[0]


def test_recomputation_costs_about_a_third_of_the_time():
    plain, again = (estimate(replace(WORKLOAD, recompute=recompute), H100, ranks=64) for recompute in (False, True))
    assert 1.2 < again.computing_seconds / plain.computing_seconds < 1.34


def test_entropies_are_computed_once_beforehand_in_float32():
    workload = replace(WORKLOAD, entropy_model=entropy_preset("blt-1b"))
    found = estimate(workload, H100, ranks=8)
    assert found.seconds(1e9) == pytest.approx(1e9 / found.bytes_per_second() + found.entropy_seconds(1e9))
    per_byte = workload.cost.entropy_model.flops
    assert found.entropy_seconds(1e9) == pytest.approx(1e9 * per_byte / (8 * 0.4 * 67e12))


def test_owners_share_out_the_work_of_muon():
    alone, divided = (
        estimate(replace(WORKLOAD, parallel=way, optimizer="muon"), H100, ranks=64) for way in ("ddp", "fsdp")
    )
    assert divided.optimizer_seconds < alone.optimizer_seconds / 10
    assert flops_of_muon((2, 3), num_iterations=1) == 4 * 4 * 3 + 2 * 8 == flops_of_muon((3, 2), num_iterations=1)


def test_without_bfloat16_built_in_the_peak_is_that_of_float32():
    assert replace(H100, bfloat16_flops=None).flops(bfloat16=True) == H100.flops(bfloat16=False) == 67e12
    slow, fast = (estimate(replace(WORKLOAD, bfloat16=is_fast), H100, ranks=8) for is_fast in (False, True))
    assert slow.forward_seconds / fast.forward_seconds == pytest.approx(989 / 67)
