import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import decoding
from pipelines.data.config import DataConfig
from pipelines.data.folder import empty_pixels, load_folder


def load(folder: Path, **options):
    return load_folder(folder, DataConfig(source=f"folder:{folder}", **options))


def first_values(splits):
    """The first pixel value of every image of every split."""
    return sorted(
        int(value) for part in splits.by_name.values() for value in part.images[:, 0, 0, 0]
    )


@pytest.fixture
def gray_levels(tmp_path, write_image):
    """Twenty gray images whose level is their number; labels tell even from odd."""
    for level in range(20):
        name = f"{'odd' if level % 2 else 'even'}/{level:02}.png"
        write_image(tmp_path / name, level, mode="L")
    return tmp_path


def test_load_folder_reads_every_image_once(gray_levels):
    assert first_values(load(gray_levels)) == list(range(20))


def test_load_folder_keeps_labels_with_their_images(gray_levels):
    splits = load(gray_levels)
    assert splits.class_names == ("even", "odd")
    for part in splits.by_name.values():
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 2)


def test_load_folder_gives_the_same_order_whatever_the_threads(gray_levels, monkeypatch):
    before = load(gray_levels)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(decoding, "WINDOW", 3)
    np.testing.assert_array_equal(before.train.images, load(gray_levels).train.images)


def test_load_folder_is_gray_unless_one_image_has_colours(gray_levels, write_image):
    assert load(gray_levels).image_shape == (1, 4, 6)
    write_image(gray_levels / "odd" / "colour.png")
    assert load(gray_levels).image_shape == (3, 4, 6)


def test_load_folder_converts_to_the_given_channels_and_size(gray_levels):
    assert load(gray_levels, channels=3, image_size=(8, 3)).image_shape == (3, 8, 3)


def test_load_folder_counts_images_that_lose_much_to_the_crop(gray_levels, write_image):
    # 4x6 to 4x4 keeps two thirds; 4x7 and 9x4 keep less.
    write_image(gray_levels / "odd" / "wide.png", 0, (7, 4), "L")
    write_image(gray_levels / "odd" / "high.png", 0, (4, 9), "L")
    (note,) = load(gray_levels, image_size=(4, 4)).notes
    assert note.startswith("2 of 22 images lose more than a third of their pixels")
    assert "--data.fit pad" in note
    assert load(gray_levels, image_size=(4, 4), fit="pad").notes == ()


def test_load_folder_says_nothing_of_what_broken_files_lose(gray_levels):
    text(gray_levels / "even" / "12.png")
    splits = load(gray_levels, image_size=(4, 8), skip_broken=True)
    assert (splits.skipped, splits.notes) == (1, ())


def test_load_folder_names_the_background_of_transparent_images(gray_levels, write_image):
    write_image(gray_levels / "odd" / "a.png", (0, 0), mode="LA")
    splits = load(gray_levels, background="gray")
    (note,) = splits.notes
    assert re.match(r"1 of 21 images .* gray \(--data\.background\)", note)
    assert first_values(splits) == sorted([*range(20), 128])


def test_load_folder_pads_with_the_background(gray_levels):
    images = load(gray_levels, image_size=(6, 6), fit="pad", background="#070707").train.images
    assert (images[:, :, [0, 5]] == 7).all()
    assert (images[:, :, 1:5] == images[:, :, 1:2, :1]).all()


def test_load_folder_decodes_no_more_than_the_limit(gray_levels, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        decoding,
        "to_pixels",
        lambda image, *_: decoded.append(image.filename) or np.zeros((1, 4, 6), np.uint8),
    )
    load(gray_levels, limit=2)
    assert len(decoded) == 2 + 2 + 2


def test_load_folder_uses_the_splits_of_the_folder(tmp_path, write_image):
    for name, level in (("train/1", 1), ("train/2", 2), ("val/3", 3), ("test/4", 4)):
        write_image(tmp_path / f"{name}.png", level, mode="L")
    splits = load(tmp_path)
    assert sorted(splits.train.images[:, 0, 0, 0].tolist()) == [1, 2]
    assert splits.validation.images[:, 0, 0, 0].tolist() == [3]
    assert splits.test.images[:, 0, 0, 0].tolist() == [4]


