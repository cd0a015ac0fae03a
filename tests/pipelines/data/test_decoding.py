import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, features
from tiny_runs import environment

from pipelines.data import decoding
from pipelines.data.decoding import (
    BrokenImageError,
    TooLargeImageError,
    decoding_threads,
    read_all,
    read_header,
    read_pixels,
    readable_endings,
)
from pipelines.data.form import ImageForm

FORMATS = {"jfif": "JPEG", "webp": "WEBP", "tif": "TIFF", "avif": "AVIF"}


@pytest.mark.parametrize("ending", [e for e in FORMATS if e != "avif" or features.check("avif")])
def test_read_pixels_reads_other_formats_than_png(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (6, 4), (200, 100, 40)).save(path, FORMATS[ending])
    pixels = read_pixels(path, ImageForm(), 3).astype(int)
    assert pixels.shape == (3, 4, 6)
    assert np.abs(pixels - np.array([200, 100, 40])[:, None, None]).max() <= 4  # lossy formats
    assert f".{ending}" in readable_endings()


def test_read_pixels_reads_heic_where_pillow_heif_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.HEIC"
    image = pillow_heif.from_pillow(Image.new("RGB", (64, 32), (200, 100, 40)))
    image.save(path)
    assert ".heic" in readable_endings()
    pixels = read_pixels(path, ImageForm(), 3).astype(int)
    assert np.abs(pixels - np.array([200, 100, 40])[:, None, None]).max() <= 4


def test_read_pixels_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (
        read_pixels(tmp_path / "a.gif", ImageForm(), 1).tolist() == np.full((1, 4, 4), 10).tolist()
    )


def test_read_pixels_refuses_other_formats_of_pillow(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", "EPS")
    with pytest.raises(BrokenImageError, match=r"a\.png .*not a PNG, JPEG"):
        read_pixels(tmp_path / "a.png", ImageForm(), 3)


def test_read_pixels_keeps_its_sentence_on_one_line(tmp_path):
    path = tmp_path / "two\nlines.png"
    path.write_text("no image")
    with pytest.raises(BrokenImageError, match=r"two\\nlines\.png "):
        read_pixels(path, ImageForm(), 3)


def gray_png(path, width, height):
    """A PNG of black pixels, written without holding them."""
    packed = zlib.compressobj()
    row = bytes(1 + width)
    data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
            for name, content in chunks
        )
    )
    return path


def test_a_png_above_the_bound_is_refused_and_one_below_it_read(tmp_path):
    path = gray_png(tmp_path / "a.png", 2000, 1001)
    with pytest.raises(TooLargeImageError, match=r"a\.png .* 2 megapixels, got 2000x1001"):
        read_pixels(path, ImageForm((8, 8)), 1, 2)
    assert read_pixels(path, ImageForm((8, 8)), 1, 3).shape == (1, 8, 8)


def test_bound_of_a_jpeg_holds_for_the_fraction_that_is_decoded(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("L", (2000, 1600), 77).save(path)
    with pytest.raises(TooLargeImageError, match="at most 1 megapixels, got 2000x1600"):
        read_pixels(path, ImageForm(), 1, 1)
    assert read_pixels(path, ImageForm((8, 8)), 1, 1).tolist() == np.full((1, 8, 8), 77).tolist()
    assert read_header(path, ImageForm((8, 8)), 1).num_pixels == 250 * 200


def test_bound_of_a_progressive_jpeg_holds_for_the_whole(tmp_path):
    # Its coefficients are all in memory before a row of pixels is.
    path = tmp_path / "a.jpg"
    Image.new("RGB", (2000, 1600)).save(path, progressive=True)
    with pytest.raises(TooLargeImageError, match="at most 3 megapixels, got 2000x1600"):
        read_pixels(path, ImageForm((8, 8)), 3, 3)


def test_bound_of_a_jpeg_with_a_scan_per_colour_holds_for_the_whole(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (2000, 1600)).save(path)
    data = path.read_bytes()
    start = data.index(b"\xff\xda")
    assert data[start + 4] == 3  # colours of the first scan
    path.write_bytes(data[: start + 2] + b"\x00\x08\x01\x01\x00\x00\x3f\x00" + data[start + 14 :])
    with pytest.raises(TooLargeImageError, match="got 2000x1600"):
        read_pixels(path, ImageForm((8, 8)), 3, 3)


def test_decoding_threads_give_pillow_its_bound_back():
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(KeyError), decoding_threads():
        raise KeyError
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("num_pixels", "expected"),
    [
        ([0, 0, 0, 0, 0], [3, 2]),
        ([5, 5, 1, 1], [2, 2]),
        ([1, 99, 99, 1], [1, 1, 1, 1]),
    ],
    ids=["number", "pixels", "two large"],
)
def test_files_are_read_in_runs_of_bounded_number_and_pixels(monkeypatch, num_pixels, expected):
    monkeypatch.setattr(decoding, "WINDOW", 3)
    monkeypatch.setattr(decoding, "WINDOW_PIXELS", 10)
    windows = list(decoding._windows(num_pixels))
    assert [window.stop - window.start for window in windows] == expected
    assert [i for window in windows for i in range(window.start, window.stop)] == list(
        range(len(num_pixels))
    )


def test_read_all_keeps_the_order_and_notes_errors():
    def read(number):
        if number == 2:
            raise BrokenImageError("broken")
        return number * 10

    with decoding_threads() as pool:
        results = list(read_all(pool, range(4), read, [2**30, 1, 1, 2**30]))
    assert [path for path, _ in results] == [0, 1, 2, 3]
    assert isinstance(results[2][1], BrokenImageError)
    assert [results[i][1] for i in (0, 1, 3)] == [0, 10, 30]


PEAK = """
import os, sys
os.cpu_count = lambda: 8
from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.benchmarks.peak_memory import rise_of_peak
config = DataConfig(source=f"folder:{sys.argv[1]}", image_size=(64, 64))
print(rise_of_peak(lambda: load_splits(config)))
"""


@pytest.mark.slow
def test_large_images_are_decoded_one_at_a_time(tmp_path):
    levels = np.zeros((9400, 9400), np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(file.getvalue())
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # Megabytes: an image has 177 of 16-bit pixels and 88 of 8-bit ones.
    assert float(done.stdout) < 2 * (177 + 88)
