"""Grids pixel by pixel, and images read back from the files they were written to."""

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.folder import read_images
from pipelines.data.form import ImageForm
from pipelines.data.load import load_splits
from pipelines.data.npz import read_npz
from pipelines.files import images as image_files
from pipelines.files.images import (
    check_output,
    check_png,
    image_grid,
    pair_grid,
    save_grid,
    save_images,
    to_pil,
    viewable,
)

W = 255  # white


@pytest.fixture
def unscaled(monkeypatch):
    """Grids without enlargement and with a gap of one pixel, small enough to be written down."""
    monkeypatch.setattr(image_files, "_GRID_SIDE", 1)
    monkeypatch.setattr(image_files, "_GAP", 1)


@pytest.fixture
def colours():
    """Five RGB images of 4x6."""
    return np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)


def plain(*tones, height=1, width=2):
    """Gray images (N, 1, H, W) of one tone each."""
    tones = np.array(tones, np.uint8)[:, None, None, None]
    return np.broadcast_to(tones, (len(tones), 1, height, width))


@pytest.mark.usefixtures("unscaled")
def test_grid_puts_images_row_by_row_between_white_lines():
    expected = [
        [W, W, W, W, W, W, W],
        [W, 1, 1, W, 2, 2, W],
        [W, W, W, W, W, W, W],
        [W, 3, 3, W, W, W, W],
        [W, W, W, W, W, W, W],
    ]
    np.testing.assert_array_equal(image_grid(plain(1, 2, 3), columns=2), [expected])


@pytest.mark.usefixtures("unscaled")
def test_grid_keeps_each_colour_and_place():
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    grid = image_grid(image, columns=1)
    assert grid.shape == (3, 4, 4)
    np.testing.assert_array_equal(grid[:, 1:3, 1:3], image[0])


def test_grid_enlarges_each_pixel_to_a_square(monkeypatch):
    monkeypatch.setattr(image_files, "_GRID_SIDE", 12)
    monkeypatch.setattr(image_files, "_GAP", 1)
    # 12 pixels for 2 columns of 1 + 1: three times as large.
    grid = image_grid(plain(7, 9, width=1), columns=2)
    expected = np.full((5, 9), W)
    expected[1:4, 1:4] = 7
    expected[1:4, 5:8] = 9
    np.testing.assert_array_equal(grid, [expected])


def test_grid_of_large_images_is_not_enlarged():
    assert image_grid(plain(0, height=300, width=400), columns=1).shape == (1, 304, 404)


