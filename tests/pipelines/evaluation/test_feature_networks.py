"""Inception's features against torchvision itself, with random weights in the cache's place."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models import inception_v3
from torchvision.transforms.v2 import functional as transforms

from pipelines.evaluation.feature_networks import (
    inception_input,
    inception_network,
    inception_weights,
)


@pytest.fixture
def checkpoints(tmp_path):
    """An empty cache of torch's hub."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def test_missing_weights_are_not_downloaded(checkpoints):
    assert inception_weights(download=False) is None
    assert list(checkpoints.iterdir()) == []


def test_weights_are_recognised_by_their_hash(checkpoints):
    digest = hashlib.sha256(b"weights").hexdigest()
    path = checkpoints / f"inception_v3_google-{digest[:8]}.pth"
    path.write_bytes(b"weights")
    assert inception_weights(download=False) == path


def test_weights_are_downloaded_when_asked_for(checkpoints, monkeypatch):
    asked = []

    def download(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        Path(path).write_bytes(b"not these")

    checkpoints.rmdir()
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    # What was downloaded is checked like what was there.
    with pytest.raises(ValueError, match="must begin as its name ends"):
        inception_weights(download=True)
    url = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
    assert asked == [(url, "0cc3c7bd")]
    assert (checkpoints / "inception_v3_google-0cc3c7bd.pth").exists()


def test_weights_with_another_hash_are_refused(checkpoints):
    (checkpoints / "inception_v3_google-0cc3c7bd.pth").write_bytes(b"half of the wei")
    with pytest.raises(ValueError, match=r"must begin as its name ends, but it is .* damaged"):
        inception_weights(download=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_and_normalised_as_torchvision_does(channels):
    shape = (2, channels, 28, 20)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rgb = torch.from_numpy(images).expand(-1, 3, -1, -1).float() / 255
    resized = transforms.resize(
        rgb, [299, 299], interpolation=transforms.InterpolationMode.BILINEAR, antialias=True
    )
    expected = transforms.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(inception_input(torch.from_numpy(images)), expected)


@pytest.fixture
def random_weights(tmp_path):
    """A file of random weights, and the model that they are of."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    path = tmp_path / "inception_v3_google-12345678.pth"
    torch.save(model.state_dict(), path)
    return path, model


def test_features_are_those_of_the_pooling_layer(random_weights):
    path, model = random_weights
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), dtype=np.uint8)
    pooled = []
    model.avgpool.register_forward_hook(lambda *arguments: pooled.append(arguments[2]))
    with torch.no_grad():
        model(inception_input(torch.from_numpy(images)))
    network = inception_network(path, torch.device("cpu"))
    features = network.features(images)
    assert features.shape == (2, 2048)
    assert (network.frechet, network.kernel, network.hash) == ("FID", "KID", "12345678")
    # Channels last sums in another order.
    torch.testing.assert_close(features, pooled[0].flatten(1), rtol=1e-3, atol=1e-4)


def test_first_convolution_sees_pixels_from_minus_one_to_one(random_weights, monkeypatch):
    # What the weights were trained on, and what torchvision gives them: 2 x - 1 of x in [0, 1].
    seen = []

    def hooked(**options):
        model = inception_v3(**options)
        model.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        return model

    monkeypatch.setattr(torchvision.models, "inception_v3", hooked)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 28, 20), dtype=np.uint8)
    inception_network(random_weights[0], torch.device("cpu")).features(images)
    resized = transforms.resize(
        torch.from_numpy(images).float() / 255,
        [299, 299],
        interpolation=transforms.InterpolationMode.BILINEAR,
        antialias=True,
    )
    # Two normalisations after one another round a few times in float32.
    torch.testing.assert_close(seen[0], 2 * resized - 1, rtol=0, atol=1e-5)
