import pytest

from pipelines.training.schedule import learning_rate_factor


def factors(total_steps, warmup_fraction, final_factor):
    return [
        learning_rate_factor(
            step,
            total_steps=total_steps,
            warmup_fraction=warmup_fraction,
            final_factor=final_factor,
        )
        for step in range(total_steps)
    ]


def test_schedule_rises_linearly_to_one():
    assert factors(40, 0.1, 0.0)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_schedule_passes_the_known_points_of_a_cosine():
    # After 4 steps of warm-up a third, a half and two thirds of the 24 steps of cosine are over
    # at steps 12, 16 and 20, where half of one plus the cosine is 3/4, 1/2 and 1/4.
    curve = factors(28, 4 / 28, 0.2)
    assert [curve[12], curve[16], curve[20]] == pytest.approx([0.8, 0.6, 0.4])


def test_schedule_without_warm_up_starts_at_the_peak_and_wastes_no_step_on_a_rate_of_zero():
    assert factors(10, 0.0, 0.0)[0] == 1.0
    assert min(factors(10, 0.0, 0.0)) > 0
    assert factors(10, 0.0, 1.0) == [1.0] * 10


def test_schedule_of_warm_up_only_ends_at_the_peak():
    assert factors(4, 1.0, 0.0) == [0.25, 0.5, 0.75, 1.0]
