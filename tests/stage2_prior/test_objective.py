"""Stage two's loss, label dropout, bits per code, and that training learns."""

import math

import pytest
import torch
from tiny_priors import (
    CONFIGS,
    KINDS,
    SOME,
    as_context,
    as_grids,
    make_prior,
    random_context,
    random_labels,
    random_sequence,
    with_random_weights,
)

from stage2_prior import GridSpec, PixelCNNConfig, PriorSpec, TransformerConfig, build_prior
from stage2_prior.objective import PriorObjective, measure_bits_per_code

GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))


class LabelWatcher(torch.nn.Module):
    """Stands in for a prior and keeps the labels it is given."""

    def __init__(self, label_dropout=0.1, null_label=10, **config):
        super().__init__()
        self.config = TransformerConfig(label_dropout=label_dropout, **config)
        self.any_order = self.config.any_order
        self.null_label = null_label

    def nll(self, sequence, labels, context, order):
        self.labels, self.context, self.order = labels, context, order
        return torch.zeros(sequence.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_loss_is_the_mean_over_codes_of_minus_log_prob(kind, num_classes):
    prior = make_prior(kind, GRIDS, num_classes)
    sequence, labels = random_sequence(GRIDS, 6), random_labels(num_classes, 6)
    step = PriorObjective(prior).eval()(sequence, labels)
    expected = -prior.log_prob(as_grids(sequence, GRIDS), labels).mean().item() / 12
    assert step.loss.item() == pytest.approx(expected, rel=1e-6)
    assert step.metrics["bits_per_code"].item() == pytest.approx(expected / math.log(2), rel=1e-6)
    assert step.loss.requires_grad
    assert not step.metrics["bits_per_code"].requires_grad


@pytest.mark.parametrize("variant", SOME)
def test_every_weight_that_is_used_gets_a_gradient(variant):
    prior = variant.make(3)
    sequence, context = random_sequence(variant.grids, 32), random_context(variant.context, 32)
    labels = torch.arange(32) % 4  # with no label among them
    order = torch.rand(sequence.shape).argsort(dim=1) if prior.any_order else None
    prior.nll(sequence, labels, context, order).mean().backward()
    without = {name for name, p in prior.named_parameters() if p.grad is None or not p.grad.any()}
    unused = set()
    if variant.kind == "pixelcnn":
        # What only a next layer would read; attention after the last layer reads the output.
        unused = {"layers.2.vertical_gate.label_bias.weight"}
        if not prior.config.attention_every:
            unused |= {"layers.2.horizontal_out.weight", "layers.2.horizontal_out.bias"}
    assert without == unused


@pytest.mark.parametrize("label_dropout", [0.1, 0.5])
def test_labels_are_dropped_in_training_with_the_stated_probability(label_dropout):
    watcher = LabelWatcher(label_dropout)
    labels = torch.arange(20_000) % 10
    PriorObjective(watcher).train()(torch.zeros(20_000, 1, dtype=torch.int64), labels)
    dropped = watcher.labels == 10
    # Four standard deviations of a binomial share; the seed is fixed.
    deviation = math.sqrt(label_dropout * (1 - label_dropout) / 20_000)
    assert dropped.double().mean().item() == pytest.approx(label_dropout, abs=4 * deviation)
    assert torch.equal(watcher.labels[~dropped], labels[~dropped])


@pytest.mark.parametrize(("training", "label_dropout"), [(False, 0.9), (True, 0.0)])
def test_labels_stay_in_evaluation_and_without_label_dropout(training, label_dropout):
    watcher = LabelWatcher(label_dropout)
    labels = torch.arange(1000) % 10
    PriorObjective(watcher).train(training)(torch.zeros(1000, 1, dtype=torch.int64), labels)
    assert torch.equal(watcher.labels, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_of_extra_labels_is_that_of_a_prior_whose_classes_they_are(kind):
    spec = PriorSpec(grids=GRIDS, num_classes=3, num_extra_labels=4)
    prior = with_random_weights(build_prior(CONFIGS[kind], spec))
    # The same weights, with the extra labels' rows where those of the classes were.
    other = make_prior(kind, GRIDS, 3)
    other.load_state_dict(
        {name: w[4:] if "label" in name else w for name, w in prior.state_dict().items()}
    )
    sequence, labels = random_sequence(GRIDS, 6), random_labels(3, 6)
    found = PriorObjective(prior).eval()(sequence, labels + 4).loss
    assert found.equal(PriorObjective(other).eval()(sequence, labels).loss)
    assert not found.equal(PriorObjective(prior).eval()(sequence, labels).loss)


def test_dropped_label_becomes_its_null_label():
    watcher, number = LabelWatcher(0.5), torch.arange(20_000)
    labels, null_labels = number % 10 + 11 * (number % 4), 10 + 11 * (number % 4)
    sequence = torch.zeros(20_000, 1, dtype=torch.int64)
    PriorObjective(watcher).train()(sequence, labels, None, null_labels)
    dropped = watcher.labels != labels
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))
    assert watcher.labels[dropped].equal(null_labels[dropped])
    PriorObjective(watcher).train()(sequence, None, None, null_labels)
    assert watcher.labels.equal(null_labels)


