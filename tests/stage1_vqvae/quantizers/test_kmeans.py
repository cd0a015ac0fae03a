import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vqvae import (
    LEARNED,
    RESTARTING,
    make_quantizer,
    product_config,
    quantizer_config,
    residual_config,
)

from stage1_vqvae.quantizers import kmeans as kmeans_module
from stage1_vqvae.quantizers.build import build_quantizer
from stage1_vqvae.quantizers.kmeans import kmeans, kmeans_plus_plus

CORNERS = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])


def rows(tensor):
    return sorted(map(tuple, tensor.tolist()))


def points_at_corners(repeats=25):
    return CORNERS.repeat_interleave(repeats, dim=0) + 0.1 * torch.randn(4 * repeats, 2)


@pytest.fixture
def given_centres(monkeypatch):
    """Starts k-means from the centres it is called with."""

    def give(*centres):
        start = torch.tensor(centres)
        monkeypatch.setattr(kmeans_module, "kmeans_plus_plus", lambda *_: start)

    return give


def test_kmeans_recovers_separated_clusters():
    points = points_at_corners()
    expected = points.numpy().astype(np.float64).reshape(4, 25, 2).mean(axis=1)
    found = kmeans(points, 4).numpy()
    found = found[[np.abs(found - corner).sum(axis=1).argmin() for corner in CORNERS.numpy()]]
    # Means of 25 float32 values up to 100.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_kmeans_takes_the_steps_of_lloyds_algorithm(given_centres):
    points, centres = torch.randn(60, 2), torch.randn(4, 2)
    given_centres(*centres.tolist())
    expected = centres.numpy().astype(np.float64)
    for _ in range(3):
        distances = ((points.numpy()[:, None] - expected[None]) ** 2).sum(axis=2)
        nearest = distances.argmin(axis=1)
        expected = np.stack([points.numpy()[nearest == k].mean(axis=0) for k in range(4)])
    # Means of some twenty float32 values near one.
    np.testing.assert_allclose(kmeans(points, 4, iterations=3), expected, atol=1e-5)


def test_spherical_kmeans_keeps_its_centres_on_the_sphere(given_centres):
    points, centres = (F.normalize(torch.randn(count, 3), dim=1) for count in (60, 4))
    given_centres(*centres.tolist())
    expected = centres.numpy().astype(np.float64)
    for _ in range(3):
        most_alike = (points.numpy() @ expected.T).argmax(axis=1)
        sums = np.stack([points.numpy()[most_alike == k].sum(axis=0) for k in range(4)])
        expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    found = kmeans(points, 4, iterations=3, spherical=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "index_backprop"])
def test_codebooks_of_directions_start_from_spherical_kmeans(kind):
    quantizer = make_quantizer(kind, cosine=True, kmeans_batches=1)
    quantizer.initialise([torch.randn(8, 4, 5, 5)])
    torch.testing.assert_close(quantizer.codebook.norm(dim=1).detach(), torch.ones(7))


def test_kmeans_keeps_the_centre_of_an_empty_cluster(given_centres):
    given_centres([0.0, 0.0], [50.0, 50.0])
    centres = kmeans(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), 2)
    assert centres.tolist() == [[2.0, 0.0], [50.0, 50.0]]


def test_kmeans_plus_plus_picks_every_distinct_point_once():
    points = torch.arange(20.0).view(20, 1)
    assert rows(kmeans_plus_plus(points, 20)) == rows(points)


def test_kmeans_plus_plus_prefers_distant_points():
    # Squared distances within a corner are a millionth of those between corners.
    chosen = kmeans_plus_plus(points_at_corners(), 4)
    assert rows((chosen / 100).round() * 100) == rows(CORNERS)


def test_kmeans_plus_plus_takes_the_best_of_its_candidates():
    # A uniform first centre, then the better of 2 + ln 2 = 2 draws by the squared distance.
    points = np.arange(4.0)
    squared = (points[:, None] - points[None]) ** 2
    expected = np.zeros((4, 4))
    for first, *candidates in itertools.product(range(4), repeat=3):
        chances = squared[first] / squared[first].sum()
        left = [np.minimum(squared[first], squared[c]).sum() for c in candidates]
        second = candidates[int(np.argmin(left))]
        expected[min(first, second), max(first, second)] += chances[candidates].prod() / 4
    counts = np.zeros((4, 4))
    for _ in range(2000):
        chosen = kmeans_plus_plus(torch.from_numpy(points).float()[:, None], 2)
        counts[tuple(sorted(chosen.int().flatten().tolist()))] += 1
    pairs, others = expected > 0, expected == 0
    assert not counts[others].any()
    expected = 2000 * expected[pairs]
    # Chi-square with 5 degrees of freedom: exceeded once in a million.
    assert ((counts[pairs] - expected) ** 2 / expected).sum() < 35.9


