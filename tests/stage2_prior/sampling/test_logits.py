"""From logits to a code, against slow references in numpy and at the edges."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import transformed_probabilities

from stage2_prior import SamplingSettings
from stage2_prior.sampling.logits import (
    NO_CODE,
    guidance_scales,
    guide,
    guide_and_sample,
    sample_categorical,
    sample_codes,
    select_logits,
    temperatures,
    top_k_filter,
    top_p_filter,
)

ALMOST_ONE = 1 - 2.0**-53
INF = float("inf")


def rows(batch, size, seed=0):
    return 2 * torch.randn(
        batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def sampled_probabilities(logits, **how):
    """Shares of the codes over 20,000 evenly spaced numbers: exact to 1 / 20,000 per code."""
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    codes = sample_codes(logits.expand(20_000, -1), uniform, **how)
    return np.bincount(codes.numpy(), minlength=len(logits)) / 20_000


@pytest.mark.parametrize(("scale", "expected"), [(0, [3, 4]), (1, [1, 2]), (3, [-3, -2])])
def test_guide_goes_from_unconditional_to_conditional_and_on(scale, expected):
    conditional, unconditional = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    assert guide(conditional, unconditional, scale).tolist() == [expected]


@pytest.mark.parametrize(
    ("schedule", "power", "first", "last", "num_codes", "expected"),
    [
        ("constant", 1, 1, 3, 4, [3, 3, 3, 3]),
        ("linear", 1, 1, 0, 3, [1, 0.5, 0]),
        ("linear", 1, 0.5, 3.5, 4, [0.5, 1.5, 2.5, 3.5]),
        ("linear", 1, 1, 3, 1, [3]),
        ("linear", 2, 1, 17, 5, [1, 2, 5, 10, 17]),
        ("linear", 0.5, 1, 3, 5, [1, 2, 1 + 2**0.5, 1 + 3**0.5, 3]),
        # The cosines of 0, 60, 120 and 180 degrees are 1, 1/2, -1/2 and -1.
        ("cosine", 1, 1, 5, 4, [1, 2, 4, 5]),
        ("cosine", 1, 1, 5, 3, [1, 3, 5]),
        # (1/2)^2 of 180 degrees are 45.
        ("cosine", 2, 1, 5, 3, [1, 3 - 2**0.5, 5]),
    ],
)
def test_guidance_scales_follow_their_schedule(schedule, power, first, last, num_codes, expected):
    settings = SamplingSettings(
        guidance_scale=last,
        guidance_schedule=schedule,
        first_guidance_scale=first,
        guidance_power=power,
    )
    # Some rounded numbers of size 20 in float64.
    assert guidance_scales(settings, num_codes) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(
    ("first", "last", "num_codes", "expected"),
    [
        (None, 0.7, 3, [0.7, 0.7, 0.7]),
        (None, 0, 2, [0, 0]),
        (1, 3, 5, [1, 1.5, 2, 2.5, 3]),
        (2, 0.5, 4, [2, 1.5, 1, 0.5]),
        (1, 3, 1, [3]),
    ],
)
def test_temperatures_go_in_even_steps(first, last, num_codes, expected):
    settings = SamplingSettings(first_temperature=first, temperature=last)
    assert temperatures(settings, num_codes) == pytest.approx(expected, abs=1e-13)


def test_top_k_keeps_the_k_largest_and_their_values():
    logits = rows(6, 9)
    for k, row in itertools.product((1, 2, 5, 8), logits.numpy()):
        result = top_k_filter(torch.tensor(row)[None], k)[0]
        largest = set(np.argsort(row)[-k:].tolist())
        expected = [value if code in largest else -INF for code, value in enumerate(row)]
        assert result.tolist() == expected


def test_top_k_of_all_codes_or_more_changes_nothing():
    logits = rows(2, 9)
    assert all(torch.equal(top_k_filter(logits, k), logits) for k in (9, 10, 10**6))


def test_top_k_keeps_all_that_tie_with_the_last():
    kept = top_k_filter(torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0]]), 2)
    assert kept.tolist() == [[1, 3, 1, -INF, 1]]


def test_top_k_keeps_impossible_codes_impossible():
    kept = top_k_filter(torch.tensor([[-INF, 3.0, -INF, 1.0]]), 3)
    assert kept.tolist() == [[-INF, 3, -INF, 1]]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-9, [0, 1, 0, 0]),
        (0.49, [0, 1, 0, 0]),
        (0.51, [0, 1, 0, 1]),
        (0.74, [0, 1, 0, 1]),
        (0.76, [1, 1, 0, 1]),
        (0.88, [1, 1, 1, 1]),
        (1.0, [1, 1, 1, 1]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p, expected):
    logits = torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64).log()
    kept = top_p_filter(logits, p)
    assert (kept > -INF).int().tolist() == [expected]
    assert torch.equal(kept[kept > -INF], logits[kept > -INF])


def test_top_p_takes_the_lower_of_two_equal_codes():
    kept = top_p_filter(torch.zeros(1, 4, dtype=torch.float64), 0.5)
    assert kept.tolist() == [[0, 0, -INF, -INF]]


def test_top_p_of_one_keeps_codes_too_rare_to_count():
    # The likely codes' probabilities sum to 1 in float64 already.
    logits = torch.tensor([[0.0, 0.0, -100.0, -700.0]], dtype=torch.float64)
    assert torch.equal(top_p_filter(logits, 1.0), logits)


def test_top_p_keeps_impossible_codes_impossible():
    kept = top_p_filter(torch.tensor([[-INF, 0.0, -INF, 0.0]], dtype=torch.float64), 0.99)
    assert kept.tolist() == [[-INF, 0, -INF, 0]]


def test_sample_categorical_inverts_the_distribution_function():
    logits = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).log().expand(6, -1)
    uniform = torch.tensor([0, 0.24, 0.26, 0.74, 0.76, ALMOST_ONE], dtype=torch.float64)
    assert sample_categorical(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "logits",
    [
        [-INF, -INF, 0.0, -INF],
        [-INF, 1.0, -INF, 0.0, -INF, -INF],
        [0.0, -INF, -INF],
        [-INF, -INF, 0.0],
        [-800.0, 0.0, -800.0],
        [0.0] * 10,  # whose probabilities sum to less than 1
    ],
)
def test_sample_categorical_never_takes_a_code_of_probability_zero(logits):
    uniform = torch.tensor([0.0, 2.0**-53, 0.5, ALMOST_ONE], dtype=torch.float64)
    codes = sample_categorical(torch.tensor([logits] * 4, dtype=torch.float64), uniform)
    assert all(logits[code] > -700 for code in codes.tolist())


@given(
    logits=st.lists(st.floats(-50, 50) | st.just(-INF), min_size=1, max_size=40).filter(
        lambda values: max(values) > -INF
    ),
    uniform=st.sampled_from([0.0, 2.0**-53, 0.5, ALMOST_ONE]) | st.floats(0, ALMOST_ONE),
    temperature=st.sampled_from([0.0, 1e-310, 1e-3, 1.0, 1e300]),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.none() | st.floats(1e-9, 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_sample_codes_always_gives_a_possible_code(logits, uniform, temperature, top_k, top_p):
    code = sample_codes(
        torch.tensor([logits]),
        torch.tensor([uniform], dtype=torch.float64),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    ).item()
    assert logits[code] > -INF


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.7},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.8},
    ],
    ids=str,
)
def test_sample_codes_follows_the_transformed_probabilities(sampling):
    logits = rows(1, 8)[0]
    expected = transformed_probabilities(logits.numpy(), **sampling)
    actual = sampled_probabilities(logits, **{"temperature": 1.0, **sampling})
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1.5 / 20_000)


def test_sample_codes_at_temperature_zero_takes_the_first_likeliest():
    logits = torch.tensor([[0.0, 2.0, -INF, 2.0]] * 3)
    uniform = torch.tensor([0.0, 0.5, ALMOST_ONE], dtype=torch.float64)
    codes = sample_codes(logits, uniform, temperature=0.0, top_k=3, top_p=0.1)
    assert codes.tolist() == [1, 1, 1]


def test_sample_codes_takes_a_temperature_that_is_a_tensor():
    logits, uniform = rows(50, 8), torch.rand(50, dtype=torch.float64)
    for temperature in (0.7, 1.0):
        expected = sample_codes(logits, uniform, temperature=temperature)
        tensor = torch.tensor(temperature, dtype=torch.float64)
        assert torch.equal(sample_codes(logits, uniform, temperature=tensor), expected)


def test_sample_codes_keeps_its_rows_apart():
    logits = rows(5, 8)
    uniform = torch.rand(5, dtype=torch.float64)
    sample_rows = partial(sample_codes, temperature=0.8, top_k=5, top_p=0.9)
    singly = [sample_rows(logits[i : i + 1], uniform[i : i + 1]).item() for i in range(5)]
    assert sample_rows(logits, uniform).tolist() == singly


def test_select_logits_takes_each_row_from_its_grid_and_gives_codes_beyond_no_chance():
    narrow, wide = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.full((2, 3), 9.0)
    selected = select_logits([narrow, wide], torch.tensor([1, 0]))
    beyond = torch.tensor(NO_CODE).item()  # as float32
    assert selected.tolist() == [[9, 9, 9], [3, 4, beyond]]
    guided = guide(selected[1:], selected[1:] - 1, 3.0)
    assert guided.softmax(dim=-1)[0, 2] == 0  # and not NaN


def test_guide_and_sample_guides_the_first_half_away_from_the_second():
    conditional, unconditional = rows(20, 8, seed=1), rows(20, 8, seed=2)
    uniform = torch.rand(20, dtype=torch.float64)
    sampling = SamplingSettings(guidance_scale=5.0, top_k=3, top_p=0.9)
    codes, logits = guide_and_sample(
        torch.cat([conditional, unconditional]),
        uniform,
        sampling,
        guidance_scale=2.5,
        temperature=0.7,
    )
    expected = 2.5 * conditional - 1.5 * unconditional
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert torch.equal(codes, sample_codes(expected, uniform, temperature=0.7, top_k=3, top_p=0.9))