@pytest.mark.usefixtures("unscaled")
def test_pairs_are_originals_above_reconstructions_and_fill_up_with_white():
    pairs = pair_grid(plain(1, 2, 3, width=1), plain(11, 12, 13, width=1), columns=2)
    np.testing.assert_array_equal(pairs[0, 1::2, 1::2], [[1, 2], [11, 12], [3, W], [13, W]])


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 2), (5, 3), (9, 3), (10, 4)])
@pytest.mark.usefixtures("unscaled")
def test_saved_grid_is_as_square_as_can_be(tmp_path, count, columns):
    save_grid(tmp_path / "a.png", plain(*range(count), width=1))
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    rows = -(-count // columns)
    assert pixels.shape == (2 * rows + 1, 2 * columns + 1)
    assert pixels[1::2, 1::2].ravel()[:count].tolist() == list(range(count))


@pytest.mark.usefixtures("unscaled")
def test_grid_of_four_channels_shows_them_side_by_side(tmp_path):
    images = np.arange(8, dtype=np.uint8).reshape(1, 4, 1, 2)
    save_grid(tmp_path / "a.png", images)
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image)[1, 1:-1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("channels", [1, 3])
def test_viewable_leaves_gray_and_colour_alone(channels):
    images = np.zeros((2, channels, 4, 5), np.uint8)
    assert viewable(images) is images


def test_pil_image_of_two_channels_is_refused():
    with pytest.raises(ValueError, match=r"a PNG needs 1 or 3 channels, got 2: write an .npz file"):
        to_pil(np.zeros((2, 4, 4), np.uint8))


def test_npz_is_read_back_with_its_labels(tmp_path, colours):
    labels = np.array([3, 0, 1, 1, 2])
    assert save_images(tmp_path / "a.npz", colours, labels) == f"5 images to {tmp_path}/a.npz"
    read = read_npz(tmp_path / "a.npz").train
    np.testing.assert_array_equal(read.images, colours)
    np.testing.assert_array_equal(read.labels, labels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_npz_without_labels_is_read_back_whatever_the_channels(tmp_path, channels):
    images = np.random.default_rng(1).integers(0, 256, (6, channels, 5, 7), dtype=np.uint8)
    save_images(tmp_path / "a.npz", images)
    read = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.train.images, images)
    assert read.train.labels is None


def test_npz_is_a_data_source(tmp_path, colours):
    save_images(tmp_path / "a.npz", colours)
    splits = load_splits(DataConfig(source=f"npz:{tmp_path / 'a.npz'}"))
    pixels = np.concatenate([part.images for part in splits.by_name.values()])
    assert sorted(image.tobytes() for image in pixels) == sorted(i.tobytes() for i in colours)


@pytest.mark.parametrize("channels", [1, 3])
def test_single_files_hold_the_same_pixels(tmp_path, colours, channels):
    images = colours[:, :channels]
    assert save_images(tmp_path / "out", images) == f"5 PNG files to {tmp_path}/out"
    read = read_images(tmp_path / "out", channels, ImageForm((4, 6))).images
    np.testing.assert_array_equal(read.images, images)


def test_single_files_are_named_by_index_and_label(tmp_path, colours):
    save_images(tmp_path / "out", colours[:2], np.array([7, 0]))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["00000-7.png", "00001-0.png"]


def test_png_is_a_grid(tmp_path, colours):
    said = save_images(tmp_path / "a.png", colours)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), image_grid(colours, 3))
    assert said == f"a grid of 5 images to {tmp_path}/a.png"


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a"])
def test_existing_output_is_refused_and_kept(tmp_path, colours, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"a new path is required for .*{name} exists"):
        save_images(tmp_path / name, colours)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["a.jpg", "a.npy", "a.PNG"])
def test_unknown_ending_is_refused(tmp_path, colours, name):
    with pytest.raises(ValueError, match=rf"end in .png or .npz or have no ending, got .*{name}"):
        save_images(tmp_path / name, colours)
    assert list(tmp_path.iterdir()) == []


def test_check_output_accepts_what_can_be_written(tmp_path):
    for name in ("a.png", "a.npz", "a"):
        check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "a.npz", "a.jpg"])
def test_check_png_refuses_other_endings(tmp_path, name):
    with pytest.raises(ValueError, match=f"an output must end in .png, got .*{name}"):
        check_png(tmp_path / name, tmp_path)


def test_check_png_refuses_an_existing_file(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(FileExistsError, match=r"a new path is required for .*a\.png exists"):
        check_png(tmp_path / "a.png", tmp_path)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("a.png", "Image.fromarray"), ("a.npz", "np.savez_compressed"), ("out", "to_pil")],
)
def test_interrupted_write_leaves_nothing(tmp_path, colours, monkeypatch, name, broken):
    where, _, what = f"pipelines.files.images.{broken}".rpartition(".")
    calls = []

    def interrupted(*arguments, **_):
        calls.append(arguments)
        if name != "out" or len(calls) == 3:  # the third of the single files
            raise KeyboardInterrupt
        return Image.new("L", (2, 2))

    monkeypatch.setattr(f"{where}.{what}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_images(tmp_path / name, colours)
    assert list(tmp_path.iterdir()) == []


def test_single_files_of_four_channels_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="a PNG needs 1 or 3 channels, got 4"):
        save_images(tmp_path / "out", np.zeros((2, 4, 3, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
