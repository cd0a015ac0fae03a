"""A CUDA device computes and samples what the CPU computes and samples.

In float64 every code must be the same: the noise is addressed by (seed, sample, position), and
rounding does not reach it. In float32 the last bits of a logit turn about one code in a million.
"""

import pytest
import torch
from tiny_priors import (
    EVERY_ANY_ORDER,
    EVERY_VARIANT,
    KINDS,
    as_context,
    as_grids,
    flat,
    make_prior,
    random_context,
    random_labels,
    random_sequence,
)

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.objective import PriorObjective

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GRIDS = (GridSpec(3, 4, 5), GridSpec(3, 4, 4))
COUNT = 40
SETTINGS = {
    "plain": {},
    "likeliest": {"temperature": 0.0},
    "everything": {
        "guidance_scale": 1.7,
        "guidance_schedule": "cosine",
        "first_guidance_scale": 3.0,
        "first_temperature": 1.2,
        "temperature": 0.8,
        "top_k": 4,
        "top_p": 0.95,
    },
}


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    # TensorFloat-32, the default of cuDNN's convolutions, keeps 10 bits of the mantissa.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_both(variant, compute):
    """What `compute` returns for a float64 prior on the CPU, and for its copy on the GPU."""
    prior = variant.make(3).double()
    expected = compute(prior)
    return expected, compute(prior.cuda())


def inputs(variant, count=8):
    context = random_context(variant.context, count)
    if context is not None and context.is_floating_point():
        context = context.double()
    return random_sequence(variant.grids, count), random_labels(3, count), context


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_log_prob_on_cuda_equals_the_cpu(variant):
    sequence, labels, context = inputs(variant)
    codes, context = as_grids(sequence, variant.grids), as_context(context, variant.context)
    expected, found = on_both(variant, lambda prior: prior.log_prob(codes, labels, context))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_loss_and_gradients_on_cuda_equal_the_cpu(variant):
    # In evaluation mode: dropout draws from the device's own stream.
    def compute(prior):
        device = next(prior.parameters()).device
        batch = [x if x is None else x.to(device) for x in inputs(variant)]
        loss = PriorObjective(prior).eval()(*batch).loss
        gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
        return [x.detach().cpu() for x in (loss, *gradients) if x is not None]

    expected, found = on_both(variant, compute)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_float64_samples_on_cuda_are_those_of_the_cpu(variant, settings):
    _, labels, context = inputs(variant, COUNT)

    def compute(prior):
        return prior.sample(
            COUNT,
            labels,
            SamplingSettings(**settings),
            context=as_context(context, variant.context),
            seed=1,
            batch_size=16,
        )

    expected, found = on_both(variant, compute)
    assert {grid.device.type for grid in found} == {"cuda"}
    assert torch.equal(flat(found).cpu(), flat(expected))


@pytest.mark.parametrize("step_order", [None, "random", "confidence"])
@pytest.mark.parametrize("variant", EVERY_ANY_ORDER)
def test_float64_completions_on_cuda_are_those_of_the_cpu(variant, step_order):
    sequence, labels, context = inputs(variant, COUNT)
    known = torch.rand(sequence.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    steps = {"num_steps": 3, "step_order": step_order} if step_order else {}

    def compute(prior):
        return prior.complete(
            as_grids(sequence, variant.grids),
            as_grids(known, variant.grids),
            labels,
            SamplingSettings(**SETTINGS["everything"], **steps),
            context=as_context(context, variant.context),
            seed=1,
        )

    expected, found = on_both(variant, compute)
    assert torch.equal(flat(found).cpu(), flat(expected))


@pytest.mark.parametrize("compilation", ["off", "on"])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_samples_on_cuda_are_hardly_ever_others(kind, compilation):
    if compilation == "on" and kind == "pixelcnn":
        pytest.skip("a PixelCNN's sampler is not compiled")
    prior = make_prior(kind, GRIDS, num_classes=3)
    labels = random_labels(3, COUNT)
    expected = flat(prior.sample(COUNT, labels, seed=1, batch_size=16))
    settings = SamplingSettings(compile=compilation)
    found = prior.cuda().sample(COUNT, labels, settings, seed=1, batch_size=16)
    assert int((flat(found).cpu() == expected).all(dim=1).sum()) >= COUNT - 1


@pytest.mark.parametrize("kind", KINDS)
def test_samples_on_cuda_hardly_depend_on_the_batch(kind):
    prior = make_prior(kind, GRIDS, num_classes=3).cuda()
    labels = random_labels(3, COUNT)
    expected, found = (
        flat(prior.sample(COUNT, labels, seed=1, batch_size=size)) for size in (COUNT, 7)
    )
    assert int((found == expected).all(dim=1).sum()) >= COUNT - 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_sampling_on_cuda_follows_the_prior(precision):
    grids = (GridSpec(1, 2, 3),)
    prior = make_prior("transformer", grids, num_classes=3).cuda()
    labels = torch.zeros(4096, dtype=torch.int64)
    settings = SamplingSettings(compile="on", precision=precision)
    first, second = prior.sample(4096, labels, settings, seed=0)[0].cpu().flatten(1).T
    found = torch.bincount(first * 3 + second, minlength=9) / 4096
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    expected = prior.log_prob((every[:, None],), labels[:9]).exp().cpu().float()
    # Four standard errors of a frequency of 1/2.
    torch.testing.assert_close(found, expected, rtol=0, atol=4 * 0.5 / 4096**0.5)
