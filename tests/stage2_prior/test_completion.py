"""`CodePrior.complete`: known codes are kept, unknown ones sampled given them."""

import pytest
import torch
from tiny_priors import (
    KINDS,
    SEVERAL,
    SQUARE,
    VARIANTS,
    as_context,
    as_grids,
    flat,
    make_prior,
    random_context,
    random_labels,
    random_sequence,
)

from stage2_prior import SamplingSettings

STEPS = [{}, {"num_steps": 3}, {"num_steps": 3, "step_order": "confidence"}]
COUNT = 9
VARIANT = VARIANTS["transformer-any_order_context"]


@pytest.fixture
def prior():
    return VARIANT.make(3)


@pytest.fixture(params=STEPS, ids=str)
def settings(request):
    return SamplingSettings(**request.param, guidance_scale=2.0)


@pytest.fixture
def known():
    """bool (B, L): images with 0 to 8 known codes."""
    generator = torch.Generator().manual_seed(5)
    turns = torch.rand(COUNT, 8, generator=generator).argsort(dim=1)
    return turns < torch.arange(COUNT)[:, None]


def complete(prior, sequence, known, settings, **changes):
    codes = prior.complete(
        as_grids(sequence, SEVERAL),
        as_grids(known, SEVERAL),
        random_labels(3, len(sequence)),
        settings,
        context=as_context(random_context(VARIANT.context, len(sequence)), VARIANT.context),
        **changes,
    )
    return flat(codes)


def test_known_codes_are_kept_and_others_do_not_matter(prior, settings, known):
    sequence = random_sequence(SEVERAL, COUNT)
    completed = complete(prior, sequence, known, settings)
    assert torch.equal(completed[known], sequence[known])
    assert not torch.equal(completed, sequence)
    unseen = torch.where(known, sequence, 0)
    assert torch.equal(complete(prior, unseen, known, settings), completed)


def test_completion_does_not_depend_on_the_batch_size(prior, settings):
    sequence, known = random_sequence(SEVERAL, COUNT), torch.arange(COUNT * 8).view(COUNT, 8) % 3
    expected = complete(prior, sequence, known > 0, settings)
    for batch_size in (1, 4):
        actual = complete(prior, sequence, known > 0, settings, batch_size=batch_size)
        assert torch.equal(actual, expected)


def test_completing_nothing_is_sampling_and_completing_everything_changes_nothing(prior, settings):
    sequence, nothing = random_sequence(SEVERAL, COUNT), torch.zeros(COUNT, 8, dtype=torch.bool)
    sampled = prior.sample(
        COUNT,
        random_labels(3, COUNT),
        settings,
        context=as_context(random_context(VARIANT.context, COUNT), VARIANT.context),
        seed=5,
        first_index=7,
    )
    completed = complete(prior, sequence, nothing, settings, seed=5, first_index=7)
    assert torch.equal(completed, flat(sampled))
    assert torch.equal(complete(prior, sequence, ~nothing, settings), sequence)


@pytest.mark.parametrize("kind", KINDS)
def test_prior_of_one_order_refuses_to_complete(kind):
    prior, codes = make_prior(kind, SQUARE), as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(ValueError, match=r"completing known codes .*any_order"):
        prior.complete(codes, (codes[0] > 0,))
    with pytest.raises(ValueError, match=r"several codes at a time .*any_order"):
        prior.sample(1, settings=SamplingSettings(num_steps=2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"known": ()}, ValueError, "known .*1 grids, got 0"),
        ({"known": torch.ones(2, 2, 2)}, ValueError, "known .*1 grids, got Tensor"),
        ({"known": (torch.ones(2, 2, 2),)}, TypeError, "known .*bool .*got torch.float32"),
        ({"known": (torch.ones(2, 2, 3) > 0,)}, ValueError, r"known .*\(B, 2, 2\), got \(2, 2, 3"),
        ({"known": (torch.ones(3, 2, 2) > 0,)}, ValueError, "known .*2 rows .*got 3"),
        ({"codes": (torch.full((2, 2, 2), 3),)}, ValueError, r"codes .*\[0, 3\), got 3 to 3"),
        (
            {"order": torch.arange(4), "settings": SamplingSettings(num_steps=2)},
            ValueError,
            "num_steps .*order",
        ),
        ({"order": torch.arange(3)}, ValueError, r"order .*\(4,\) or \(2, 4\), got \(3,\)"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels .*\(2,\), got \(1,\)"),
        ({"seed": -1}, ValueError, "seed .*got -1"),
    ],
    ids=str,
)
def test_complete_refuses_what_does_not_fit(changes, error, message):
    arguments = {
        "codes": (torch.zeros(2, 2, 2, dtype=torch.int64),),
        "known": (torch.ones(2, 2, 2, dtype=torch.bool),),
        **changes,
    }
    with pytest.raises(error, match=message):
        make_prior("transformer", SQUARE, 3, any_order=True).complete(**arguments)


def test_grids_of_known_must_have_one_batch_size():
    prior = make_prior("transformer", SEVERAL, any_order=True)
    codes = as_grids(random_sequence(SEVERAL, 2), SEVERAL)
    known = (codes[0] > 0, codes[1][:1] > 0)
    with pytest.raises(ValueError, match=r"known .*one batch size, got \[2, 1\]"):
        prior.complete(codes, known)
