import math

import numpy as np
import pytest
import torch
from tiny_vqvae import changed, make_model, random_images, state_of

from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.images import to_uint8
from stage1_vqvae.model import VQVAE

SHAPES = [
    *(((1, 28, 28), 4), ((3, 17, 23), 2), ((3, 17, 23), 4), ((3, 17, 23), 8), ((3, 17, 23), 16)),
    *(((1, 1, 1), 2), ((1, 1, 1), 16), ((3, 32, 16), 8), ((4, 5, 2), 4)),
]


@pytest.mark.parametrize(("shape", "downsampling"), SHAPES)
def test_encode_returns_a_grid_of_ceiled_size_and_decode_the_training_size(shape, downsampling):
    model = make_model(shape, downsampling=downsampling)
    (codes,) = model.encode(random_images(2, *shape))
    grid = tuple(math.ceil(side / downsampling) for side in shape[1:])
    assert codes.shape == (2, *grid)
    assert codes.dtype == torch.int64
    assert model.grid_shapes == (grid,)
    images = model.decode((codes,))
    assert images.shape == (2, *shape)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("likelihood", ["mse", "l1", "bernoulli"])
def test_decode_shows_what_forward_computes(likelihood):
    model = make_model((3, 9, 6), likelihood=likelihood)
    images = random_images(2, 3, 9, 6)
    with torch.no_grad():
        output = model(images).output
    expected = to_uint8(model.likelihood.mean(output)).int()
    decoded = model.decode(model.encode(images)).int()
    # The same convolutions, maybe summed in another order: a value may round to the next level.
    assert (decoded - expected).abs().max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 1), (30, 4)])
def test_forward_keeps_the_size_of_any_images(size):
    model = make_model((1, 8, 8), downsampling=4)
    images = random_images(2, 1, *size)
    assert model(images).output.shape == (2, 1, *size)
    grid = math.ceil(size[0] / 4), math.ceil(size[1] / 4)
    assert model.encode_features(images).shape == (2, 4, *grid)


def test_reconstruct_is_decode_of_encode_with_the_loss_of_forward():
    model, images = make_model((3, 9, 6)), random_images(2, 3, 7, 11)
    found, default = model.reconstruct(images), ImageTokenizer.reconstruct(model, images)
    assert all(map(torch.equal, found.codes, model.encode(images)))
    assert all(map(torch.equal, default.codes, found.codes))
    # The same convolutions, maybe summed in another order: a value may round to the next level.
    assert (found.images.int() - default.images.int()).abs().max() <= 1
    assert torch.equal(found.loss, model(images).reconstruction_loss)
    error = (default.images.double() - images.double()) / 127.5
    assert default.loss.item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_encode_takes_images_of_another_size_than_trained():
    # Without residual blocks a code depends on its neighbours only: the middle of a big image has
    # the codes of the part alone, except at the part's border.
    model = make_model((1, 8, 8), num_layers=0)
    images = random_images(1, 1, 20, 24)
    (whole,), (part,) = model.encode(images), model.encode(images[..., 4:16, 6:20])
    assert torch.equal(part[:, 1:-1, 1:-1], whole[:, 3:7, 4:9])


def test_encode_sees_no_pixel_beyond_its_receptive_field():
    model = make_model((1, 32, 32), num_layers=0)
    images = random_images(1, 1, 32, 32)
    changed_images = images.clone()
    changed_images[..., :2, :2] = 255 - images[..., :2, :2]
    differs = model.encode(images)[0] != model.encode(changed_images)[0]
    assert not differs[:, 2:].any()
    assert not differs[:, :, 2:].any()


def test_encode_of_a_batch_is_that_of_its_images():
    model = make_model((1, 8, 8))
    images = random_images(5, 1, 8, 8)
    alone = torch.cat([model.encode(image[None])[0] for image in images])
    assert torch.equal(model.encode(images)[0], alone)


def test_encode_in_training_mode_changes_nothing():
    model = make_model((1, 8, 8)).train()
    before = state_of(model)
    model.encode(random_images(2, 1, 8, 8))
    assert not changed(before, state_of(model))


