"""Random crops and mirrored images."""

import pytest
import torch

from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig

ROWS, COLUMNS = 7, 9


def numbered(batch):
    """Images (B, 2, ROWS, COLUMNS) whose pixels are their place, the second channel 100 more."""
    image = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    return torch.stack([image, image + 100]).to(torch.uint8).repeat(batch, 1, 1, 1)


def augmented(seed=0, batch=4800, **config):
    torch.manual_seed(seed)
    return VQVAEAugmentationConfig(**config)(numbered(batch))


@pytest.mark.parametrize("flip", [False, True])
def test_every_window_and_its_mirror_image_is_as_likely(flip):
    found = augmented(crop=4, flip=flip)
    image, windows = numbered(1)[0], {}
    for top in range(ROWS - 3):
        for left in range(COLUMNS - 3):
            window = image[:, top : top + 4, left : left + 4]
            for mirrored in (False, True)[: 1 + flip]:
                windows[top, left, mirrored] = window.flip(2) if mirrored else window
    every = torch.stack(list(windows.values()))  # (n, 2, 4, 4)
    which = (found[:, None] == every).flatten(2).all(dim=2)  # (4800, n)
    assert which.sum(dim=1).tolist() == [1] * len(found)
    counts = which.sum(dim=0)
    mean = len(found) / len(every)
    assert (counts - mean).abs().max() < 5 * mean**0.5  # five standard deviations


def test_mirror_leaves_the_size():
    found, image = augmented(batch=200, flip=True), numbered(1)[0]
    mirrored = (found == image.flip(2)).flatten(1).all(dim=1)
    assert (mirrored | (found == image).flatten(1).all(dim=1)).all()
    assert 60 < mirrored.sum() < 140  # 100, six standard deviations


def test_same_seed_gives_the_same_images():
    first, again, other = (augmented(seed, 50, crop=4, flip=True) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_whole_square_is_its_only_crop():
    images = numbered(3)[..., :ROWS]
    assert torch.equal(VQVAEAugmentationConfig(crop=ROWS)(images), images)


def test_nothing_is_drawn_without_augmentation():
    images, config = numbered(2), VQVAEAugmentationConfig()
    before = torch.get_rng_state()
    assert config(images) is images
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("config", "size", "said"),
    [
        ({}, (48, 80), ""),
        ({"crop": 32}, (32, 32), "random 32x32 crops"),
        ({"crop": 32, "flip": True}, (32, 32), "random 32x32 crops, half of the images mirrored"),
        ({"flip": True}, (48, 80), "half of the images mirrored"),
    ],
)
def test_size_in_training_and_description(config, size, said):
    config = VQVAEAugmentationConfig(**config)
    assert (config.image_size((3, 48, 80)), str(config)) == (size, said)


@pytest.mark.parametrize("crop", [None, 8, 48])
def test_crops_that_fit_are_taken(crop):
    VQVAEAugmentationConfig(crop=crop).check_fits((3, 48, 80), 8)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (56, r"at most the images' smaller side \(48 pixels\), got 56"),
        (30, r"a multiple of vqvae\.downsampling \(8\), got 30: take 24"),
        (3, r"a multiple of vqvae\.downsampling \(8\), got 3: take 8"),
    ],
)
def test_crops_that_do_not_fit_are_refused(crop, message):
    with pytest.raises(ValueError, match=rf"vqvae_augmentation\.crop must be {message}"):
        VQVAEAugmentationConfig(crop=crop).check_fits((3, 48, 80), 8)


def test_crop_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"vqvae_augmentation\.crop must be at least 1.* got 0"):
        VQVAEAugmentationConfig(crop=0)
