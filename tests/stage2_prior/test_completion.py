"""Completing known codes: one by one exactly from the conditional, or several at a time."""

import itertools
import re

import numpy as np
import pytest
import torch
from naive_drawing import draw_naively, draw_naively_by_confidence
from references import chi_square_deviation, splitmix_uniform
from tiny_priors import (
    all_sequences,
    as_grids,
    make_prior,
    network_labels,
    random_labels,
    random_sequence,
)

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.sampling.ordering import step_sizes

SQUARE = (GridSpec(2, 2, 3),)
SEVERAL = (GridSpec(1, 2, 4), GridSpec(2, 3, 5))
CONTEXT = (GridSpec(2, 1, 4), GridSpec(1, 1, 3))
COUNT = 5
SEED, FIRST = 7, 40

CASES = [
    pytest.param(grids, num_classes, context_grids, settings, id=name)
    for name, grids, num_classes, context_grids, settings in [
        ("plain", (GridSpec(2, 4, 5),), None, (), {}),
        ("several", SEVERAL, None, (), {"temperature": 0.7}),
        ("context", SEVERAL, 3, CONTEXT, {"top_k": 3}),
        ("guided", SEVERAL, 3, (), {"guidance_scale": 2.0, "top_p": 0.9}),
        (
            "all",
            SEVERAL,
            3,
            CONTEXT,
            {
                "guidance_scale": 2.5,
                "guidance_schedule": "cosine",
                "first_guidance_scale": 0.5,
                "guidance_power": 2.0,
                "first_temperature": 0.7,
                "temperature": 1.1,
            },
        ),
    ]
]


def any_order_prior(grids, num_classes=None, **changes):
    return make_prior("transformer", grids, num_classes, any_order=True, **changes)


def random_known(grids, batch, share=0.5):
    """bool (B, L)."""
    num_codes = sum(grid.num_codes for grid in grids)
    generator = torch.Generator().manual_seed(5)
    return torch.rand(batch, num_codes, generator=generator) < share


def uniform_block(num_codes, index, block):
    """float64 (1, L), by the documented formula."""
    row = [splitmix_uniform(SEED, FIRST + index, block * num_codes + p) for p in range(num_codes)]
    return torch.tensor([row], dtype=torch.float64)


class Request:
    """Codes, masks, labels and context for `complete`, and what a naive sampler needs of them."""

    def __init__(self, grids, num_classes, context_grids):
        self.prior = any_order_prior(grids, num_classes, context_grids=context_grids)
        self.sequence = random_sequence(grids, COUNT)
        self.known = random_known(grids, COUNT)
        self.labels = random_labels(num_classes, COUNT)
        self.context = random_sequence(context_grids, COUNT, seed=9) if context_grids else None

    def complete(self, settings, **changes):
        grids = self.prior.grids
        completed = self.prior.complete(
            as_grids(self.sequence, grids),
            as_grids(self.known, grids),
            self.labels,
            settings,
            context=self.context_grids(),
            seed=SEED,
            first_index=FIRST,
            **changes,
        )
        return torch.cat([grid.flatten(1) for grid in completed], dim=1)

    def context_grids(self):
        return None if self.context is None else as_grids(self.context, self.prior.context_grids)

    def naive_arguments(self, i, order):
        """Prior, codes, label, context and known positions of image i, and its open ones."""
        known = [p for p in order if self.known[i, p]]
        opened = [p for p in order if not self.known[i, p]]
        labels = network_labels(self.prior, self.labels, COUNT)[i : i + 1]
        context = None if self.context is None else self.context[i : i + 1]
        return (self.prior, self.sequence[i : i + 1], labels, context, known), opened


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("grids", "num_classes", "context_grids", "settings"), CASES)
def test_completion_equals_the_naive_sampler(grids, num_classes, context_grids, settings, reverse):
    request = Request(grids, num_classes, context_grids)
    settings = SamplingSettings(**settings)
    num_codes = request.prior.num_codes
    order = list(range(num_codes))[:: -1 if reverse else 1]
    actual = request.complete(settings, order=torch.tensor(order) if reverse else None)
    for i in range(COUNT):
        arguments, opened = request.naive_arguments(i, order)
        uniform = uniform_block(num_codes, i, 0)
        expected = draw_naively(*arguments, [[p] for p in opened], settings, uniform)
        assert torch.equal(actual[i : i + 1], expected)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 100])
