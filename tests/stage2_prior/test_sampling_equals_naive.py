"""Sampling and completing against a sampler that evaluates the whole network for every code."""

import itertools

import pytest
import torch
from naive_sampling import sample_naively, sample_naively_by_confidence, uniform_block
from tiny_priors import (
    EVERY_ANY_ORDER,
    EVERY_VARIANT,
    KINDS,
    VARIANTS,
    as_context,
    as_grids,
    flat,
    network_labels,
    prediction_order,
    random_context,
    random_labels,
    random_sequence,
)

from stage2_prior import SamplingSettings
from stage2_prior.sampling.ordering import step_sizes

SEED, FIRST = 7, 40
COUNT = 8
EVERYTHING = {
    "guidance_scale": 1.7,
    "guidance_schedule": "cosine",
    "first_guidance_scale": 3.0,
    "guidance_power": 2.0,
    "first_temperature": 1.2,
    "temperature": 0.8,
    "top_k": 4,
    "top_p": 0.95,
}
LABELLED = {
    "guided": {"guidance_scale": 2.5},
    "unconditional": {"guidance_scale": 0.0},
    "less_and_less": {"guidance_schedule": "linear", "first_guidance_scale": 3.0},
    "more_and_more": {"guidance_scale": 3.0, "guidance_schedule": "linear"},
}
SETTINGS = {
    "likeliest": {"temperature": 0.0},
    "cool": {"temperature": 0.6},
    "hotter_and_hotter": {"first_temperature": 0.5, "temperature": 2.0},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.7},
    **LABELLED,
}


def check_samples(variant, num_classes, settings):
    prior, settings, count = variant.make(num_classes), SamplingSettings(**settings), 12
    labels, context = random_labels(num_classes, count), random_context(variant.context, count)
    expected = sample_naively(
        prior,
        torch.zeros(count, prior.num_codes, dtype=torch.int64),
        network_labels(prior, labels, count),
        context,
        [],
        [[p] for p in prediction_order(variant.kind, variant.grids)],
        settings,
        uniform_block(SEED, range(FIRST, FIRST + count), prior.num_codes),
    )
    actual = prior.sample(
        count,
        labels,
        settings,
        context=as_context(context, variant.context),
        seed=SEED,
        first_index=FIRST,
    )
    # Identical, not close: rounding would have to move a number across its threshold.
    assert torch.equal(flat(actual), expected)
    return expected


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_samples_equal_the_naive_sampler(variant):
    check_samples(variant, None, {})
    check_samples(variant, 3, EVERYTHING)


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_equals_the_naive_sampler_and_is_another(kind):
    variant = VARIANTS[f"{kind}-equal"]
    found = [check_samples(variant, 3, settings) for settings in ({}, *SETTINGS.values())]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(found, 2))


class Completion:
    """Codes, masks, labels and context of images to complete, and the naive completions."""

    def __init__(self, variant, num_classes, settings):
        self.variant, self.settings = variant, SamplingSettings(**settings)
        self.prior = variant.make(num_classes)
        self.sequence = random_sequence(variant.grids, COUNT)
        generator = torch.Generator().manual_seed(5)
        self.known = torch.rand(self.sequence.shape, generator=generator) < 0.3
        self.labels = random_labels(num_classes, COUNT)
        self.context = random_context(variant.context, COUNT)

    def complete(self, order=None):
        codes = self.prior.complete(
            as_grids(self.sequence, self.variant.grids),
            as_grids(self.known, self.variant.grids),
            self.labels,
            self.settings,
            context=as_context(self.context, self.variant.context),
            order=order,
            seed=SEED,
            first_index=FIRST,
        )
        return flat(codes)

    def naively(self, orders):
        """With its codes of each image in `orders`, and `settings.num_steps` at a time."""
        completed = []
        for i, order in enumerate(orders):
            known = [p for p in order if self.known[i, p]]
            unknown = [p for p in order if not self.known[i, p]]
            labels = network_labels(self.prior, self.labels, COUNT)[i : i + 1]
            context = None if self.context is None else self.context[i : i + 1]
            arguments = (self.prior, self.sequence[i : i + 1], labels, context, known)
            # Which have a test of their own.
            sizes = step_sizes(len(unknown), self.settings.num_steps)
            if self.settings.step_order == "confidence":
                uniforms, numbers = (
                    [self.uniform(i, 2 * step + j) for step in range(len(sizes))] for j in (2, 3)
                )
                gumbels = [-(-u.log()).log() for u in numbers]
                completed.append(
                    sample_naively_by_confidence(
                        *arguments, sizes, self.settings, uniforms, gumbels
                    )
                )
            else:
                rest = iter(unknown)
                steps = [list(itertools.islice(rest, size)) for size in sizes]
                completed.append(
                    sample_naively(*arguments, steps, self.settings, self.uniform(i, 0))
                )
        return torch.cat(completed)

    def uniform(self, i, block):
        return uniform_block(SEED, [FIRST + i], self.prior.num_codes, block)


@pytest.mark.parametrize("order", [None, (7, 2, 5, 0, 6, 4, 1, 3)], ids=["raster", "shuffled"])
@pytest.mark.parametrize("variant", EVERY_ANY_ORDER)
def test_completion_equals_the_naive_sampler(variant, order):
    for num_classes, settings in ((None, {}), (3, EVERYTHING)):
        request = Completion(variant, num_classes, settings)
        actual = request.complete(None if order is None else torch.tensor(order))
        assert torch.equal(actual, request.naively([order or range(8)] * COUNT))


def test_each_image_is_completed_in_its_own_order():
    request = Completion(VARIANTS["transformer-any_order"], None, {})
    orders = [[(i + p) % 8 for p in range(8)] for i in range(COUNT)]
    assert torch.equal(request.complete(torch.tensor(orders)), request.naively(orders))


@pytest.mark.parametrize("num_steps", [1, 4, 100])  # 100 are more than there are codes
@pytest.mark.parametrize("step_order", ["random", "confidence"])
@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        pytest.param(VARIANTS["transformer-any_order"], {}, id="plain"),
        pytest.param(VARIANTS["transformer-any_order_context"], EVERYTHING, id="everything"),
    ],
)
def test_steps_equal_the_naive_sampler(variant, settings, num_steps, step_order):
    settings = {**settings, "num_steps": num_steps, "step_order": step_order}
    request = Completion(variant, 3, settings)
    orders = [range(8)] * COUNT
    if step_order == "random":
        turns = [request.uniform(i, 1)[0].tolist() for i in range(COUNT)]
        orders = [sorted(range(8), key=numbers.__getitem__) for numbers in turns]
    assert torch.equal(request.complete(), request.naively(orders))
