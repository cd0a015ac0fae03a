"""Statistics of a codebook against numpy on all positions at once, and against closed forms."""

import json
import math

import numpy as np
import pytest
import torch

from pipelines.codebook import duplicates as codebook_duplicates
from pipelines.codebook import statistics as codebook_statistics
from pipelines.codebook.duplicates import find_duplicates
from pipelines.codebook.statistics import measure_codebook
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.images import to_float
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.build import build_quantizer
from stage1_vqvae.quantizers.config import (
    EMAQuantizerConfig,
    FiniteScalarConfig,
    ProductConfig,
    ResidualConfig,
)

# Sums of float64 in another order than numpy's.
EXACT = 1e-12


class PixelsAsFeatures(torch.nn.Module):
    """A model whose z_e are the pixels of its images: values in [-1, 1], one position each."""

    def __init__(self, config, codebooks=()):
        super().__init__()
        self.quantizer = build_quantizer(config)
        parts = getattr(self.quantizer, "stages", getattr(self.quantizer, "groups", None))
        for part, codebook in zip(parts or [self.quantizer], codebooks, strict=False):
            part.codebook.copy_(torch.as_tensor(codebook, dtype=torch.float32))

    def encode_features(self, images):
        return to_float(images)


def ema(size, dim, **options):
    return EMAQuantizerConfig(codebook_size=size, codebook_dim=dim, **options)


def pixels(images):
    """uint8 (N, D, h, w) as float64 z_e of all positions, (N h w, D)."""
    floats = np.float32(images) / np.float32(127.5) - np.float32(1)
    return floats.transpose(0, 2, 3, 1).reshape(-1, images.shape[1]).astype(np.float64)


def squared_distances(points, codebook):
    return ((points[:, None, :] - codebook[None, :, :]) ** 2).sum(axis=2)


def measure(model, images, batch=4):
    batches = torch.split(torch.from_numpy(images), batch)
    return measure_codebook(model, batches, len(images))


def variance(points):
    return points.var(axis=0).sum()


