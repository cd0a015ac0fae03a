"""Views of images, and how often a prior sees them."""

import pytest
import torch

from pipelines.runs.prior_augmentation import PriorAugmentationConfig, View

# uint8 (1, 1, 3, 4): each pixel its own number.
IMAGE = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View("-"), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        (View("-", flipped=True), [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]),
        (View("-", right=1), [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]),
        (View("-", right=-2), [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]),
        (View("-", down=1), [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]),
        (View("-", down=-1), [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]),
        (View("-", flipped=True, right=1), [[3, 3, 2, 1], [7, 7, 6, 5], [11, 11, 10, 9]]),
        (View("-", down=7), [[0, 1, 2, 3]] * 3),
    ],
)
def test_view_mirrors_then_moves_and_repeats_the_edge(view, expected):
    seen = view(IMAGE)
    assert seen.dtype == torch.uint8
    assert seen[0, 0].tolist() == expected


def test_view_treats_every_image_and_channel_alike():
    images = torch.randint(256, (5, 3, 6, 7), dtype=torch.uint8)
    view = View("-", right=2, down=-1)
    each = [[view(images[i : i + 1, c : c + 1]) for c in range(3)] for i in range(5)]
    assert view(images).equal(torch.cat([torch.cat(row, dim=1) for row in each]))


def test_views_are_the_mirrored_image_and_four_moved_ones():
    views = PriorAugmentationConfig(flip=True, shift=2).other_views
    assert [view.name for view in views] == ["flipped", "right-2", "left-2", "down-2", "up-2"]
    row = torch.zeros(1, 1, 9, 9)
    row[0, 0, 4, 3] = 1
    places = [tuple(view(row)[0, 0].nonzero()[0].tolist()) for view in views]
    assert places == [(4, 5), (4, 5), (4, 1), (6, 3), (2, 3)]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, []),
        ({"flip": True}, ["flipped"]),
        ({"shift": 3}, ["right-3", "left-3", "down-3", "up-3"]),
    ],
)
def test_only_the_views_that_were_asked_for(config, names):
    config = PriorAugmentationConfig(**config)
    assert list(config.names) == names
    assert config.num_views == 1 + len(names)


def test_share_goes_linearly_from_the_first_to_the_last():
    config = PriorAugmentationConfig(flip=True, first_share=0.8, last_share=0.2)
    shares = [config.share(fraction) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.8, 0.65, 0.5, 0.2])


@pytest.mark.parametrize(("shift", "fits"), [(0, True), (6, True), (7, False), (9, False)])
def test_images_are_not_moved_out_of_their_frame(shift, fits):
    config = PriorAugmentationConfig(shift=shift)
    if fits:
        config.check_fits((3, 7, 9))
        return
    with pytest.raises(ValueError, match=rf"must be below .* side \(7 pixels\), got {shift}"):
        config.check_fits((3, 7, 9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shift": -1}, r"prior_augmentation.shift must be at least 0 pixels, got -1"),
        ({"first_share": 1.1}, r"prior_augmentation.first_share must be in \[0, 1\], got 1.1"),
        ({"last_share": -0.1}, r"prior_augmentation.last_share must be in \[0, 1\], got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PriorAugmentationConfig(**values)
