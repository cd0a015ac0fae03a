"""Cached sampling of a PixelCNN: the naive sampler's codes, at the cost of one pass."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pixelcnn_variants import (
    ATTENTION,
    EVERY_VARIANT,
    ONE,
    VARIANTS,
    Variant,
    draw_naively,
    make_pixelcnn,
    random_context,
)
from stage2_prior.pixelcnn.sampler import CachedPixelCNN
from tiny_priors import network_labels, random_labels, random_sequence
from torch.utils.flop_counter import FlopCounterMode

from stage2_prior import GridSpec, SamplingSettings
from stage2_prior.grids import to_grids
from stage2_prior.pixelcnn.prior import attention as snail_attention

SETTINGS = {
    "as_it_is": {},
    "likeliest": {"temperature": 0.0},
    "all_three": {"temperature": 1.5, "top_k": 3, "top_p": 0.9},
    "hotter_and_hotter": {"first_temperature": 0.5, "temperature": 2.0},
}
GUIDED = {
    "guided": {"guidance_scale": 2.5},
    "unconditional": {"guidance_scale": 0.0},
    "less_and_less": {"guidance_schedule": "linear", "first_guidance_scale": 3.0},
    "scheduled": {"guidance_scale": 3.0, "guidance_schedule": "linear"},
    "scheduled_and_all_three": {
        "guidance_scale": 1.7,
        "guidance_schedule": "linear",
        "first_guidance_scale": 3.0,
        "first_temperature": 1.2,
        "temperature": 0.8,
        "top_k": 4,
        "top_p": 0.95,
    },
}


def cached_features(prior, sequence, labels, context):
    """(B, E, h, w), each place from the codes before it alone."""
    codes = to_grids(sequence, prior.grids)
    seen = None if context is None else prior.context_network(context)
    network = CachedPixelCNN(prior, labels, seen)
    rows = []
    for row in range(codes[0].shape[1]):
        network.begin_row(row)
        places = []
        for column in range(codes[0].shape[2]):
            places.append(network.features(column).clone())
            embeddings = zip(prior.code_embeddings, codes, strict=True)
            network.see(column, sum(e(grid[:, row, column]) for e, grid in embeddings))
        rows.append(torch.stack(places, dim=-1))
    return torch.stack(rows, dim=-2)


@torch.no_grad()
@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_cached_features_equal_those_of_the_whole_grid(variant, num_classes, monkeypatch):
    # Its own softmax is float32 whatever it is given.
    fused = partial(F.scaled_dot_product_attention, is_causal=True)
    monkeypatch.setattr(snail_attention, "causal_attention", fused)
    prior = make_pixelcnn(variant, num_classes).double()
    sequence, context = random_sequence(variant.grids, 4), random_context(variant, 4)
    labels = network_labels(prior, random_labels(num_classes, 4), 4)
    expected = prior.features(to_grids(sequence, variant.grids), labels, context)
    actual = cached_features(prior, sequence, labels, context)
    # Sums of float64 products in another order, of order 10.
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_cached_features_in_float32_are_right_to_rounding(variant):
    prior = make_pixelcnn(variant, 3)
    sequence, context = random_sequence(variant.grids, 4), random_context(variant, 4)
    labels = random_labels(3, 4)
    expected = prior.features(to_grids(sequence, variant.grids), labels, context)
    actual = cached_features(prior, sequence, labels, context)
    # A few units in the last place of sums of order 10.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def check_equal_draws(variant, num_classes, settings):
    prior = make_pixelcnn(variant, num_classes)
    labels = network_labels(prior, random_labels(num_classes, 12), 12)
    context = random_context(variant, 12)
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand(12, prior.num_codes, dtype=torch.float64, generator=generator)
    expected = draw_naively(prior, labels, settings, uniform, context)
    # Identical, not close: rounding would have to move a number across its threshold.
    assert torch.equal(prior.draw_sequence(labels, settings, uniform, context), expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_draws_without_classes_equal_the_naive_sampler(variant, settings):
    check_equal_draws(variant, None, SamplingSettings(**SETTINGS[settings]))


@pytest.mark.parametrize("settings", ["as_it_is", *GUIDED])
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_draws_with_labels_equal_the_naive_sampler(variant, settings):
    check_equal_draws(variant, 3, SamplingSettings(**{**SETTINGS, **GUIDED}[settings]))


@torch.no_grad()
def test_naive_sampler_tells_settings_apart():
    # Otherwise the tests above could not fail.
    prior, labels = make_pixelcnn(VARIANTS["plain"], 3), random_labels(3, 12)
    uniform = torch.rand(12, prior.num_codes, dtype=torch.float64)
    draws = [
        draw_naively(prior, labels, SamplingSettings(**settings), uniform)
        for settings in (SETTINGS["as_it_is"], *GUIDED.values())
    ]
    assert all(not torch.equal(draws[i], draws[j]) for i in range(len(draws)) for j in range(i))


def flops(call):
    """Multiplications and additions of matrix products and convolutions."""
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
@pytest.mark.parametrize("size", [(6, 9), (9, 6), (12, 12)])
def test_drawing_costs_one_evaluation_of_the_network_per_place(size, guidance_scale, passes):
    prior = make_pixelcnn(Variant((GridSpec(*size, 5),)), 3, kernel_size=5)
    uniform, labels = torch.rand(16, prior.num_codes, dtype=torch.float64), random_labels(3, 16)
    settings = SamplingSettings(guidance_scale=guidance_scale)
    once = flops(lambda: prior(random_sequence(prior.grids, 16), labels))
    drawn = flops(lambda: prior.draw_sequence(labels, settings, uniform))
    # Nothing reads the last layer's outputs to a next one.
    assert 0.9 * passes * once < drawn <= passes * once


@pytest.mark.parametrize("size", [(6, 9), (9, 6)])
def test_vertical_stack_runs_once_per_row_and_no_convolution_per_place(size, monkeypatch):
    prior, calls = make_pixelcnn(Variant((GridSpec(*size, 5),))), []
    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **b: (calls.append(1), conv2d(*a, **b))[1])
    monkeypatch.setattr(
        torch.nn.Conv2d, "forward", lambda *_: pytest.fail("a layer's own convolution was called")
    )
    prior.sample(1)
    assert len(calls) == prior.config.num_layers * size[0]


def bytes_held(thing, storages=None):
    """Size of all memory that the tensors of an object lie in, each counted once."""
    storages = {} if storages is None else storages
    if isinstance(thing, torch.Tensor):
        storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    elif isinstance(thing, dict):
        for value in thing.values():
            bytes_held(value, storages)
    elif isinstance(thing, list | tuple):
        for value in thing:
            bytes_held(value, storages)
    elif dataclasses.is_dataclass(thing):
        for f in dataclasses.fields(thing):
            bytes_held(getattr(thing, f.name), storages)
    elif hasattr(thing, "__dict__") and not isinstance(thing, torch.nn.Module):
        bytes_held(vars(thing), storages)
    return sum(storages.values())


@torch.no_grad()
def test_caches_do_not_grow_with_the_rows():
    held = [
        bytes_held(
            CachedPixelCNN(
                make_pixelcnn(Variant((GridSpec(height, 5, 3),))), torch.zeros(16).long(), None
            )
        )
        for height in (2, 9, 64)
    ]
    assert held[0] == held[1] == held[2] > 0


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, ATTENTION], ids=["plain", "attention"])
def test_caches_grow_linearly_with_the_batch(options):
    prior = make_pixelcnn(Variant(ONE, options=options), 3)
    held = [
        bytes_held(CachedPixelCNN(prior, torch.zeros(batch).long(), None)) for batch in (16, 32, 48)
    ]
    assert held[2] - held[1] == held[1] - held[0] > 0


@pytest.mark.parametrize("variant", EVERY_VARIANT)
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_samples_do_not_depend_on_the_batch_size(variant, batch_size):
    prior = make_pixelcnn(variant, 4)
    labels = random_labels(4, 40)
    context = random_context(variant, 40)
    grids = None if context is None else to_grids(context, variant.context_grids)
    settings = SamplingSettings(guidance_scale=2.0, guidance_schedule="linear")
    draws = [
        prior.sample(40, labels, settings, context=grids, seed=3, batch_size=size)
        for size in (40, batch_size)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("batch", [16, 64])
def test_default_width_gives_the_same_logits_in_every_batch(batch):
    # The tiny networks above are too narrow to show how a matrix product of real size rounds.
    prior = make_pixelcnn(Variant((GridSpec(3, 5, 64),)), 3, width=96, kernel_size=5)
    sequence, labels = random_sequence(prior.grids, 128), random_labels(3, 128)
    whole = cached_features(prior, sequence, labels, None)
    part = cached_features(prior, sequence[:batch], labels[:batch], None)
    assert torch.equal(part, whole[:batch])