@pytest.fixture(scope="module")
def images():
    """10 images of 3x2 positions, z_e of 4 channels."""
    return np.random.default_rng(0).integers(40, 220, (10, 4, 3, 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def codebook():
    """7 codes, the last two too far out to be chosen."""
    codes = np.random.default_rng(1).uniform(-0.7, 0.7, (7, 4)).astype(np.float32)
    codes[5:] += 50
    return codes.astype(np.float64)


@pytest.fixture(scope="module")
def measured(images, codebook):
    return measure(PixelsAsFeatures(ema(7, 4), [codebook]), images)


@pytest.fixture(scope="module")
def chosen(images, codebook):
    return squared_distances(pixels(images), codebook).argmin(axis=1)


def test_counts_are_those_of_the_nearest_codes(measured, chosen):
    np.testing.assert_array_equal(measured.grids[0].counts, np.bincount(chosen, minlength=7))


def test_usage_perplexity_and_dead_codes_follow_from_the_counts(measured, chosen):
    (grid,) = measured.grids
    p = np.unique(chosen, return_counts=True)[1] / 60
    assert (grid.num_dead, grid.num_used) == (7 - len(p), len(p))
    assert grid.usage == pytest.approx(len(p) / 7, rel=EXACT)
    assert grid.perplexity == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=EXACT)
    assert grid.entropy == pytest.approx(-(p * np.log2(p)).sum(), rel=EXACT)
    assert grid.num_positions == 60


def test_shares_of_the_most_frequent_codes_add_up(measured, chosen):
    (grid,) = measured.grids
    counts = sorted(np.bincount(chosen), reverse=True)
    assert grid.top_share(1) == pytest.approx(counts[0] / 60, rel=EXACT)
    assert grid.top_share(3) == pytest.approx(sum(counts[:3]) / 60, rel=EXACT)
    assert grid.top_share(10) == 1


def test_error_and_spread_are_mean_squares_over_all_positions(measured, images, codebook, chosen):
    t = pixels(images)
    error = ((t - codebook[chosen]) ** 2).sum(axis=1).mean()
    for statistics in (measured, measured.grids[0]):
        assert statistics.error == pytest.approx(error, rel=EXACT)
        assert statistics.variance == pytest.approx(variance(t), rel=EXACT)
        assert statistics.relative_error == pytest.approx(error / variance(t), rel=EXACT)


def test_lag_is_what_moving_each_code_to_the_mean_of_its_points_would_save(
    measured, images, chosen
):
    t = pixels(images)
    (grid,) = measured.grids
    means = {code: t[chosen == code].mean(axis=0) for code in set(chosen)}
    error_of_means = sum(((t[chosen == c] - m) ** 2).sum() for c, m in means.items()) / len(t)
    assert grid.lag == pytest.approx(grid.error - error_of_means, rel=1e-9)
    assert grid.relative_lag == pytest.approx(grid.lag / variance(t), rel=EXACT)


def test_reach_and_dead_distance_compare_distances(measured, images, codebook, chosen):
    t, centre = pixels(images), codebook.mean(axis=0)
    radius = np.sqrt(((codebook - centre) ** 2).sum(axis=1).mean())
    reach = np.sqrt(((t - centre) ** 2).sum(axis=1).mean()) / radius
    dead = codebook[sorted(set(range(7)) - set(chosen))]
    distance = np.sqrt(((dead - t.mean(axis=0)) ** 2).sum(axis=1).mean() / variance(t))
    assert measured.grids[0].reach == pytest.approx(reach, rel=EXACT)
    assert measured.grids[0].dead_distance == pytest.approx(distance, rel=EXACT)


def test_norms_are_of_z_e(measured, images):
    lengths = np.linalg.norm(pixels(images), axis=1)
    assert measured.mean_norm == pytest.approx(lengths.mean(), rel=EXACT)
    assert measured.max_norm == pytest.approx(lengths.max(), rel=EXACT)


def test_neighbour_distance_is_the_median_among_used_codes(measured, codebook, chosen):
    used = codebook[sorted(set(chosen))]
    distances = np.sqrt(squared_distances(used, used)) + np.diag([np.inf] * len(used))
    found = measured.grids[0].neighbour_distance
    assert found == pytest.approx(np.median(distances.min(axis=1)), rel=1e-9)


def test_sample_of_few_positions_is_all_of_them(measured, images):
    np.testing.assert_array_equal(measured.grids[0].sample, pixels(images))


@pytest.mark.parametrize("batch", [1, 3])
def test_batch_size_changes_nothing(batch, measured, images, codebook):
    other = measure(PixelsAsFeatures(ema(7, 4), [codebook]), images, batch)
    np.testing.assert_array_equal(other.grids[0].sample, measured.grids[0].sample)
    found, expected = other.record(), measured.record()
    (grid,), (expected_grid,) = found.pop("grids"), expected.pop("grids")
    assert found == pytest.approx(expected, rel=EXACT)
    for name in ("duplicates", "position_entropy", "counts"):
        assert grid.pop(name) == expected_grid.pop(name)
    assert grid == pytest.approx(expected_grid, rel=EXACT)


@pytest.mark.parametrize("batch", [3])
def test_sample_of_many_positions_is_spread_over_all_and_free_of_the_batch_size(batch, monkeypatch):
    monkeypatch.setattr(codebook_statistics, "_SAMPLE", 50)
    images = np.arange(256, dtype=np.uint8).reshape(64, 1, 2, 2)  # every position another value
    model = PixelsAsFeatures(ema(2, 1), [[[-1], [1]]])
    sample = np.rint((measure(model, images, batch).grids[0].sample[:, 0] + 1) * 127.5)
    whole = np.rint((measure(model, images, 64).grids[0].sample[:, 0] + 1) * 127.5)
    np.testing.assert_array_equal(sample, whole)
    assert len(set(sample)) == 50  # no position twice
    assert np.all(np.diff(sample) > 0)
    # Of 50 of 256, each quarter expects 12.5; four standard deviations are 11.
    assert np.histogram(sample, 4, (0, 256))[0].min() >= 2


def test_perplexity_is_of_the_whole_split_where_every_batch_has_one_code():
    # 8 images of one tone each, in order: a batch of one image has perplexity 1.
    images = np.repeat(np.arange(8, dtype=np.uint8) * 30, 4).reshape(8, 1, 2, 2)
    codebook = pixels(images)[::4]
    (grid,) = measure(PixelsAsFeatures(ema(8, 1), [codebook]), images, 1).grids
    assert grid.perplexity == pytest.approx(8, rel=EXACT)


def test_entropy_per_position_has_its_closed_form():
    # Over 8 images: one value, two values alike, four alike, and one image in eight different.
    columns = np.array([[0] * 8, [0, 90] * 4, [0, 90, 180, 255] * 2, [90] * 7 + [0]])
    images = columns.T.reshape(8, 1, 2, 2).astype(np.uint8)
    codebook = np.array([[0], [90], [180], [255]]) / 127.5 - 1
    (grid,) = measure(PixelsAsFeatures(ema(4, 1), [codebook]), images, 3).grids
    rare = -(7 / 8 * math.log2(7 / 8) + 1 / 8 * math.log2(1 / 8))
    np.testing.assert_allclose(grid.position_entropy, [[0, 1], [2, rare]], rtol=EXACT)
    assert grid.constant_positions == 1


def test_residual_grids_are_measured_on_what_those_before_left_over(images):
    config = ResidualConfig(num_quantizers=3, base=ema(5, 4))
    generator = np.random.default_rng(2)
    codebooks = [generator.uniform(-s, s, (5, 4)).astype(np.float32) for s in (0.6, 0.3, 0.2)]
    statistics = measure(PixelsAsFeatures(config, codebooks), images)
    residual = pixels(images)
    for grid, codebook in zip(statistics.grids, np.float64(codebooks), strict=True):
        codes = squared_distances(residual, codebook).argmin(axis=1)
        np.testing.assert_array_equal(grid.counts, np.bincount(codes, minlength=5))
        # The quantizer subtracts in float32.
        assert grid.variance == pytest.approx(variance(residual), rel=1e-6)
        residual = residual - codebook[codes]
        assert grid.error == pytest.approx((residual**2).sum(axis=1).mean(), rel=1e-6)
    assert statistics.error == pytest.approx(statistics.grids[-1].error, rel=1e-6)
    assert statistics.variance == pytest.approx(variance(pixels(images)), rel=EXACT)


def test_product_grids_are_measured_on_their_channels(images):
    config = ProductConfig(codebook_dim=4, groups=2, base=ema(5, 2))
    codebooks = np.random.default_rng(3).uniform(-1, 1, (2, 5, 2)).astype(np.float32)
    statistics = measure(PixelsAsFeatures(config, codebooks), images)
    groups = np.split(pixels(images), 2, axis=1)
    for grid, t, codebook in zip(statistics.grids, groups, np.float64(codebooks), strict=True):
        nearest = squared_distances(t, codebook).min(axis=1)
        assert grid.variance == pytest.approx(variance(t), rel=EXACT)
        assert grid.error == pytest.approx(nearest.mean(), rel=EXACT)
        assert grid.vectors.shape == (5, 2)
    assert statistics.error == pytest.approx(sum(g.error for g in statistics.grids), rel=EXACT)


def test_cosine_codes_are_measured_on_the_unit_sphere(images):
    codebook = np.random.default_rng(4).normal(size=(6, 4)) * 9
    statistics = measure(PixelsAsFeatures(ema(6, 4, cosine=True), [codebook]), images)
    t, unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (pixels(images), codebook))
    # Unit lengths are made in float32.
    assert statistics.variance == pytest.approx(variance(t), rel=1e-5)
    assert statistics.error == pytest.approx(
        squared_distances(t, unit).min(axis=1).mean(), rel=1e-5
    )


