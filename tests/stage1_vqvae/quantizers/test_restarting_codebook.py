"""Dead codes restart on z_e of the batch, with all their statistics, until `restart_until`."""

import pytest
import torch
from tiny_vqvae import LEARNED, changed, make_quantizer, state_of

# All share one class; EMA has sums besides, and the softly assigned have no points of their own.
KINDS = ("ema", "index_backprop")
PLACES = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
LIVE, DEAD = [0, 1], [2, 3]
USAGE = torch.tensor([30.0, 10.0, 0.0, 0.1])
DECAY = 0.9


def quantizer_with_dead_codes(kind, **options):
    """Codes 2 and 3 are far from all data and long unused."""
    settings = {"codebook_size": 4, "codebook_dim": 2, "decay": DECAY, "restart_threshold": 0.03}
    quantizer = make_quantizer(kind, **settings | options).train()
    quantizer.codebook.data = torch.tensor([[1.5, 2.0], [-3.5, 1.0], [90.0, 90.0], [-90.0, 90.0]])
    quantizer.usage_average.copy_(USAGE)
    if kind == "ema":
        quantizer.usage_sum = quantizer.codebook * USAGE[:, None]
    return quantizer


def batch():
    """z_e at two places only, so that every mean of restarted codes is one of them."""
    return PLACES.repeat(9, 1).view(2, 3, 3, 2).permute(0, 3, 1, 2)


def distance_to_places(quantizer):
    return torch.cdist(quantizer.codebook.detach(), PLACES).min(dim=1).values


@pytest.mark.parametrize("kind", KINDS)
def test_dead_codes_land_on_points_of_the_batch(kind):
    quantizer = quantizer_with_dead_codes(kind)
    quantizer(batch())
    # EMA: a mean of equal points, recomputed in float32.
    assert distance_to_places(quantizer)[DEAD].max() < 1e-5


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize(("points", "places"), [(40, 31), (32, 31), (4, 4)])
def test_dead_codes_land_on_different_points_where_there_are_enough(kind, points, places):
    options = {"codebook_size": 32, "codebook_dim": 2, "restart_threshold": 0.03}
    quantizer = make_quantizer(kind, **options).train()
    quantizer.usage_average.zero_()[0] = 100.0
    quantizer.restart_dead_codes(torch.randn(points, 2))
    found = len(quantizer.codebook[1:].detach().unique(dim=0))
    # Too few points are drawn with repetition: of four, 31 draws leave none out.
    assert found == places


@pytest.mark.parametrize("kind", KINDS)
def test_restarted_codes_stay_where_they_landed(kind):
    quantizer = quantizer_with_dead_codes(kind)
    for _ in range(30):
        quantizer(batch())
    assert distance_to_places(quantizer)[DEAD].max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_restarted_codes_begin_with_the_mean_usage(kind):
    quantizer = quantizer_with_dead_codes(kind)
    (codes,) = quantizer(batch()).codes
    start = torch.where(torch.tensor([False, False, True, True]), USAGE.mean(), USAGE)
    counts = torch.tensor([(codes == i).sum() for i in range(4)])
    expected = DECAY * start + (1 - DECAY) * counts  # equation 6
    torch.testing.assert_close(quantizer.usage_average, expected)


def test_restarted_codes_have_the_ema_sum_of_their_place():
    quantizer = quantizer_with_dead_codes("ema")
    quantizer(batch())
    means = quantizer.usage_sum[DEAD] / quantizer.usage_average[DEAD][:, None]
    assert torch.cdist(means, PLACES).min(dim=1).values.max() < 1e-5


def test_restarts_leave_live_gradient_codes_untouched():
    quantizer = quantizer_with_dead_codes("gradient")
    before = quantizer.codebook.detach().clone()
    quantizer(batch())
    assert torch.equal(quantizer.codebook[LIVE], before[LIVE])


def test_restarts_move_live_ema_codes_by_their_points_only():
    with_restarts, without = (
        quantizer_with_dead_codes("ema", restart_threshold=threshold) for threshold in (0.03, 0.0)
    )
    # Far points, which no live code is nearest to either way.
    for quantizer in (with_restarts, without):
        quantizer(torch.full((1, 2, 3, 3), 1e3))
    assert torch.equal(with_restarts.codebook[LIVE], without.codebook[LIVE])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fraction", "restarted"), [(0.69, True), (0.7, False)])
def test_codes_restart_until_the_configured_fraction(kind, fraction, restarted):
    quantizer = quantizer_with_dead_codes(kind, restart_until=0.7)
    quantizer.set_progress(fraction)
    quantizer(batch())
    # Without a restart both codes stay at a distance of more than 90.
    assert bool(distance_to_places(quantizer)[DEAD].max() < 1e-5) is restarted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"restart_threshold": 0.0}, {"restart_until": 0.0}])
def test_codes_never_restart_when_switched_off(kind, options):
    quantizer = quantizer_with_dead_codes(kind, **options)
    quantizer(batch())
    assert distance_to_places(quantizer)[DEAD].min() > 80


@pytest.mark.parametrize("kind", KINDS)
def test_codes_at_the_threshold_are_alive(kind):
    quantizer = quantizer_with_dead_codes(kind, restart_threshold=0.25)
    quantizer.usage_average.copy_(torch.tensor([8.0, 6.0, 1.0, 1.0]))  # mean 4, threshold 1
    before = quantizer.codebook.detach().clone()
    if kind == "ema":
        quantizer.usage_sum = quantizer.codebook * quantizer.usage_average[:, None]
    quantizer(batch())
    torch.testing.assert_close(quantizer.codebook.detach()[DEAD], before[DEAD])


@pytest.mark.parametrize("kind", KINDS)
def test_dead_codes_do_not_restart_in_evaluation(kind):
    quantizer = quantizer_with_dead_codes(kind).eval()
    before = state_of(quantizer)
    quantizer(batch())
    assert not changed(before, state_of(quantizer))


def test_cosine_codes_restart_on_directions_of_the_batch():
    quantizer = quantizer_with_dead_codes("gradient", cosine=True)
    quantizer(batch())
    directions = PLACES / PLACES.norm(dim=1, keepdim=True)
    assert torch.cdist(quantizer.vectors()[DEAD], directions).min(dim=1).values.max() < 1e-3