@pytest.mark.parametrize(("grids", "num_classes", "context_grids", "settings"), CASES)
def test_random_steps_equal_the_naive_sampler(
    grids, num_classes, context_grids, settings, num_steps
):
    # 100 steps are more than there are codes: one by one.
    request = Request(grids, num_classes, context_grids)
    settings = SamplingSettings(**settings, num_steps=num_steps)
    num_codes = request.prior.num_codes
    actual = request.complete(settings)
    for i in range(COUNT):
        turns = uniform_block(num_codes, i, 1)[0].tolist()
        order = sorted(range(num_codes), key=turns.__getitem__)
        arguments, opened = request.naive_arguments(i, order)
        rest = iter(opened)
        steps = [list(itertools.islice(rest, n)) for n in step_sizes(len(opened), num_steps)]
        uniform = uniform_block(num_codes, i, 0)
        expected = draw_naively(*arguments, steps, settings, uniform)
        assert torch.equal(actual[i : i + 1], expected)


@pytest.mark.parametrize("num_steps", [1, 3, 100])
@pytest.mark.parametrize(("grids", "num_classes", "context_grids", "settings"), CASES)
def test_confident_steps_equal_the_naive_sampler(
    grids, num_classes, context_grids, settings, num_steps
):
    request = Request(grids, num_classes, context_grids)
    settings = SamplingSettings(**settings, num_steps=num_steps, step_order="confidence")
    num_codes = request.prior.num_codes
    actual = request.complete(settings)
    for i in range(COUNT):
        arguments, opened = request.naive_arguments(i, range(num_codes))
        sizes = step_sizes(len(opened), num_steps)
        uniforms = [uniform_block(num_codes, i, 2 + 2 * s) for s in range(len(sizes))]
        numbers = [uniform_block(num_codes, i, 3 + 2 * s) for s in range(len(sizes))]
        gumbels = [-(-u.log()).log() for u in numbers]
        expected = draw_naively_by_confidence(*arguments, sizes, settings, uniforms, gumbels)
        assert torch.equal(actual[i : i + 1], expected)


@pytest.mark.parametrize(
    "known", [(1, 2), (3,), (0, 1, 2), (2, 0)], ids=lambda known: "".join(map(str, known))
)
@pytest.mark.parametrize("reverse", [False, True])
def test_completions_have_the_exact_frequencies_of_the_conditional(known, reverse):
    prior, count = any_order_prior(SQUARE, 3), 20_000
    sequences = all_sequences(SQUARE)
    order = [3, 2, 1, 0] if reverse else [0, 1, 2, 3]
    turns = [p for p in order if p in known] + [p for p in order if p not in known]
    label = torch.full((len(sequences),), 1)
    codes = as_grids(sequences, SQUARE)
    joint = prior.log_prob(codes, label, order=torch.tensor(turns)).exp().numpy()
    given = torch.tensor([2, 1, 0, 2])
    fits = (sequences[:, list(known)] == given[list(known)]).all(dim=1).numpy()
    exact = np.where(fits, joint, 0) / joint[fits].sum()
    mask = torch.tensor([p in known for p in range(4)])
    (drawn,) = prior.complete(
        as_grids(given.expand(count, 4), SQUARE),
        as_grids(mask.expand(count, 4), SQUARE),
        torch.full((count,), 1),
        order=torch.tensor(order),
        seed=3,
        batch_size=5000,
    )
    number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(dim=1)
    counts = np.bincount(number.numpy(), minlength=81)
    # Fixed draws: a right sampler fails less than once in 10,000 such tests.
    assert abs(chi_square_deviation(counts, exact)) < 4


def test_random_steps_one_by_one_have_the_frequencies_of_a_mean_over_orders():
    prior, count = any_order_prior(SQUARE), 20_000
    codes = as_grids(all_sequences(SQUARE), SQUARE)
    orders = [torch.tensor(order) for order in itertools.permutations(range(4))]
    exact = torch.stack([prior.log_prob(codes, order=o).exp() for o in orders]).mean(dim=0)
    (drawn,) = prior.sample(count, settings=SamplingSettings(num_steps=4), batch_size=5000)
    number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(dim=1)
    counts = np.bincount(number.numpy(), minlength=81)
    assert abs(chi_square_deviation(counts, (exact / exact.sum()).numpy())) < 4


STEPS = [{}, {"num_steps": 3}, {"num_steps": 3, "step_order": "confidence"}]


@pytest.mark.parametrize("settings", STEPS, ids=str)
def test_known_codes_are_kept_and_open_ones_drawn_anew(settings):
    request = Request(SEVERAL, 3, CONTEXT)
    completed = request.complete(SamplingSettings(**settings))
    assert torch.equal(completed[request.known], request.sequence[request.known])
    assert not torch.equal(completed, request.sequence)


