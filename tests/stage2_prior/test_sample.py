"""`CodePrior.sample`: a sample is a function of weights, settings, seed, label and index."""

import re

import pytest
import torch
from tiny_priors import KINDS, SHAPES, make_prior, random_labels

from stage2_prior import GridSpec, SamplingSettings

GRIDS = (GridSpec(3, 3, 16),)


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("kind", "grids"), SHAPES)
def test_samples_are_codes_of_the_grids(kind, grids):
    codes = make_prior(kind, grids).sample(70, seed=1)
    assert [tuple(grid.shape) for grid in codes] == [(70, g.height, g.width) for g in grids]
    assert all(grid.dtype == torch.int64 for grid in codes)
    # Every code is drawn somewhere, and none beyond.
    assert [sorted(set(grid.flatten().tolist())) for grid in codes] == [
        list(range(g.codebook_size)) for g in grids
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_codes(kind):
    prior = make_prior(kind, GRIDS)
    first = prior.sample(8, seed=5)
    torch.rand(3)  # the global stream plays no part
    assert equal(prior.sample(8, seed=5), first)


@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_give_other_codes(kind):
    prior = make_prior(kind, GRIDS)
    samples = [prior.sample(8, seed=seed)[0] for seed in (0, 1, 2, 2**63 - 1)]
    assert all(not torch.equal(samples[i], samples[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_one_seed_differ(kind):
    codes = make_prior(kind, GRIDS).sample(32, seed=0)[0].flatten(1)
    assert len(codes.unique(dim=0)) > 16


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_the_batch_size(kind, batch_size, guidance_scale):
    prior = make_prior(kind, GRIDS, 4)
    labels, settings = random_labels(4, 64), SamplingSettings(guidance_scale=guidance_scale)
    expected = prior.sample(64, labels, settings, seed=3, batch_size=64)
    assert equal(prior.sample(64, labels, settings, seed=3, batch_size=batch_size), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_the_other_samples(kind):
    prior = make_prior(kind, GRIDS, 4)
    labels = random_labels(4, 30)
    (whole,) = prior.sample(30, labels, seed=3)
    (start,) = prior.sample(11, labels[:11], seed=3)
    (rest,) = prior.sample(19, labels[11:], seed=3, first_index=11)
    assert torch.equal(torch.cat([start, rest]), whole)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 64), (42, 7), (40, 16), (42, 17), (42, 64)])
def test_batches_are_filled_up_to_whole_fours(monkeypatch, count, batch_size):
    # Which is what makes a convolution round a row the same way in all of them.
    prior = make_prior("pixelcnn", GRIDS)
    draw_sequence, rows = prior.draw_sequence, []

    def watched(labels, settings, uniform, context):
        rows.append((len(labels), len(uniform)))
        return draw_sequence(labels, settings, uniform, context)

    monkeypatch.setattr(prior, "draw_sequence", watched)
    assert len(prior.sample(count, batch_size=batch_size)[0]) == count
    assert len(rows) == -(-count // batch_size)
    assert all(a == b and a % 4 == 0 and a < batch_size + 4 for a, b in rows)


@pytest.mark.parametrize("settings", [{}, {"num_steps": 3}, {"guidance_scale": 2.0}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_products_of_a_transformer_have_whole_fours_of_rows(monkeypatch, batch_size, settings):
    prior = make_prior("transformer", GRIDS, 4, any_order=True)
    rows, addmm = set(), torch.addmm
    monkeypatch.setattr(
        torch, "addmm", lambda bias, x, weight: rows.add(len(x)) or addmm(bias, x, weight)
    )
    labels = torch.zeros(8, dtype=torch.int64)
    prior.sample(8, labels, SamplingSettings(**settings), batch_size=batch_size)
    assert rows
    assert all(number % 4 == 0 for number in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_samples_are_drawn_in_batches_and_nothing_else_grows(monkeypatch, kind):
    # So that memory grows with the batch size: all that a sample leaves behind are its codes.
    prior = make_prior(kind, (GridSpec(1, 2, 4),))
    draw_sequence, drawn = prior.draw_sequence, []

    def watched(labels, settings, uniform, context):
        drawn.append(draw_sequence(labels, settings, uniform, context))
        assert len(labels) == len(uniform) == len(drawn[-1])
        return drawn[-1]

    monkeypatch.setattr(prior, "draw_sequence", watched)
    (codes,) = prior.sample(1000, seed=2, batch_size=64)
    assert [len(batch) for batch in drawn] == [64] * 15 + [40]
    assert torch.equal(codes.flatten(1), torch.cat(drawn)[:1000])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_sampling_is_without_dropout_and_leaves_the_mode(kind, training):
    prior = make_prior(kind, GRIDS, dropout=0.5)
    expected = prior.sample(8, seed=1)
    prior.train(training)
    assert equal(prior.sample(8, seed=1), expected)
    assert {module.training for module in prior.modules()} == {training}


@pytest.mark.parametrize("kind", KINDS)
def test_mode_comes_back_after_an_error(kind, monkeypatch):
    prior = make_prior(kind, GRIDS).train()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prior, "draw_sequence", fail)
    with pytest.raises(KeyboardInterrupt):
        prior.sample(1)
    assert prior.training


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"count": 0}, "of at least 1 are required, got 0 and 64"),
        ({"count": 2, "batch_size": 0}, "of at least 1 are required, got 2 and 0"),
        ({"count": 2, "seed": -1}, "seed must be in [0, 2^63), got -1"),
        ({"count": 2, "seed": 2**63}, f"seed must be in [0, 2^63), got {2**63}"),
        ({"count": 2, "first_index": -1}, "first_index must be in [0, 2^63 - count), got -1"),
        ({"count": 2, "first_index": 2**63 - 2}, "first_index must be in [0, 2^63 - count), got"),
        ({"count": 2, "labels": torch.tensor([0])}, "labels must have shape (2,), got (1,)"),
        ({"count": 1, "labels": torch.tensor([3])}, "labels must be in [0, 3), got 3 to 3"),
        (
            {"count": 1, "settings": SamplingSettings(guidance_scale=2.0)},
            "guidance_scale 2.0 needs labels to guide towards: name labels or leave guidance out",
        ),
    ],
)
def test_sample_refuses_what_it_cannot_draw(request_, message):
    prior = make_prior("transformer", GRIDS, 3)
    with pytest.raises(ValueError, match=re.escape(message)):
        prior.sample(**request_)


def test_sample_takes_one_label_for_all():
    prior = make_prior("transformer", GRIDS, 3)
    assert equal(prior.sample(4, 1), prior.sample(4, torch.full((4,), 1)))


def test_guidance_of_a_prior_without_labels_is_refused_for_what_it_is():
    prior = make_prior("transformer", GRIDS)
    with pytest.raises(ValueError, match=r"guidance_scale 2\.0 needs a prior trained with labels"):
        prior.sample(1, settings=SamplingSettings(guidance_scale=2.0))


def test_sample_refuses_labels_that_are_not_integers():
    prior = make_prior("transformer", GRIDS, 3)
    with pytest.raises(TypeError, match=r"labels must be int64, got torch\.float32: convert them"):
        prior.sample(1, torch.tensor([1.0]))


def test_sample_refuses_settings_of_another_type():
    with pytest.raises(TypeError, match="settings must be SamplingSettings, got dict"):
        make_prior("transformer", GRIDS).sample(1, settings={"top_k": 3})


@pytest.mark.parametrize(
    ("labels", "settings"), [(None, {}), (torch.tensor([1]), {"guidance_scale": 2.0})]
)
def test_sample_refuses_to_go_without_labels_where_that_was_never_trained(labels, settings):
    prior = make_prior("transformer", GRIDS, 3, label_dropout=0.0)
    with pytest.raises(ValueError, match=r"going without labels .* label_dropout above 0, got 0"):
        prior.sample(1, labels, SamplingSettings(**settings))


def test_sample_refuses_labels_of_a_prior_without_classes():
    with pytest.raises(ValueError, match="trained without labels: leave labels out"):
        make_prior("transformer", GRIDS).sample(1, torch.tensor([0]))
