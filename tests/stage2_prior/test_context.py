"""Transformer priors conditioned on other code grids."""

import re

import pytest
import torch
from naive_drawing import scale_and_draw_options
from tiny_priors import (
    all_sequences,
    as_grids,
    make_prior,
    network_labels,
    position_of,
    random_labels,
    random_sequence,
)

from stage2_prior import CodePrior, GridSpec, SamplingSettings
from stage2_prior.objective import PriorObjective
from stage2_prior.sampling.logits import choose

SQUARE = (GridSpec(2, 2, 3),)
SEVERAL = (GridSpec(1, 2, 4), GridSpec(2, 3, 5))
CONTEXT = (GridSpec(2, 1, 4), GridSpec(1, 3, 3))


@pytest.fixture(params=[False, True], ids=["raster", "any_order"])
def prior(request):
    return make_prior("transformer", SEVERAL, 3, context_grids=CONTEXT, any_order=request.param)


def context_of(count, seed=9):
    return as_grids(random_sequence(CONTEXT, count, seed), CONTEXT)


@pytest.mark.parametrize("seed", [1, 2])
def test_probabilities_of_all_grids_sum_to_one_given_any_context(seed):
    prior = make_prior("transformer", SQUARE, context_grids=CONTEXT)
    codes = as_grids(all_sequences(SQUARE), SQUARE)
    context = tuple(grid.expand(81, -1, -1) for grid in context_of(1, seed))
    total = prior.log_prob(codes, context=context).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-5)  # float32 logits


def test_every_logit_depends_on_every_context_code_and_on_no_later_code(prior):
    sequence, context = random_sequence(SEVERAL, 1), random_sequence(CONTEXT, 1)
    labels = torch.zeros(1, dtype=torch.int64)
    for position in range(prior.num_codes):
        outputs = []

        def cut_here(_module, _args, output, outputs=outputs):
            outputs.append(output.detach().requires_grad_())
            return outputs[-1]

        embeddings = [*prior.code_embeddings, *prior.context_embeddings]
        hooks = [embedding.register_forward_hook(cut_here) for embedding in embeddings]
        grid, place = position_of(SEVERAL, position)
        prior(sequence, labels, context)[grid][0, place].square().sum().backward()
        for hook in hooks:
            hook.remove()
        of_codes = torch.cat([o.grad.abs().sum(dim=2)[0] for o in outputs[:2]])
        of_context = torch.cat([o.grad.abs().sum(dim=2)[0] for o in outputs[2:]])
        assert (of_codes > 0).tolist() == [p < position for p in range(prior.num_codes)]
        assert (of_context > 0).all()


def test_order_of_the_context_codes_matters():
    # Its places are told apart: the same two codes the other way round are another context.
    grids = (GridSpec(1, 2, 3),)
    prior = make_prior("transformer", SQUARE, context_grids=grids)
    codes = as_grids(random_sequence(SQUARE, 1), SQUARE)
    there, back = (
        prior.log_prob(codes, context=(torch.tensor([[row]]),)) for row in ([0, 2], [2, 0])
    )
    assert abs(there - back).item() > 1e-3


SETTINGS = [
    {},
    {"guidance_scale": 2.5, "temperature": 0.8},
    {"guidance_scale": 3.0, "guidance_schedule": "linear", "top_k": 3},
    {"first_temperature": 0.5, "temperature": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_draws_given_a_context_equal_the_naive_sampler(prior, settings):
    settings = SamplingSettings(**settings)
    labels = network_labels(prior, random_labels(3, 20), 20)
    context = random_sequence(CONTEXT, 20, seed=9)
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand(20, 8, dtype=torch.float64, generator=generator)
    expected = torch.zeros(20, 8, dtype=torch.int64)
    for position in range(8):
        grid, place = position_of(SEVERAL, position)
        logits = prior(expected, labels, context)[grid][:, place]
        scale, how = scale_and_draw_options(settings, position, 8)
        if scale != 1:
            without = prior(expected, torch.full_like(labels, 3), context)[grid][:, place]
            logits = without + scale * (logits - without)
        expected[:, position] = choose(logits, uniform[:, position], **how)
    assert torch.equal(prior.draw_sequence(labels, settings, uniform, context), expected)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_samples_given_a_context_do_not_depend_on_the_batch_size(prior, batch_size):
    labels, context = random_labels(3, 20), context_of(20)
    expected = prior.sample(20, labels, context=context, seed=3, batch_size=16)
    actual = prior.sample(20, labels, context=context, seed=3, batch_size=batch_size)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_saved_prior_keeps_its_context_grids(prior, tmp_path):
    prior.save_pretrained(tmp_path / "prior")
    loaded = CodePrior.from_pretrained(tmp_path / "prior")
    assert loaded.context_grids == CONTEXT
    codes, labels = as_grids(random_sequence(SEVERAL, 4), SEVERAL), random_labels(3, 4)
    expected = prior.log_prob(codes, labels, context_of(4))
    assert torch.equal(loaded.log_prob(codes, labels, context_of(4)), expected)


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        (None, ValueError, "this prior was trained with 2 context grids, got none: name the codes"),
        ((torch.zeros(2, 2, 1).long(),), ValueError, "context must be a tuple of 2 grids, got 1"),
        (context_of(3), ValueError, "context must have 2 rows, got 3"),
        (
            (torch.zeros(2, 2, 1), torch.zeros(2, 1, 3).long()),
            TypeError,
            "context must be int64 tensors, got torch.float32: convert them with .long()",
        ),
        (
            (torch.full((2, 2, 1), 4), torch.zeros(2, 1, 3).long()),
            ValueError,
            "context must be in [0, 4), got 4 to 4: they were made with another codebook",
        ),
    ],
)
def test_context_that_does_not_fit_is_refused(context, error, message):
    prior = make_prior("transformer", SQUARE, context_grids=CONTEXT)
    codes = as_grids(random_sequence(SQUARE, 2), SQUARE)
    with pytest.raises(error, match=re.escape(message)):
        prior.log_prob(codes, context=context)
    with pytest.raises(error, match=re.escape(message)):
        prior.sample(2, context=context)


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_training_refuses_to_go_without_the_context_or_to_drop_one(kind):
    sequence, context = random_sequence(SQUARE, 2), random_sequence(CONTEXT, 2)
    having = PriorObjective(make_prior(kind, SQUARE, context_grids=CONTEXT))
    with pytest.raises(ValueError, match="this prior was trained with 2 context grids, got none"):
        having(sequence, None)
    with pytest.raises(ValueError, match="this prior was trained without context: leave context o"):
        PriorObjective(make_prior(kind, SQUARE))(sequence, None, context)


def test_prior_without_context_refuses_one():
    prior = make_prior("transformer", SQUARE)
    with pytest.raises(ValueError, match="this prior was trained without context: leave context o"):
        prior.sample(2, context=context_of(2))