def test_decode_of_other_grids_gives_the_whole_area():
    model = make_model((1, 7, 7), downsampling=4)
    assert model.decode((torch.zeros(1, 3, 5, dtype=torch.int64),)).shape == (1, 1, 12, 20)


def test_decode_gives_contiguous_images():
    # A crop of channels-last convolutions would be neither, which `view` and safetensors refuse.
    model = make_model((3, 7, 7), downsampling=4)
    assert model.decode((torch.zeros(2, 2, 2, dtype=torch.int64),)).is_contiguous()


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (8, 8)])
def test_decode_crops_to_the_asked_size(size):
    model = make_model((1, 6, 6), downsampling=4)
    codes = (torch.randint(0, 7, (2, 2, 2)),)
    whole = model.decode(codes, (8, 8))
    assert torch.equal(model.decode(codes, size), whole[..., : size[0], : size[1]])


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (0, 8), (8, -1)])
def test_decode_to_an_impossible_size_is_refused(size):
    model = make_model((1, 6, 6), downsampling=4)
    message = r"size must be at least 1 and at most the decoded \(8, 8\), got"
    with pytest.raises(ValueError, match=message):
        model.decode((torch.zeros(1, 2, 2, dtype=torch.int64),), size)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (torch.zeros(1, 4, 4).long(), ValueError, "a tuple of 1 grids, got Tensor"),
        ([torch.zeros(1, 4, 4).long()], ValueError, "a tuple of 1 grids, got list"),
        ((torch.zeros(1, 4, 4).long(),) * 2, ValueError, "a tuple of 1 grids, got 2"),
        ((torch.zeros(1, 4, 4).int(),), TypeError, "codes must be int64, got torch.int32"),
        ((np.zeros((1, 4, 4), np.int64),), TypeError, "codes must be int64 tensors, got ndarray"),
        ((torch.zeros(4, 4).long(),), ValueError, r"shape \(B, h, w\), got \(4, 4\)"),
        ((torch.full((1, 4, 4), 7),), ValueError, r"in \[0, 7\), got 7 to 7"),
        ((torch.tensor([[[-1, 3]]]),), ValueError, r"in \[0, 7\), got -1 to 3"),
    ],
)
def test_decode_of_impossible_codes_is_refused(codes, error, message):
    with pytest.raises(error, match=message):
        make_model((1, 8, 8)).decode(codes)


@pytest.mark.parametrize("method", ["encode", "reconstruct"])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((1, 1, 8, 8), np.uint8), TypeError, "uint8 tensors, got ndarray"),
        (torch.zeros(1, 1, 8, 8), TypeError, r"uint8 .* got torch.float32"),
        (torch.zeros(8, 8, dtype=torch.uint8), ValueError, r"\(B, C, H, W\), got \(8, 8\)"),
        (random_images(1, 3, 8, 8), ValueError, "1 channels as in training, got 3"),
    ],
)
def test_impossible_images_are_refused(method, images, error, message):
    with pytest.raises(error, match=message):
        getattr(make_model((1, 8, 8)), method)(images)


@pytest.mark.parametrize("kind", ["ema", "finite_scalar", "residual"])
def test_an_empty_batch_is_encoded_to_empty_grids_and_back(kind):
    model = make_model((3, 9, 6), kind, downsampling=4)
    images = random_images(2, 3, 9, 6)[:0]
    codes = model.encode(images)
    assert [grid.shape for grid in codes] == [(0, 3, 2)] * len(model.codebook_sizes)
    assert {grid.dtype for grid in codes} == {torch.int64}
    assert torch.equal(model.decode(codes), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_dtype_are_refused(dtype):
    model = make_model((1, 8, 8)).to(dtype)
    images, codes = random_images(1, 1, 8, 8), (torch.zeros(1, 4, 4, dtype=torch.int64),)
    for method, given in (
        (model.encode, images),
        (model.reconstruct, images),
        (model.decode, codes),
    ):
        with pytest.raises(TypeError, match=rf"float32 .*, got {dtype}: call .float\(\)"):
            method(given)


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 0, 8), (1, 8), (1, 8, -1), (1, 8, 65_537)])
def test_impossible_image_shapes_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"image_shape must be \(C, H, W\), each from 1 to 65,536, got"
    ):
        VQVAE(VQVAEConfig(width=4), shape)
