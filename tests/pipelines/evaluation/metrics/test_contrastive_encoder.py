"""Features learned from the images alone, and their loss against one written out."""

import math

import numpy as np
import pytest
import torch

from pipelines.evaluation.metrics.contrastive_encoder import (
    contrastive_loss,
    random_view,
    train_contrastive_encoder,
)
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining
from pipelines.training.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(name="fp32", reason="it was asked for")


def test_loss_is_that_of_the_paper():
    first, second = torch.randn(2, 3, 5, generator=torch.manual_seed(0)).double()
    outputs = [*first.tolist(), *second.tolist()]

    def similarity(x, y):
        product = sum(a * b for a, b in zip(x, y, strict=True))
        return product / math.dist(x, [0] * 5) / math.dist(y, [0] * 5) / 0.2

    losses = []
    for i, x in enumerate(outputs):
        others = [math.exp(similarity(x, y)) for j, y in enumerate(outputs) if j != i]
        losses.append(math.log(sum(others)) - similarity(x, outputs[(i + 3) % 6]))
    assert contrastive_loss(first, second).item() == pytest.approx(sum(losses) / 6)


def test_view_of_a_plane_is_the_plane_with_another_contrast_and_brightness():
    # A linear ramp stays one under cropping: its differences are all equal, and at most the crop's.
    ramp = torch.linspace(-0.5, 0.5, 9).expand(20, 1, 9, 9).contiguous()
    views = random_view(ramp)
    slopes = views.diff(dim=3)[..., 1:-1]
    assert torch.allclose(slopes, slopes[..., :1, :1].expand_as(slopes), atol=1e-6)
    assert torch.allclose(views.diff(dim=2), torch.zeros(()), atol=1e-6)
    ratios = slopes[:, 0, 0, 0] / (1 / 8)
    assert 0.6 * 0.6 <= ratios.min() < 0.8 < ratios.max() <= 1.4
    assert 0.2 < views.mean(dim=(1, 2, 3)).std() < 0.4


@pytest.fixture(scope="module")
def kinds():
    """Images of four patterns, each in many brightnesses and places; the same, others."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 2, (4, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)

    def drawn(count):
        moves = generator.integers(-2, 3, (count, 2))
        images = (
            60
            + 100 * patterns[np.arange(count) % 4]
            + generator.integers(-40, 41, (count, 1, 1, 1))
        )
        return np.stack(
            [
                np.roll(image, tuple(move), axis=(1, 2))
                for image, move in zip(images, moves, strict=True)
            ]
        ).astype(np.uint8)

    return drawn(64), drawn(64)


def train(images, seed=0, steps=30):
    training = EncoderTraining(epochs=0, min_steps=steps, batch_size=32, learning_rate=2e-3)
    return train_contrastive_encoder(
        images, seed=seed, device=CPU, precision=FP32, training=training
    )


def test_images_of_one_kind_are_near_without_labels(kinds):
    known, new = kinds
    model = train(known)
    nearest = torch.cdist(model.features(new), model.features(known)).argmin(dim=1)
    assert (nearest % 4 == torch.arange(64) % 4).double().mean() > 0.9


def test_training_is_a_function_of_its_seed_and_leaves_the_global_stream_alone(kinds):
    images, _ = kinds
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = train(images, steps=3).features(images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(train(images, steps=3).features(images), first)
    assert not torch.equal(train(images, seed=1, steps=3).features(images), first)
