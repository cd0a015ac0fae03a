"""`CodePrior.sample`: a sample is a function of weights, settings, seed, label and index."""

import pytest
import torch
from tiny_priors import (
    KINDS,
    VARIANTS,
    Variant,
    as_context,
    flat,
    make_prior,
    params,
    random_context,
    random_labels,
)

from stage2_prior import GridSpec, SamplingSettings

GRIDS = (GridSpec(3, 3, 16),)


@pytest.mark.parametrize(
    "variant",
    params(
        VARIANTS,
        *("transformer-one", "transformer-growing", "transformer-single_code"),
        *("pixelcnn-one", "pixelcnn-equal", "pixelcnn-row", "pixelcnn-column"),
    ),
)
def test_samples_are_codes_of_the_grids(variant):
    codes = variant.make().sample(70, seed=1)
    assert [tuple(g.shape) for g in codes] == [(70, g.height, g.width) for g in variant.grids]
    assert all(grid.dtype == torch.int64 for grid in codes)
    # Every code is sampled somewhere, and none beyond.
    assert [sorted(set(grid.flatten().tolist())) for grid in codes] == [
        list(range(g.codebook_size)) for g in variant.grids
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_a_function_of_the_seed(kind):
    prior = make_prior(kind, GRIDS)
    samples = [prior.sample(32, seed=seed)[0] for seed in (0, 1, 2, 2**63 - 1)]
    assert all(not torch.equal(samples[i], samples[j]) for i in range(4) for j in range(i))
    assert len(samples[0].flatten(1).unique(dim=0)) > 16  # and of the index
    torch.rand(3)  # the global stream plays no part
    assert torch.equal(prior.sample(32, seed=1)[0], samples[1])


LINEAR = {"guidance_scale": 2.0, "guidance_schedule": "linear"}
MANY_CODES = Variant("transformer", GRIDS, (), {"any_order": True})


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        (VARIANTS["transformer-growing"], LINEAR),
        (VARIANTS["transformer-features"], {}),
        (VARIANTS["transformer-any_order_context"], LINEAR),
        (MANY_CODES, {"precision": "bfloat16"}),
        (MANY_CODES, {"guidance_scale": 2.0, "num_steps": 3}),
        (MANY_CODES, {"guidance_scale": 2.0, "num_steps": 3, "step_order": "confidence"}),
        (VARIANTS["pixelcnn-equal"], LINEAR),
        (VARIANTS["pixelcnn-features"], {}),
        (VARIANTS["pixelcnn-all"], LINEAR),
        (Variant("pixelcnn", GRIDS), {}),
    ],
)
def test_samples_do_not_depend_on_the_batch(variant, settings):
    prior, labels = variant.make(4), random_labels(4, 40)
    context = random_context(variant.context, 40)

    def sample(rows, batch_size):
        codes = prior.sample(
            len(labels[rows]),
            labels[rows],
            SamplingSettings(**settings),
            context=as_context(None if context is None else context[rows], variant.context),
            seed=3,
            first_index=rows.start or 0,
            batch_size=batch_size,
        )
        return flat(codes)

    expected = sample(slice(None), 64)
    assert all(torch.equal(sample(slice(None), size), expected) for size in (1, 7, 16))
    assert torch.equal(sample(slice(11, None), 64), expected[11:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_samples_are_drawn_in_batches(monkeypatch, kind):
    # So that memory grows with the batch size.
    prior, sizes = make_prior(kind, (GridSpec(1, 2, 4),)), []
    stepper = prior.stepper

    def watched(labels, *rest):
        sizes.append(len(labels))
        return stepper(labels, *rest)

    monkeypatch.setattr(prior, "stepper", watched)
    assert len(prior.sample(1000, seed=2, batch_size=64)[0]) == 1000
    assert sizes == [64] * 15 + [40]


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_is_without_dropout_and_leaves_the_mode(kind):
    prior, samples = make_prior(kind, GRIDS, dropout=0.5), []
    for training in (False, True):
        samples.append(prior.train(training).sample(8, seed=1)[0])
        assert {module.training for module in prior.modules()} == {training}
    assert torch.equal(*samples)


@pytest.mark.parametrize("kind", KINDS)
def test_mode_comes_back_after_an_error(kind, monkeypatch):
    prior = make_prior(kind, GRIDS).train()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prior, "stepper", fail)
    with pytest.raises(KeyboardInterrupt):
        prior.sample(1)
    assert prior.training


@pytest.mark.parametrize("kind", KINDS)
def test_sample_takes_one_label_for_all(kind):
    prior = make_prior(kind, GRIDS, 3)
    (expected,) = prior.sample(4, torch.full((4,), 1))
    assert torch.equal(prior.sample(4, 1)[0], expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"count": 0}, ValueError, "at least 1 .*got 0 and 64"),
        ({"batch_size": 0}, ValueError, "batch_size .*got 2 and 0"),
        ({"count": 2.0}, TypeError, r"count must be an integer, got 2\.0"),
        ({"seed": -1}, ValueError, "seed .*got -1"),
        ({"seed": 2**63}, ValueError, f"seed .*got {2**63}"),
        ({"first_index": -1}, ValueError, "first_index .*got -1"),
        ({"first_index": 2**63 - 2}, ValueError, f"first_index .*got {2**63 - 2}"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels .*\(2,\), got \(1,\)"),
        ({"labels": torch.tensor([0, 3])}, ValueError, r"labels .*\[0, 3\), got 0 to 3"),
        ({"labels": torch.tensor([1.0, 1.0])}, TypeError, "labels .*int64, got torch.float32"),
        ({"settings": {"top_k": 3}}, TypeError, "SamplingSettings, got dict"),
    ],
)
def test_sample_refuses_what_it_cannot_sample(changes, error, message):
    with pytest.raises(error, match=message):
        make_prior("transformer", GRIDS, 3).sample(**{"count": 2, **changes})


def test_sample_refuses_labels_of_a_prior_without_classes():
    with pytest.raises(ValueError, match="trained without labels"):
        make_prior("transformer", GRIDS).sample(1, torch.tensor([0]))


@pytest.mark.parametrize(("labels", "settings"), [(None, {}), (1, {"guidance_scale": 2.0})])
def test_sample_refuses_to_go_without_labels_where_that_was_never_trained(labels, settings):
    prior = make_prior("transformer", GRIDS, 3, label_dropout=0.0)
    with pytest.raises(ValueError, match="label_dropout above 0, got 0"):
        prior.sample(1, labels, SamplingSettings(**settings))
