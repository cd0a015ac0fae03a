"""FID's network against torch-fidelity itself, with random weights in place of the published."""

import hashlib
from unittest import mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from pipelines.evaluation.metrics import feature_networks
from pipelines.evaluation.metrics.feature_networks import (
    download_inception,
    inception_network,
    inception_weights,
)

PUBLISHED = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture
def checkpoints(tmp_path):
    """An empty cache of torch's hub."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture
def publish(checkpoints, monkeypatch):
    """Makes a content the published one; returns where it belongs."""

    def publish(content):
        name = f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setattr(feature_networks, "_URL", f"https://example.org/{name}")
        return checkpoints / name

    return publish


def test_weights_are_those_that_torch_fidelity_downloads():
    assert feature_networks._URL == feature_extractor_inceptionv3.URL_INCEPTION_V3


def test_weights_are_recognised_by_their_hash(publish):
    path = publish(b"weights")
    assert inception_weights() is None
    path.write_bytes(b"weights")
    assert inception_weights() == path


def test_weights_with_another_hash_are_refused(checkpoints):
    (checkpoints / PUBLISHED).write_bytes(b"half of the wei")
    for refuse in (inception_weights, download_inception):
        with pytest.raises(ValueError, match=f"{PUBLISHED} must begin as .* it is .* damaged"):
            refuse()


def test_weights_are_downloaded_when_asked_for(publish, monkeypatch):
    path = publish(b"weights")
    download = mock.Mock(side_effect=lambda *_, **__: path.write_bytes(b"weights"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path.parent.rmdir()
    download_inception()
    download_inception()  # they are there
    address = f"https://example.org/{path.name}"
    download.assert_called_once_with(address, str(path), hash_prefix=path.stem[-8:])
    assert inception_weights() == path


def test_failed_download_says_where_the_file_belongs(checkpoints, monkeypatch):
    download = mock.Mock(side_effect=URLError("no route"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(RuntimeError, match=rf"{PUBLISHED} .*no route.*: put .* into {checkpoints}"):
        download_inception()


def test_weights_are_no_use_without_torch_fidelity(publish, monkeypatch):
    publish(b"weights").write_bytes(b"weights")
    monkeypatch.setattr(feature_networks, "has_torch_fidelity", lambda: False)
    with pytest.raises(RuntimeError, match="run pip install torch-fidelity"):
        download_inception()


class Code:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).mkdir, (self.path,)


def test_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path):
    path = tmp_path / PUBLISHED
    torch.save({"fc.bias": Code(tmp_path / "made")}, path)
    with pytest.raises(ValueError, match="tensors and nothing else"):
        inception_network(path, torch.device("cpu"))
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """A file of random weights, and torch-fidelity's network with them."""
    with (
        mock.patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url"),
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(0)
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # features of the inputs' size
    path = tmp_path_factory.mktemp("weights") / PUBLISHED
    torch.save(model.state_dict(), path)
    return path, model


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "count"), [(1, 2), (3, 1)])
def test_features_are_those_of_torch_fidelity(random_inception, channels, count, monkeypatch):
    monkeypatch.setattr(feature_networks, "_INCEPTION_BATCH", 1)
    path, model = random_inception
    shape = (count, channels, 28, 20)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network = inception_network(path, torch.device("cpu"))
    features = network.features(images)
    assert (network.frechet, network.kernel, network.hash) == ("FID", "KID", "6726825d")
    assert features.shape == (count, network.num_features) == (count, 2048)
    (expected,) = model(torch.from_numpy(images.repeat(3 // channels, axis=1)))
    # Channels last sums in another order.
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