@pytest.mark.parametrize("training", [False, True])
def test_no_labels_mean_the_null_label(training):
    watcher = LabelWatcher(0.5)
    PriorObjective(watcher).train(training)(torch.zeros(5, 1, dtype=torch.int64), None)
    assert watcher.labels.tolist() == [10] * 5


@pytest.mark.parametrize(
    ("until", "share", "fraction", "expected"),
    [
        (0.75, 0.0, 0.0, 1.0),
        (0.75, 0.0, 0.375, 0.5),
        (0.75, 0.0, 0.75, 0.0),
        (0.75, 0.0, 1.0, 0.0),
        (0.5, 0.2, 0.25, 0.6),
        (0.5, 0.2, 1.0, 0.2),
        (0.0, 0.3, 0.0, 0.3),
        (1.0, 1.0, 0.5, 1.0),
    ],
)
def test_share_of_random_orders_falls_linearly(until, share, fraction, expected):
    config = {"any_order": True, "random_order_until": until, "random_order_share": share}
    objective = PriorObjective(LabelWatcher(**config))
    objective.set_progress(fraction)
    assert objective.random_share.item() == pytest.approx(expected)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5])
def test_stated_share_of_images_is_in_a_random_order_and_the_rest_in_raster_order(fraction):
    watcher = LabelWatcher(any_order=True, random_order_until=0.5, random_order_share=0.0)
    objective = PriorObjective(watcher).train()
    objective.set_progress(fraction)
    objective(torch.zeros(20_000, 9, dtype=torch.int64), None)
    share = 1 - 2 * fraction
    if not share:
        assert watcher.order is None  # the raster order, without gathering
        return
    assert watcher.order.sort(dim=1).values.equal(torch.arange(9).expand(20_000, 9))
    random = (watcher.order != torch.arange(9)).any(dim=1).double().mean().item()
    # Four standard deviations, and one order in 9! is the raster's by chance.
    assert random == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 20_000) + 2e-4)


@pytest.mark.parametrize(("training", "any_order"), [(False, True), (True, False)])
def test_order_is_the_raster_in_evaluation_and_without_any_order(training, any_order):
    watcher = LabelWatcher(any_order=any_order)
    PriorObjective(watcher).train(training)(torch.zeros(50, 9, dtype=torch.int64), None)
    assert watcher.order is None


def test_context_reaches_the_prior():
    watcher, context = LabelWatcher(), torch.ones(5, 3, dtype=torch.int64)
    PriorObjective(watcher)(torch.zeros(5, 9, dtype=torch.int64), None, context)
    assert watcher.context is context


@pytest.mark.parametrize("kind", KINDS)
def test_prior_that_learned_with_extra_labels_samples_without_them(kind):
    # Stripes upwards, and downwards with the extra label: nothing else tells them apart.
    grids = (GridSpec(2, 4, 4),)
    torch.manual_seed(0)
    prior = build_prior(CONFIGS[kind], PriorSpec(grids=grids, num_extra_labels=1))
    objective = PriorObjective(prior).train()
    first, labels = torch.arange(4).repeat(2), torch.arange(2).repeat_interleave(4)
    sequence = (first[:, None] + (1 - 2 * labels[:, None]) * torch.arange(8)) % 4
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        objective(sequence, labels, None, labels).loss.backward()
        optimizer.step()
    codes = prior.sample(16, seed=1)[0].flatten(1)
    assert ((codes[:, 1:] - codes[:, :-1]) % 4 == 1).double().mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[12], [5, 7]])
