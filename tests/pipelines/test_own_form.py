"""A run on padded images: a user's own images are padded like them."""

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, command, pixels, status

from pipelines.data.image_set import ImageSet
from pipelines.files.images import pair_grid
from pipelines.runs.batches import reconstruct_images
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.model import VQVAE

FORM = ("--data.image-size", "12", "8", "--data.fit", "pad", "--data.background", "teal")


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    """A run of 12x8 images from files of 8x10: 6 rows of image, 3 of padding on both sides."""
    run = tmp_path_factory.mktemp("trained") / "run"
    command("train_all", *TINY, *FORM, "--data.source", f"folder:{photos}", "--out", run)
    return run


def test_own_image_is_padded_with_the_background_of_the_run(run, tmp_path):
    Image.new("RGB", (20, 15), (10, 200, 30)).save(tmp_path / "mine.png")
    mine = np.empty((1, 3, 12, 8), np.uint8)
    mine[:] = np.uint8([0, 128, 128])[:, None, None]
    mine[:, :, 3:9] = np.uint8([10, 200, 30])[:, None, None]
    options = ("--images", tmp_path / "mine.png", "--out", tmp_path / "a.png", "--device", "cpu")
    command("reconstruct", "--run", run, *options)
    decoded = reconstruct_images(VQVAE.from_pretrained(run / "vqvae"), ImageSet(mine))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pair_grid(mine, decoded, columns=8))


@pytest.mark.parametrize(
    ("option", "value", "was"),
    [("--data.fit", "stretch", "pad"), ("--data.background", "white", "teal")],
)
def test_resume_in_another_form_is_refused(run, photos, capsys, option, value, was):
    options = (*TINY, *FORM, "--data.source", f"folder:{photos}", "--out", run, "--resume")
    assert status("train_all", *options, option, value) == 1
    assert f"{option} was {was}, is now {value}" in capsys.readouterr().err
    assert RunDirectory(run).config().data.form.fit == "pad"