def test_kmeans_plus_plus_repeats_points_when_there_are_too_few():
    chosen = kmeans_plus_plus(torch.tensor([[1.0], [2.0], [4.0]]), 8)
    assert chosen.shape == (8, 1)
    assert set(chosen.flatten().tolist()) == {1.0, 2.0, 4.0}


def test_kmeans_of_more_clusters_than_points_has_a_centre_on_every_point():
    centres = kmeans(torch.tensor([[1.0], [2.0], [4.0]]), 5)
    assert set(centres.flatten().tolist()) == {1.0, 2.0, 4.0}


@pytest.mark.parametrize("kind", LEARNED)
def test_initialise_puts_codes_on_the_clusters_of_all_its_batches(kind):
    quantizer = make_quantizer(kind, codebook_size=4, codebook_dim=2, kmeans_batches=4)
    # One corner per batch: a start from a single batch would miss the others.
    batches = [corner.view(1, 2, 1, 1).expand(1, 2, 3, 3) for corner in CORNERS]
    quantizer.initialise(batches)
    assert rows(quantizer.vectors()) == rows(CORNERS)


@pytest.mark.parametrize(
    ("kind", "make_config", "batches"),
    [
        *((kind, quantizer_config, 2) for kind in RESTARTING),
        *(("ema", make_config, 0) for make_config in (residual_config, product_config)),
    ],
)
def test_usage_starts_as_that_of_a_training_batch(kind, make_config, batches):
    quantizer = build_quantizer(make_config(kind, kmeans_batches=batches))
    quantizer.initialise([torch.randn(3, 4, 2, 5), torch.randn(3, 4, 2, 5)])
    averages = [b for name, b in quantizer.named_buffers() if name.endswith("usage_average")]
    assert averages
    for average in averages:
        before = 3 * 2 * 5 if batches else 7
        torch.testing.assert_close(average, torch.full((7,), before / 7))
    quantizer.scale_usage(1000)
    for average in averages:
        torch.testing.assert_close(average, torch.full((7,), 1000 / 7))


def test_initialise_gives_the_ema_sums_of_its_codes():
    quantizer = make_quantizer("ema", kmeans_batches=1)
    quantizer.initialise([torch.randn(3, 4, 2, 5)])
    expected = quantizer.codebook * quantizer.usage_average[:, None]
    torch.testing.assert_close(quantizer.usage_sum, expected)


@pytest.mark.parametrize("kind", RESTARTING)
def test_scaled_usage_keeps_its_proportions_and_the_codes(kind):
    quantizer = make_quantizer(kind)
    quantizer.usage_average.copy_(torch.tensor([1.0, 2.0, 0.0, 4.0, 1.0, 1.0, 1.0]))
    before = quantizer.vectors().detach().clone()
    quantizer.scale_usage(1000)
    torch.testing.assert_close(
        quantizer.usage_average, torch.tensor([1.0, 2.0, 0.0, 4.0, 1.0, 1.0, 1.0]) * 100
    )
    assert torch.equal(quantizer.vectors(), before)
    if kind == "ema":
        expected = quantizer.codebook * quantizer.usage_average[:, None]
        torch.testing.assert_close(quantizer.usage_sum, expected)


@pytest.mark.parametrize("batches", [0, 3])
def test_initialise_consumes_exactly_the_configured_batches(batches):
    quantizer = make_quantizer(kmeans_batches=batches)
    stream = iter([torch.randn(2, 4, 3, 3) for _ in range(5)])
    quantizer.initialise(stream)
    assert len(list(stream)) == 5 - batches


def test_initialise_makes_do_with_fewer_batches():
    quantizer = make_quantizer(codebook_size=2, codebook_dim=1, kmeans_batches=8)
    quantizer.initialise([torch.tensor([-1.0, 5.0]).view(2, 1, 1, 1)])
    assert rows(quantizer.vectors()) == [(-1.0,), (5.0,)]


@pytest.mark.parametrize("kind", ["ema", "stochastic"])
def test_initialise_without_kmeans_keeps_the_random_codebook(kind):
    quantizer = make_quantizer(kind, kmeans_batches=0)
    before = quantizer.codebook.detach().clone()
    quantizer.initialise([torch.randn(2, 4, 3, 3)])
    assert torch.equal(quantizer.codebook, before)


@pytest.mark.parametrize("kind", ["ema", "stochastic"])
def test_initialise_without_any_batch_is_refused(kind):
    with pytest.raises(ValueError, match="at least one batch is required to initialise a codebook"):
        make_quantizer(kind, kmeans_batches=2).initialise([torch.zeros(0, 4, 3, 5)])


@pytest.mark.parametrize("make_config", [residual_config, product_config])
def test_initialise_of_several_grids_without_any_batch_is_refused(make_config):
    with pytest.raises(ValueError, match="at least one batch is required to initialise a codebook"):
        build_quantizer(make_config("ema", kmeans_batches=2)).initialise([])
