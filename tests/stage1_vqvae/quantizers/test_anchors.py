"""Online clustering (CVQ): how far codes go, where to, and which of them."""

import math

import numpy as np
import pytest
import torch
from tiny_vqvae import LEARNED, make_quantizer

from stage1_vqvae.quantizers import search
from stage1_vqvae.quantizers.anchors import anchor_points, anchor_rates

DECAY = 0.9


@pytest.mark.parametrize(("decay", "unit"), [(0.99, 1.0), (0.9, 1.0), (0.9, 1e4)])
def test_rates_are_those_of_equation_5(decay, unit):
    usage = [0.0, 0.001, 0.02, 1.0, 0.979]
    share = np.array(usage) / sum(usage)
    expected = np.exp(-share * 5 * 10 / (1 - decay) - 1e-3)
    # Exponents of up to 5,000 in float32: what they round to is 0 anyway.
    rates = anchor_rates(torch.tensor(usage) * unit, decay)
    np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-30)


def test_rates_of_unused_codes_are_almost_one_and_of_used_codes_zero():
    rates = anchor_rates(torch.tensor([0.0, 10.0, 30.0]), 0.99)
    assert rates[0].item() == pytest.approx(math.exp(-1e-3), rel=1e-6)
    assert rates[1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("entries", [1 << 20, 60, 1], ids=["whole", "three rows", "one row"])
def test_anchors_are_points_of_the_batch(monkeypatch, entries):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", entries)
    z = torch.randn(20, 3)
    found = anchor_points(z, torch.randn(7, 3))
    assert found.shape == (7, 3)
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in z.tolist()}


@pytest.mark.parametrize("entries", [1 << 20, 25], ids=["whole", "five rows"])
def test_anchors_are_drawn_by_the_softmax_of_distances(monkeypatch, entries):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", entries)
    z, vector = 0.7 * torch.randn(5, 2), torch.tensor([0.3, -0.2])
    draws = 20_000 if entries > 25 else 2000
    found = anchor_points(z, vector.expand(draws, 2))
    counts = np.array([(found == point).all(dim=1).sum() for point in z])
    p = np.exp(-((z - vector).double().numpy() ** 2).sum(axis=1))
    expected = draws * p / p.sum()
    # Chi-square with 4 degrees of freedom: exceeded once in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 33.4


@pytest.mark.parametrize("entries", [64, 1000])
def test_anchors_never_hold_more_than_one_block(monkeypatch, entries):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", entries)
    shapes = []
    addmm = torch.addmm

    def recording(*args, **options):
        result = addmm(*args, **options)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(torch, "addmm", recording)
    anchor_points(torch.randn(10, 2), torch.randn(500, 2))
    assert max(rows * points for rows, points in shapes) <= entries
    assert sum(rows for rows, _ in shapes) == 500


PLACES = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
CODEBOOK = torch.tensor([[1.5, 2.0], [-3.5, 1.0], [9.0, 9.0], [-9.0, 9.0]])
USAGE = torch.tensor([30.0, 10.0, 0.0, 0.0])
LIVE, UNUSED = [0, 1], [2, 3]


def quantizer_with_unused_codes(kind, **options):
    """Codes 2 and 3 are far from all data and long unused."""
    settings = {"codebook_size": 4, "codebook_dim": 2, "decay": DECAY, "online_clustering": True}
    quantizer = make_quantizer(kind, **settings | options).train()
    quantizer.codebook.data = CODEBOOK.clone()
    quantizer.usage_average.copy_(USAGE)
    if kind == "ema":
        quantizer.usage_sum = CODEBOOK * USAGE[:, None]
    return quantizer


def batch():
    """z_e at two places only."""
    return PLACES.repeat(9, 1).view(2, 3, 3, 2).permute(0, 3, 1, 2)


def far_batch():
    """z_e that only far codes are nearest to: no live code moves by its points."""
    return torch.full((1, 2, 3, 3), 1e3)


def distance_to_places(quantizer):
    return torch.cdist(quantizer.vectors().detach(), PLACES).min(dim=1).values


@pytest.mark.parametrize("kind", LEARNED)
def test_unused_codes_move_to_points_of_the_batch(kind):
    quantizer = quantizer_with_unused_codes(kind)
    quantizer(batch())
    # A code goes exp(-0.001) of the way of some twelve; EMA then moves it by points at a place.
    assert distance_to_places(quantizer)[UNUSED].max() < 0.02


@pytest.mark.parametrize("start", [False, True], ids=["from Python", "initialised"])
@pytest.mark.parametrize("kind", LEARNED)
def test_first_batch_draws_unused_codes_to_its_points_without_kmeans(kind, start):
    quantizer = make_quantizer(
        kind, codebook_size=64, codebook_dim=2, decay=0.99, online_clustering=True
    ).train()
    far = torch.arange(64) >= 32
    quantizer.codebook.data[far] += 100.0
    if start:
        quantizer.initialise([batch()])
        quantizer.scale_usage(1000)
    quantizer(batch())
    # A code goes exp(-0.001) of the way; an EMA code is then the mean of its points.
    assert distance_to_places(quantizer)[far].max() < 0.2


def test_ema_codes_are_the_means_of_their_first_points_without_kmeans_or_anchors():
    options = {"online_clustering": True, "restart_until": 0.0}
    quantizer = make_quantizer("ema", codebook_size=2, codebook_dim=2, **options).train()
    quantizer.codebook.copy_(PLACES + 0.5)
    quantizer(batch())
    torch.testing.assert_close(quantizer.codebook, PLACES)