def test_finite_scalar_codes_are_measured_in_their_bounded_space(images):
    statistics = measure(PixelsAsFeatures(FiniteScalarConfig(codebook_size=81)), images)
    # Three levels: tanh(z) (1 + margin) rounded to -1, 0, 1.
    t = np.tanh(pixels(images)) * 1.001
    assert statistics.variance == pytest.approx(variance(t), rel=1e-5)
    assert statistics.error == pytest.approx(((t - np.rint(t)) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_z_e_that_never_vary_have_no_ratios():
    images = np.full((5, 3, 2, 2), 77, np.uint8)
    codebook = np.array([[0.0, 0, 0], [1, 1, 1], [1, 1, 0]])
    statistics = measure(PixelsAsFeatures(ema(3, 3), [codebook]), images)
    (grid,) = statistics.grids
    assert (statistics.variance, statistics.relative_error) == (0, None)
    assert (grid.relative_error, grid.relative_lag, grid.dead_distance) == (None, None, None)
    assert (grid.num_used, grid.neighbour_distance) == (1, None)


def test_codebook_of_equal_vectors_has_no_reach(images):
    (grid,) = measure(PixelsAsFeatures(ema(3, 4), [np.ones((3, 4))]), images).grids
    assert grid.reach is None
    assert grid.dead_duplicates == 2  # the first of equals is chosen


@pytest.mark.parametrize("varying", [True, False])
def test_record_is_plain_json(varying, images):
    shown = images if varying else np.full_like(images, 3)
    record = measure(PixelsAsFeatures(ema(5, 4), [np.zeros((5, 4))]), shown).record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_measuring_changes_no_weights_and_leaves_evaluation_mode(images):
    config = VQVAEConfig(downsampling=2, width=4, fine_width=4, num_layers=1, quantizer=ema(5, 3))
    model = VQVAE(config, (4, 3, 2)).train()
    before = model.weights_hash()
    measure(model, images)
    assert model.weights_hash() == before
    assert not model.training


@pytest.mark.parametrize("announced", [0, 11])
def test_other_number_of_images_than_announced_is_refused(announced, images):
    model = PixelsAsFeatures(ema(3, 4))
    batches = [torch.from_numpy(images)] if announced else []
    with pytest.raises(ValueError, match=f"must be measured on .* all {announced} that were"):
        measure_codebook(model, batches, announced)


def duplicates(vectors, counts, error=1.0):
    found, _ = find_duplicates(
        torch.tensor(vectors, dtype=torch.float64), torch.tensor(counts), error
    )
    return found.tolist()


def test_equal_codes_repeat_the_most_frequent_of_them():
    vectors = [[1.0, 0], [5, 5], [1, 0], [1, 0], [9, 9]]
    assert duplicates(vectors, [3, 1, 7, 0, 0], error=0.0) == [2, -1, -1, 2, -1]


def test_first_of_equally_frequent_equal_codes_is_kept():
    assert duplicates([[1.0], [1], [9]], [2, 2, 2]) == [-1, 0, -1]


@pytest.mark.parametrize(("error", "expected"), [(0.1001, [-1, 0, -1]), (0.0999, [-1, -1, -1])])
def test_near_codes_are_duplicates_up_to_a_tenth_of_the_error(error, expected):
    # 0.1 apart, where the used codes' rms distance from their mean is about 14.
    assert duplicates([[0.0], [0.1], [30]], [3, 2, 1], error) == expected


@pytest.mark.parametrize(("distance", "expected"), [(0.102, [-1, 0, -1, 2]), (0.103, [-1] * 4)])
def test_near_codes_are_duplicates_up_to_a_twentieth_of_the_radius(distance, expected):
    # The rms distance from the mean is 2 + distance / 2 here. The error is as after a drift.
    vectors = [[2.0], [2 + distance], [-2], [-2 - distance]]
    assert duplicates(vectors, [4, 3, 2, 1], 1e9) == expected


def test_code_never_chosen_does_not_widen_the_radius():
    # Of the used codes the radius is 0.5: 0.1 apart are two codes, whatever lies far out.
    vectors = [[0.0], [0.1], [1], [1.1], [1e6], [1e6]]
    assert duplicates(vectors, [1, 1, 1, 1, 0, 0], 1e9) == [-1, -1, -1, -1, -1, 4]


def test_distances_far_from_the_origin_are_exact():
    # In float32 the squares of 1e4 would swallow these distances.
    vectors = np.array([[0.0], [0.001], [0.5], [0.501], [1]]) + 1e4
    assert duplicates(vectors.tolist(), [5, 4, 3, 2, 1], 1.0) == [-1, 0, -1, 2, -1]


@pytest.mark.parametrize("entries", [40 * 7, 1 << 20])
def test_blocks_of_any_size_find_what_a_loop_over_all_pairs_finds(entries, monkeypatch):
    monkeypatch.setattr(codebook_duplicates, "_BLOCK_ENTRIES", entries)
    generator = np.random.default_rng(5)
    vectors = generator.normal(size=(40, 3))
    vectors[generator.permutation(40)[:15]] = vectors[:15] + 0.01 * generator.normal(size=(15, 3))
    counts, error = generator.integers(0, 4, 40), 0.05
    used = np.flatnonzero(counts)
    limit = min(0.1 * error, 0.05**2 * variance(vectors[used]))
    order = sorted(range(40), key=lambda code: (-counts[code], code))
    expected = [-1] * 40
    for i, code in enumerate(order):
        for other in order[:i]:
            if ((vectors[code] - vectors[other]) ** 2).sum() <= limit:
                expected[code] = other
                break
    distances = np.sqrt(squared_distances(vectors[used], vectors[used]))
    np.fill_diagonal(distances, np.inf)
    found, median = find_duplicates(torch.from_numpy(vectors), torch.from_numpy(counts), error)
    assert sum(code >= 0 for code in expected) > 5  # else the test could not fail
    assert found.tolist() == expected
    assert median == pytest.approx(np.median(distances.min(axis=1)), rel=1e-9)
