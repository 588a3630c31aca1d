import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.errors import ConfigurationError
from blt.training.schedules import CosineConfig, WSDConfig


def factors(schedule, num_steps):
    return [schedule.factor(step, num_steps=num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("schedule", [CosineConfig(warmup_steps=10), WSDConfig(warmup_steps=10)])
def test_the_rate_rises_in_equal_steps_to_its_peak(schedule):
    assert factors(schedule, 100)[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors(schedule, 100)) == 1.0


def test_the_cosine_is_at_half_way_in_the_middle_and_falls_all_the_time():
    schedule = CosineConfig(warmup_steps=10, final_factor=0.2)
    after = factors(schedule, 110)[10:]
    assert after[50] == pytest.approx(0.6)
    assert after == sorted(after, reverse=True)
    assert schedule.factor(110, num_steps=110) == pytest.approx(0.2)


def test_warm_up_stable_decay_stays_flat_and_then_falls_in_equal_steps():
    schedule = WSDConfig(warmup_steps=10, decay_fraction=0.4)
    after = factors(schedule, 100)
    assert after[10:61] == [1.0] * 51
    assert after[60:] == pytest.approx([1 - step / 40 for step in range(40)])
    assert schedule.factor(100, num_steps=100) == 0.0


def test_a_stable_run_may_be_made_longer_without_changing_its_past():
    schedule = WSDConfig(warmup_steps=10, decay_fraction=0.4)
    assert factors(schedule, 100)[:60] == factors(schedule, 200)[:60]


@settings(deadline=None)
@given(
    warmup_steps=st.integers(0, 50), final_factor=st.floats(0, 1), num_steps=st.integers(1, 60), step=st.integers(0, 60)
)
def test_a_factor_lies_between_0_and_1_whatever_the_numbers(warmup_steps, final_factor, num_steps, step):
    for kind in (CosineConfig, WSDConfig):
        factor = kind(warmup_steps=warmup_steps, final_factor=final_factor).factor(
            min(step, num_steps), num_steps=num_steps
        )
        assert 0 <= factor <= 1


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (CosineConfig, {"warmup_steps": -1}, "warmup_steps: -1; at least 0"),
        (WSDConfig, {"final_factor": 1.5}, "final_factor: 1.5; from 0 to 1"),
        (WSDConfig, {"decay_fraction": 0.0}, "decay_fraction: 0.0; above 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(kind, fields, said):
    with pytest.raises(ConfigurationError, match=said):
        kind(**fields)