@pytest.mark.parametrize("kind", LEARNED)
def test_well_used_codes_stay(kind):
    quantizer = quantizer_with_unused_codes(kind)
    quantizer(far_batch())
    # EMA recomputes m / N.
    torch.testing.assert_close(quantizer.codebook[LIVE].detach(), CODEBOOK[LIVE])


@pytest.mark.parametrize("kind", LEARNED)
def test_codes_move_by_their_rates(kind):
    quantizer = quantizer_with_unused_codes(kind)
    usage = torch.tensor([39.0, 1.0, 0.03, 0.0])
    quantizer.usage_average.copy_(usage)
    if kind == "ema":
        quantizer.usage_sum = CODEBOOK * usage[:, None]
    place = PLACES[:1]
    quantizer.restart_dead_codes(place.expand(9, 2))  # a single anchor to go to
    share = usage.double().numpy() / usage.sum().item()
    rates = np.exp(-share * 4 * 10 / (1 - DECAY) - 1e-3)[:, None]
    expected = (1 - rates) * CODEBOOK.numpy() + rates * place.numpy()
    np.testing.assert_allclose(quantizer.codebook.detach(), expected, rtol=1e-5, atol=1e-5)


def test_ema_sums_move_with_their_codes():
    quantizer = quantizer_with_unused_codes("ema")
    quantizer.usage_average.copy_(torch.tensor([30.0, 10.0, 0.01, 0.02]))
    quantizer.restart_dead_codes(batch().permute(0, 2, 3, 1).reshape(-1, 2))
    means = quantizer.usage_sum / quantizer.usage_average[:, None]
    torch.testing.assert_close(means, quantizer.codebook)


@pytest.mark.parametrize("kind", LEARNED)
def test_anchors_leave_usage_to_the_moving_average(kind):
    quantizer = quantizer_with_unused_codes(kind)
    (codes,) = quantizer(batch()).codes
    counts = torch.tensor([(codes == i).sum() for i in range(4)])
    torch.testing.assert_close(quantizer.usage_average, DECAY * USAGE + (1 - DECAY) * counts)


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize(("fraction", "moves"), [(0.69, True), (0.7, False)])
def test_codes_follow_anchors_until_the_configured_fraction(kind, fraction, moves):
    quantizer = quantizer_with_unused_codes(kind, restart_until=0.7)
    quantizer.set_progress(fraction)
    quantizer(batch())
    assert bool(distance_to_places(quantizer)[UNUSED].max() < 0.02) is moves


@pytest.mark.parametrize("kind", LEARNED)
def test_codes_follow_no_anchors_in_evaluation(kind):
    quantizer = quantizer_with_unused_codes(kind).eval()
    quantizer(batch())
    assert torch.equal(quantizer.codebook.detach(), CODEBOOK)


@pytest.mark.parametrize("kind", LEARNED)
def test_cosine_codes_follow_directions_of_the_batch(kind):
    quantizer = quantizer_with_unused_codes(kind, cosine=True)
    quantizer.restart_dead_codes(
        quantizer.to_code_space(batch()).permute(0, 2, 3, 1).reshape(-1, 2)
    )
    directions = PLACES / PLACES.norm(dim=1, keepdim=True)
    # A thousandth of the way from a vector twelve times as long is left.
    assert torch.cdist(quantizer.vectors()[UNUSED], directions).min(dim=1).values.max() < 0.02


def test_cosine_anchors_are_drawn_by_the_softmax_of_cosines():
    quantizer = make_quantizer(
        "gradient", codebook_size=5001, codebook_dim=2, online_clustering=True, cosine=True
    )
    # All codes but one are unused; they are three times as long as their directions.
    quantizer.codebook.data = torch.tensor([3.0, 0.0]).repeat(5001, 1)
    quantizer.usage_average.zero_()[0] = 1.0
    angles = np.array([0.0, 0.8, 1.6, 2.4, 3.1])
    z = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    quantizer.restart_dead_codes(torch.from_numpy(z).float())
    found = quantizer.vectors()[1:].detach().double().numpy()
    counts = np.bincount(((found[:, None] - z[None]) ** 2).sum(axis=2).argmin(axis=1), minlength=5)
    p = np.exp(z @ [1.0, 0.0])
    expected = 5000 * p / p.sum()
    # Chi-square with 4 degrees of freedom: exceeded once in a million.
    assert ((counts - expected) ** 2 / expected).sum() < 33.4


@pytest.mark.parametrize("kind", LEARNED)
def test_anchors_put_every_code_to_use(kind):
    quantizer = make_quantizer(
        kind, codebook_size=32, codebook_dim=2, decay=DECAY, online_clustering=True
    ).train()
    quantizer.codebook.data.add_(10.0)  # all data is nearest to the same code
    if kind == "ema":
        quantizer.usage_sum.copy_(quantizer.codebook)
    for _ in range(80):
        losses = quantizer(torch.randn(4, 2, 8, 8)).losses
        if kind == "gradient":
            (gradient,) = torch.autograd.grad(losses["codebook"], [quantizer.codebook])
            quantizer.codebook.data -= 0.5 * gradient
    # Without anchors it stays a single one.
    assert len(quantizer.encode(torch.randn(16, 2, 8, 8))[0].unique()) >= 26
