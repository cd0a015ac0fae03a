"""Ranges of `SamplingSettings`, and which settings need one another."""

import pytest

from stage2_prior import SamplingSettings

NAN, INF = float("nan"), float("inf")
LINEAR = {"guidance_scale": 2.0, "guidance_schedule": "linear"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature .*got -1.0"),
        ({"temperature": INF}, "temperature .*got inf"),
        ({"temperature": NAN}, "temperature .*got nan"),
        ({"first_temperature": 0.0}, "first_temperature .*got 0.0"),
        ({"first_temperature": INF}, "first_temperature .*got inf"),
        (
            {"first_temperature": 1.1, "temperature": 0.0},
            "first_temperature 1.1 .*temperature above 0",
        ),
        ({"top_k": 0}, "top_k .*got 0"),
        ({"top_p": 0.0}, "top_p .*got 0.0"),
        ({"top_p": 1.1}, "top_p .*got 1.1"),
        ({"guidance_scale": -1.0}, "guidance_scale .*got -1"),
        ({"guidance_scale": INF}, "guidance_scale .*got inf"),
        ({"guidance_scale": 1e7}, "guidance_scale .*1,000,000, got 10000000.0"),
        ({"guidance_schedule": "up"}, "guidance_schedule .*linear.*got up"),
        ({"guidance_schedule": "linear", "guidance_power": 0.0}, "guidance_power .*got 0.0"),
        ({"guidance_schedule": "cosine", "guidance_power": INF}, "guidance_power .*got inf"),
        ({"guidance_schedule": "linear"}, "guidance_schedule linear .*guidance_scale"),
        ({"guidance_power": 2.0}, "guidance_power 2.0 .*guidance_schedule"),
        ({"first_guidance_scale": 0.9}, "first_guidance_scale 0.9 .*guidance_schedule"),
        ({**LINEAR, "first_guidance_scale": -0.1}, "first_guidance_scale .*got -0.1"),
        ({**LINEAR, "first_guidance_scale": 1e7}, "first_guidance_scale .*1,000,000, got 1"),
        ({"num_steps": 0}, "num_steps .*got 0"),
        ({"step_order": "any"}, "step_order .*confidence.*got any"),
        ({"precision": "half"}, "precision .*bfloat16.*got half"),
        ({"compile": "yes"}, "compile .*auto.*got yes"),
    ],
    ids=str,
)
def test_settings_refuse_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**values)


def test_settings_accept_the_ends_of_their_ranges():
    values = {"temperature": 0.0, "top_k": 1, "top_p": 1.0, "guidance_scale": 0.0, "num_steps": 1}
    settings = SamplingSettings(**values)
    assert {name: getattr(settings, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "guided"),
    [
        ({}, False),
        ({"guidance_scale": 0.0}, True),
        ({"guidance_schedule": "linear", "first_guidance_scale": 3.0}, True),
    ],
)
def test_settings_are_guided_where_any_scale_is_not_one(values, guided):
    assert SamplingSettings(**values).guided == guided