def test_bits_per_code_are_a_mean_over_images_however_they_are_batched(kind, sizes):
    prior = make_prior(kind, GRIDS, 3)
    sequence, labels = random_sequence(GRIDS, 12), random_labels(3, 12)
    expected = -sum(
        prior.log_prob(as_grids(sequence[i : i + 1], GRIDS), labels[i : i + 1]).item()
        for i in range(12)
    ) / (12 * 12 * math.log(2))
    batches = [
        (as_grids(codes, GRIDS), some)
        for codes, some in zip(sequence.split(sizes), labels.split(sizes), strict=True)
    ]
    assert measure_bits_per_code(prior, batches) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_per_code_of_a_uniform_prior_are_log2_of_the_codebook_size(kind):
    prior = make_prior(kind, GRIDS)
    for head in prior.heads if kind == "transformer" else prior.output.last:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    batches = [(as_grids(random_sequence(GRIDS, 4), GRIDS), None)]
    expected = (math.log2(5) + math.log2(4)) / 2
    # One float32 logarithm per code, then float64.
    assert measure_bits_per_code(prior, batches) == pytest.approx(expected, rel=1e-7)


def test_bits_per_code_are_measured_without_dropout():
    prior = make_prior("transformer", GRIDS, dropout=0.5)
    batches = [(as_grids(random_sequence(GRIDS, 4), GRIDS), None)]
    expected = measure_bits_per_code(prior, batches)
    assert measure_bits_per_code(prior.train(), batches) == expected


@pytest.mark.parametrize("variant", SOME)
def test_bits_per_code_are_given_the_context(variant):
    prior, codes = variant.make(3), as_grids(random_sequence(variant.grids, 4), variant.grids)
    labels, context = random_labels(3, 4), random_context(variant.context, 4)
    context = as_context(context, variant.context)
    nats = -prior.log_prob(codes, labels, context).mean().item()
    bits = measure_bits_per_code(prior, [(codes, labels, context)])
    assert bits == pytest.approx(nats / prior.num_codes / math.log(2), rel=1e-6)


def test_bits_per_code_of_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        measure_bits_per_code(make_prior("transformer", GRIDS), [])


@pytest.mark.parametrize(
    "config",
    [
        TransformerConfig(num_layers=2, width=32, num_heads=2, dropout=0.0, label_dropout=0.0),
        PixelCNNConfig(num_layers=2, width=16, kernel_size=5, dropout=0.0, label_dropout=0.0),
    ],
    ids=lambda config: config.kind,
)
def test_training_learns_a_pattern_that_follows_from_label_and_first_code(config):
    # Stripes: each code is the one before plus 1 + label. Only the first of 16 is free, in 4 ways,
    # so that the best there is are 2 bits per image, ln(4) / 16 = 0.087 nats per code.
    grids = (GridSpec(4, 4, 4),)
    torch.manual_seed(0)
    prior = build_prior(config, PriorSpec(grids=grids, num_classes=2))
    objective = PriorObjective(prior).train()
    first, labels = torch.arange(4).repeat(2), torch.arange(2).repeat_interleave(4)
    sequence = (first[:, None] + (1 + labels[:, None]) * torch.arange(16)) % 4
    optimizer = torch.optim.AdamW(prior.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        objective(sequence, labels).loss.backward()
        optimizer.step()
    best = math.log2(4) / 16
    bits = measure_bits_per_code(prior, [(as_grids(sequence, grids), labels)])
    assert best <= bits < best + 0.02
    # And what it samples is such a pattern.
    codes = prior.sample(8, labels, seed=1)[0].flatten(1)
    assert ((codes[:, 1:] - codes[:, :-1]) % 4 == 1 + labels[:, None]).double().mean() > 0.95