def test_load_folder_refuses_two_images(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"at least 3 images .*, got 2"):
        load(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not an image")


def other_format(path):
    Image.new("L", (6, 4)).save(path, "ICO")


UNKNOWN = "not a PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF file"
TRUNCATED = "(image file is truncated|unrecognized data stream|Truncated)"


@pytest.mark.parametrize(
    ("damage", "ending", "reason"),
    [
        (truncate, "png", TRUNCATED),
        (truncate, "webp", ""),
        (empty, "jpg", UNKNOWN),
        (other_format, "png", UNKNOWN),
    ],
)
def test_load_folder_names_a_broken_file_the_reason_and_the_option(
    gray_levels, write_image, damage, ending, reason
):
    damage(write_image(gray_levels / "odd" / f"99.{ending}"))
    with pytest.raises(ValueError, match=rf"99\.{ending} .*{reason}.* --data\.skip-broken"):
        load(gray_levels)


def test_load_folder_skips_and_counts_broken_files(gray_levels):
    truncate(gray_levels / "odd" / "07.png")
    text(gray_levels / "even" / "12.png")
    splits = load(gray_levels, skip_broken=True)
    assert splits.skipped == 2
    assert first_values(splits) == [level for level in range(20) if level not in (7, 12)]


def test_load_folder_moves_no_image_when_another_breaks(gray_levels):
    before = load(gray_levels).validation.images
    text(gray_levels / "even" / "00.png")
    after = load(gray_levels, skip_broken=True)
    np.testing.assert_array_equal(before, after.validation.images)


def test_load_folder_refuses_a_split_of_broken_files(tmp_path, write_image):
    for name in ("train/1", "train/2", "train/3", "test/4"):
        write_image(tmp_path / f"{name}.png")
    text(tmp_path / "test/4.png")
    with pytest.raises(ValueError, match=r"got 1 broken files, .*4\.png"):
        load(tmp_path, skip_broken=True)


def test_load_folder_bounds_megapixels_by_an_option_that_it_names(tmp_path, write_image):
    for name in "abc":
        write_image(tmp_path / f"{name}.png", 7, mode="L", size=(1001, 1000))
    message = r"\.png .* 1 megapixels, got 1001x1000: .*--data\.max-image-megapixels"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, max_image_megapixels=1)
    splits = load(tmp_path, max_image_megapixels=2, image_size=(4, 4))
    assert splits.train.images.tolist() == np.full((1, 1, 4, 4), 7).tolist()


def test_load_folder_names_both_images_where_splits_differ_in_size(tmp_path, write_image):
    write_image(tmp_path / "test" / "1.png", size=(7, 5))
    for name in "23":
        write_image(tmp_path / "train" / f"{name}.png")
    message = r"5x7 .*test/1\.png .*4x6 .*train/\d\.png: .*--data\.image-size"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_load_folder_names_the_option_beside_a_dangling_link(gray_levels):
    (gray_levels / "z").symlink_to("/nonexistent/z")
    with pytest.raises(ValueError, match=r"/z .*--data\.skip-broken"):
        load(gray_levels)
    assert load(gray_levels, skip_broken=True).notes == ("1 link to nothing (z) is left out",)


def copy_wrapped(folder, target):
    shutil.copytree(folder, target / "wrapped" / "again")


def link(folder, target):
    target.symlink_to(folder)


@pytest.mark.parametrize("move", [copy_wrapped, link])
def test_fingerprint_of_a_folder_is_of_its_content_only(gray_levels, tmp_path_factory, move):
    before = load(gray_levels).fingerprint
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    move(gray_levels, elsewhere)
    assert load(elsewhere).fingerprint == before


def test_fingerprint_of_a_folder_does_not_depend_on_a_run_in_it(gray_levels, begin_run):
    before = load(gray_levels).fingerprint
    begin_run(gray_levels / "runs" / "smoke")
    assert load(gray_levels).fingerprint == before


def test_fingerprint_does_not_depend_on_the_spelling_of_a_path(gray_levels, monkeypatch):
    monkeypatch.chdir(gray_levels / "odd")
    assert load(Path("..")).fingerprint == load(gray_levels).fingerprint


def test_fingerprint_does_not_depend_on_how_a_name_is_composed(tmp_path, write_image):
    fingerprints = set()
    for name in ("caf\u00e9", "cafe\u0301"):
        for level in range(9):
            folder = (name, "cafz")[level % 2]
            write_image(tmp_path / name / folder / f"{level}.png", level, mode="L")
        fingerprints.add(load(tmp_path / name).fingerprint)
    assert len(fingerprints) == 1


def test_load_folder_reads_sound_pixels_under_damaged_metadata(tmp_path, write_image):
    exif = Image.Exif()
    exif[0x010E] = "a description long enough to lie outside of the directory"
    for name in "abc":
        path = write_image(tmp_path / f"{name}.jpg", exif=exif)
        # The count of the description's entry, the only one: now far beyond the data.
        path.write_bytes(
            path.read_bytes().replace(b"\x01\x0e\x00\x02\x00\x00", b"\x01\x0e\x00\x02\x7f\xff")
        )
    assert len(load(tmp_path).train) == 1


def test_load_folder_above_the_memory_limit_equals_memory(gray_levels, tmp_path):
    in_memory = load(gray_levels)
    mapped = load(gray_levels, max_memory_mib=0, root=tmp_path / "root")
    assert isinstance(mapped.train.images, np.memmap)
    assert mapped.fingerprint == in_memory.fingerprint
    assert list((tmp_path / "root").iterdir()) == []


def test_empty_pixels_refuses_a_full_disk(tmp_path):
    config = DataConfig(root=tmp_path, max_memory_mib=1)
    message = r"need \d+ MiB in .* \d+ MiB left"
    with pytest.raises(OSError, match=message):
        empty_pixels((2**40, 3, 1024, 1024), config)
