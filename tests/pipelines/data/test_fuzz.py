"""Damaged files are read, or refused in one sentence that names them. FUZZ_CASES sets how many."""

import os
import random

import numpy as np
import pytest
from damaged_files import IMAGE_FORMATS, damaged_idx, damaged_image, damaged_npz
from PIL import Image, features

from pipelines.benchmarks.peak_memory import rise_of_peak
from pipelines.data.config import DataConfig
from pipelines.data.idx import read_labelled_idx
from pipelines.data.load import load_splits

CASES = int(os.environ.get("FUZZ_CASES", "400"))
BATCH = 200  # cases per test
MOST_MEMORY = 800  # megabytes: 89 million pixels of 8 bytes, as a header of a few bytes may claim
ENDINGS = [ending for ending in IMAGE_FORMATS if ending != "avif" or features.check("avif")]


def read_damaged_images(rng, folder):
    for i in range(4):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(folder / f"{i}.png")
    ending = rng.choice(ENDINGS)
    (folder / f"x.{ending}").write_bytes(damaged_image(rng, ending))
    size = rng.choice((None, (8, 8)))
    load_splits(DataConfig(source=f"folder:{folder}", image_size=size))


def read_damaged_idx(rng, folder):
    images = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    (folder / "images").write_bytes(damaged_idx(rng, images))
    (folder / "labels").write_bytes(damaged_idx(rng, np.arange(5, dtype=np.uint8)))
    read_labelled_idx(folder / "images", folder / "labels", 10)


def read_damaged_npz(rng, folder):
    images = np.arange(20 * 12, dtype=np.uint8).reshape(20, 3, 4)
    (folder / "set.npz").write_bytes(
        damaged_npz(rng, {"images": images, "labels": np.arange(20) % 3})
    )
    load_splits(DataConfig(source=f"npz:{folder / 'set.npz'}"))


READERS = (read_damaged_images, read_damaged_images, read_damaged_idx, read_damaged_npz)


def read_or_refuse(case, folder):
    rng = random.Random(case)
    folder.mkdir()
    try:
        READERS[case % len(READERS)](rng, folder)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        sentence = str(error)
        assert len(sentence.splitlines()) == 1, (case, sentence)
        assert str(folder) in sentence, (case, sentence)


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_damaged_files_are_read_or_refused_in_one_sentence(first, tmp_path):
    def read_batch():
        for case in range(first, min(first + BATCH, CASES)):
            read_or_refuse(case, tmp_path / f"case {case}")

    assert rise_of_peak(read_batch) < MOST_MEMORY
