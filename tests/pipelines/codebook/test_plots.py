"""Plots of a codebook, down to the pixels of the files."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from tiny_runs import python

from pipelines.codebook import plots
from pipelines.codebook.plots import (
    plot_decoded,
    plot_entropy,
    plot_map,
    plot_usage,
    project,
    save_plots,
    tile_sheet,
)
from pipelines.codebook.statistics import measure_codebook
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.base import to_points
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, ResidualConfig

VERMILLION = (0xD5, 0x5E, 0x00)
# 10 images of 8x12 in 4 rows of 3, enlarged 800 // (3 * (12 + 4)) = 16 times, framed by 2 pixels.
COLUMNS, TILE_HEIGHT, TILE_WIDTH = 3, 16 * 8 + 4, 16 * 12 + 4


def model_and_statistics(image_shape=(3, 8, 12), quantizer=None, **options):
    """A random model of 10 codes, three of them too far out to be chosen, and its statistics."""
    small = {"downsampling": 4, "width": 6, "fine_width": 4, "num_layers": 1} | options
    quantizer = quantizer or EMAQuantizerConfig(codebook_size=10, codebook_dim=3)
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(quantizer=quantizer, **small), image_shape).eval()
    shape = (20, *image_shape)
    images = torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        points = to_points(model.encode_features(images))
    for stage in getattr(model.quantizer, "stages", [model.quantizer]):
        stage.codebook[:7] = points[:: len(points) // 7][:7]
        stage.codebook[7:] += 100
        points = points - points.mean(dim=0)  # the size of what a first stage leaves over
    return model, measure_codebook(model, images.split(7), len(images))


@pytest.fixture(scope="module")
def measured():
    model, statistics = model_and_statistics()
    assert statistics.grids[0].num_dead == 3
    return model, statistics


def decoded(model, statistics):
    """Each code alone on a whole grid, by decreasing frequency; the first of equals first."""
    counts = statistics.grids[0].counts
    order = sorted(range(len(counts)), key=lambda code: (-counts[code], code))
    height, width = statistics.grids[0].position_entropy.shape
    return np.concatenate(
        [model.decode((torch.full((1, height, width), code),)).numpy() for code in order]
    )


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def axes_pixels(figure, path):
    """Pixels of a saved figure inside its axes."""
    figure.savefig(path)
    whole = pixels(path)
    box = figure.axes[0].get_window_extent()
    top, bottom = (round(whole.shape[0] - y) for y in (box.y1, box.y0))
    return whole[top:bottom, round(box.x0) : round(box.x1)]


def test_sheet_holds_each_image_in_its_position_and_frames_those_asked_for(monkeypatch):
    monkeypatch.setattr(plots, "_SHEET_WIDTH", 1)
    images = np.random.default_rng(0).integers(0, 200, (5, 3, 20, 16), dtype=np.uint8)
    framed = np.array([False, False, True, False, True])
    sheet = tile_sheet(images, framed, 3)
    assert sheet.shape == (2 * 24, 3 * 20, 3)
    for i, (image, frame) in enumerate(zip(images, framed, strict=True)):
        top, left = i // 3 * 24, i % 3 * 20
        tile = sheet[top : top + 24, left : left + 20].copy()
        np.testing.assert_array_equal(tile[2:-2, 2:-2], image.transpose(1, 2, 0))
        tile[2:-2, 2:-2] = VERMILLION if frame else 255
        assert (tile == (VERMILLION if frame else (255, 255, 255))).all()
    assert (sheet[24:, 40:] == 255).all()  # the empty position


@pytest.mark.parametrize(("columns", "scale"), [(10, 6), (90, 1)])
def test_small_sheet_is_enlarged_by_whole_pixels(columns, scale):
    images = np.random.default_rng(1).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    sheet = tile_sheet(images, np.array([False]), columns)
    side = 8 * scale
    expected = np.kron(images[0, 0], np.ones((scale, scale), np.uint8))
    assert sheet.shape == (side + 4, columns * (side + 4), 3)
    for channel in range(3):  # gray in every channel
        np.testing.assert_array_equal(sheet[2 : 2 + side, 2 : 2 + side, channel], expected)


def test_decoded_file_shows_every_code_as_the_model_decodes_it(measured, tmp_path):
    model, statistics = measured
    shown = axes_pixels(plot_decoded(model, statistics, 0), tmp_path / "a.png")
    assert shown.shape == (4 * TILE_HEIGHT, 3 * TILE_WIDTH, 3)
    for i, image in enumerate(decoded(model, statistics)):
        top, left = i // 3 * TILE_HEIGHT, i % 3 * TILE_WIDTH
        tile = shown[top : top + TILE_HEIGHT, left : left + TILE_WIDTH]
        np.testing.assert_array_equal(tile[2:-2:16, 2:-2:16], image.transpose(1, 2, 0))
        np.testing.assert_array_equal(tile[17:-2:16, 17:-2:16], image.transpose(1, 2, 0))


def test_decoded_file_frames_exactly_the_codes_never_chosen(measured, tmp_path):
    model, statistics = measured
    shown = axes_pixels(plot_decoded(model, statistics, 0), tmp_path / "a.png")
    corners = shown[::TILE_HEIGHT, ::TILE_WIDTH].reshape(-1, 3)  # upper left of each tile
    framed = (corners == VERMILLION).all(axis=1)
    assert np.flatnonzero(framed).tolist() == [7, 8, 9]


def test_decoded_codes_are_the_most_frequent_where_there_are_too_many(measured, monkeypatch):
    model, statistics = measured
    monkeypatch.setattr(plots, "_MAX_TILES", 4)
    monkeypatch.setattr(plots, "_DECODED_AT_ONCE", 3)
    figure = plot_decoded(model, statistics, 0, "grid 0: ")
    sheet = figure.axes[0].images[0].get_array()
    none_dead = np.zeros(4, bool)
    expected = tile_sheet(decoded(model, statistics)[:4], none_dead, columns=2)
    np.testing.assert_array_equal(sheet, expected)
    (title,) = figure.texts
    assert title.get_text().startswith("grid 0: the 4 most frequent of 10 ")
    assert title.get_text().endswith("0 codes never used")


def test_other_grids_hold_their_most_frequent_code_while_one_is_decoded():
    config = ResidualConfig(base=EMAQuantizerConfig(codebook_size=10, codebook_dim=3))
    model, statistics = model_and_statistics(quantizer=config)
    first, second = statistics.grids
    order = sorted(range(10), key=lambda code: (-second.counts[code], code))
    common = torch.full((10, 2, 3), int(np.argmax(first.counts)))
    codes = torch.tensor(order)[:, None, None].expand(10, 2, 3)
    images = model.decode((common, codes.contiguous())).numpy()
    sheet = plot_decoded(model, statistics, 1).axes[0].images[0].get_array()
    dead = np.sort(second.counts)[::-1] == 0
    np.testing.assert_array_equal(sheet, tile_sheet(images, dead, COLUMNS))


@pytest.mark.parametrize(("downsampling", "side"), [(4, 32), (16, 64)])
def test_tiles_of_large_images_are_small(downsampling, side):
    shape = (1, 160, 160)
    model, statistics = model_and_statistics(image_shape=shape, downsampling=downsampling)
    sheet = plot_decoded(model, statistics, 0).axes[0].images[0].get_array()
    enlarged = side * (800 // (4 * (side + 4))) + 4  # in 3 rows of 4
    assert sheet.shape == (3 * enlarged, 4 * enlarged, 3)


def test_plot_usage_shows_the_falling_shares_of_the_used_codes(measured):
    (grid,) = measured[1].grids
    (axes,) = plot_usage(grid, "grid 7: ").axes
    curve, uniform = axes.lines
    used = sorted(grid.counts[grid.counts > 0] / grid.counts.sum(), reverse=True)
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(1, len(used) + 1))
    np.testing.assert_allclose(curve.get_ydata(), used, rtol=1e-12)
    assert set(uniform.get_ydata()) == {0.1}
    assert axes.get_yscale() == "log"
    assert axes.get_title().startswith("grid 7: usage ")
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "code, by decreasing frequency",
        "share of all positions",
    )
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[-1] == f"never used: {grid.num_dead} codes"


def test_plot_entropy_shows_the_bits_of_each_position(measured):
    (grid,) = measured[1].grids
    axes, bar = plot_entropy(grid).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), grid.position_entropy)
    assert image.get_clim() == (0, pytest.approx(np.log2(10)))
    written = {text.get_position(): text.get_text() for text in axes.texts}
    height, width = grid.position_entropy.shape
    assert written == {
        (x, y): f"{grid.position_entropy[y, x]:.1f}" for y in range(height) for x in range(width)
    }
    assert bar.get_ylabel() == "entropy in bits, at most log2(10) = 3.3"


def test_map_projects_codes_and_z_e_as_a_singular_value_decomposition_does():
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(6, 5)).astype(np.float32) * [3, 1, 1, 2, 0.5]
    sample = generator.normal((0, 9, 0, 0, 0), size=(400, 5)).astype(np.float32)
    codes, z_e, explained = project(vectors, sample)
    # Each set weighs the same: repeat the smaller until they are equally large.
    both = np.concatenate([np.repeat(vectors, 200, axis=0), np.tile(sample, (3, 1))])
    centre = both.mean(axis=0)
    _, values, axes = np.linalg.svd(both - centre, full_matrices=False)
    for found, points in ((codes, vectors), (z_e, sample)):
        expected = (points - centre) @ axes[:2].T
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(explained, (values**2 / (values**2).sum())[:2], rtol=1e-6)


def test_map_shows_a_drift_that_no_single_set_varies_along():
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(50, 3)) * [1, 1, 0]
    sample = generator.normal((0, 0, 20), (1, 1, 0), size=(500, 3))
    codes, z_e, _ = project(vectors, sample)
    assert np.linalg.norm(codes.mean(axis=0) - z_e.mean(axis=0)) == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("dim", [1, 2])
def test_map_of_few_dimensions_has_two_axes(dim):
    vectors = np.arange(4, dtype=np.float32)[:, None].repeat(dim, axis=1)
    codes, z_e, explained = project(vectors, vectors[:3] * 2)
    assert (codes.shape, z_e.shape) == ((4, 2), (3, 2))
    np.testing.assert_allclose(explained, [1, 0], atol=1e-12)
    np.testing.assert_allclose(np.diff(codes[:, 0]), np.diff(codes[:, 0])[0])


def test_map_of_a_single_point_has_no_variance_to_explain():
    point = np.ones((2, 3), np.float32)
    codes, _, explained = project(point, point)
    assert not codes.any()
    assert not explained.any()


def test_plot_map_tells_used_and_dead_codes_and_z_e_apart(measured):
    (grid,) = measured[1].grids
    codes, z_e, _ = project(grid.vectors, grid.sample)
    (axes,) = plot_map(grid).axes
    cloud, used, dead = axes.collections
    np.testing.assert_allclose(cloud.get_offsets(), z_e)
    np.testing.assert_allclose(used.get_offsets(), codes[grid.counts > 0])
    np.testing.assert_allclose(dead.get_offsets(), codes[grid.counts == 0])
    # Area grows with frequency, between the smallest and the largest that are legible.
    area = 40 * grid.counts[grid.counts > 0] * 10 / grid.num_positions
    np.testing.assert_allclose(used.get_sizes(), np.clip(area, 4, 400))
    colours = [to_hex(part.get_facecolor()[0]) for part in (cloud, used, dead)]
    assert len(set(colours)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantizer", "suffixes"),
    [
        (EMAQuantizerConfig(codebook_size=10, codebook_dim=3), [""]),
        (ResidualConfig(base=EMAQuantizerConfig(codebook_size=10, codebook_dim=3)), ["-0", "-1"]),
    ],
)
def test_one_png_file_of_each_plot_for_each_grid(quantizer, suffixes, tmp_path):
    model, statistics = model_and_statistics(quantizer=quantizer)
    paths = save_plots(tmp_path, model, statistics)
    names = {f"{name}{s}.png" for name in ("usage", "decoded", "map", "entropy") for s in suffixes}
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()} == names
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            image.verify()
        shown = pixels(path)
        assert min(shown.shape[:2]) >= 100
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 10


def test_images_of_two_channels_are_shown_side_by_side():
    model, statistics = model_and_statistics(image_shape=(2, 8, 8))
    sheet = plot_decoded(model, statistics, 0).axes[0].images[0].get_array()
    images = decoded(model, statistics)
    side_by_side = np.concatenate([images[:, :1], images[:, 1:]], axis=3)
    dead = np.sort(statistics.grids[0].counts)[::-1] == 0
    np.testing.assert_array_equal(sheet, tile_sheet(side_by_side, dead, columns=3))


@pytest.mark.slow
def test_plots_import_no_pyplot():
    script = "import sys, pipelines.codebook.plots\nprint('matplotlib.pyplot' in sys.modules)"
    ended = python("-c", script)
    assert (ended.stdout, ended.stderr) == ("False\n", "")