@pytest.mark.parametrize("settings", STEPS, ids=str)
def test_completion_does_not_depend_on_what_open_places_hold(settings):
    request = Request(SEVERAL, 3, CONTEXT)
    expected = request.complete(SamplingSettings(**settings))
    request.sequence = torch.where(request.known, request.sequence, 0)
    assert torch.equal(request.complete(SamplingSettings(**settings)), expected)


@pytest.mark.parametrize("settings", STEPS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_completion_does_not_depend_on_the_batch_size(settings, batch_size):
    request = Request(SEVERAL, 3, CONTEXT)
    expected = request.complete(SamplingSettings(**settings), batch_size=2)
    actual = request.complete(SamplingSettings(**settings), batch_size=batch_size)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("settings", STEPS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_samples_of_any_order_do_not_depend_on_the_batch_size(settings, batch_size):
    prior = any_order_prior((GridSpec(3, 3, 16),), 4)
    labels, settings = random_labels(4, 40), SamplingSettings(**settings, guidance_scale=2)
    (expected,) = prior.sample(40, labels, settings, seed=3)
    (actual,) = prior.sample(40, labels, settings, seed=3, batch_size=batch_size)
    assert torch.equal(actual, expected)
    (rest,) = prior.sample(29, labels[11:], settings, seed=3, first_index=11)
    assert torch.equal(rest, expected[11:])


@pytest.mark.parametrize("settings", STEPS, ids=str)
def test_completing_what_is_all_known_changes_nothing(settings):
    request = Request(SEVERAL, None, ())
    request.known[:] = True
    assert torch.equal(request.complete(SamplingSettings(**settings)), request.sequence)


def test_completing_nothing_is_sampling():
    request = Request(SEVERAL, 3, CONTEXT)
    request.known[:] = False
    sampled = request.prior.sample(
        COUNT, request.labels, context=request.context_grids(), seed=SEED, first_index=FIRST
    )
    assert torch.equal(request.complete(None), torch.cat([g.flatten(1) for g in sampled], dim=1))


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
@pytest.mark.parametrize(
    "call",
    [
        lambda prior, codes: prior.complete(codes, (codes[0] > 0,)),
        lambda prior, _: prior.sample(1, settings=SamplingSettings(num_steps=2)),
    ],
    ids=["complete", "sample"],
)
def test_prior_of_one_order_refuses_to_complete(kind, call):
    prior = make_prior(kind, SQUARE)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    message = (
        "completing known codes or drawing several codes at a time needs a prior that was trained "
        "in any order, this one knows a single order: train a transformer with any_order"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        call(prior, codes)


def test_prior_that_promises_any_order_must_draw_open_codes(monkeypatch):
    prior = make_prior("pixelcnn", SQUARE)
    monkeypatch.setattr(type(prior), "any_order", True)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    with pytest.raises(AssertionError, match="any_order is true, so there must be draw_open"):
        prior.complete(codes, (codes[0] > 0,))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"known": ()}, ValueError, "known must be a tuple of 1 grids, got 0"),
        (
            {"known": torch.ones(2, 2, 2)},
            ValueError,
            "known must be a tuple of 1 grids, got Tensor",
        ),
        (
            {"known": (torch.ones(2, 2, 2),)},
            TypeError,
            "known must be bool tensors, True for a code to keep, got torch.float32",
        ),
        (
            {"known": (torch.ones(2, 2, 3, dtype=torch.bool),)},
            ValueError,
            "known must have shape (B, 2, 2), got (2, 2, 3)",
        ),
        (
            {"known": (torch.ones(3, 2, 2, dtype=torch.bool),)},
            ValueError,
            "known must have 2 rows like codes, got 3",
        ),
        ({"codes": (torch.full((2, 2, 2), 3),)}, ValueError, "codes must be in [0, 3), got 3 to 3"),
        (
            {"order": torch.arange(4), "settings": SamplingSettings(num_steps=2)},
            ValueError,
            "num_steps draws in an order of its own: leave order or num_steps out",
        ),
        ({"order": torch.arange(3)}, ValueError, "order must have shape (4,) or (2, 4), got (3,)"),
        ({"labels": torch.tensor([0])}, ValueError, "labels must have shape (2,), got (1,)"),
        ({"seed": -1}, ValueError, "seed must be in [0, 2^63), got -1"),
    ],
    ids=str,
)
def test_complete_refuses_what_does_not_fit(changes, error, message):
    arguments = {
        "codes": (torch.zeros(2, 2, 2, dtype=torch.int64),),
        "known": (torch.ones(2, 2, 2, dtype=torch.bool),),
        **changes,
    }
    with pytest.raises(error, match=re.escape(message)):
        any_order_prior(SQUARE, 3).complete(**arguments)
