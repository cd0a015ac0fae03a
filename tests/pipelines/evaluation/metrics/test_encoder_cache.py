"""The cache of encoders: each is trained once per data set and settings, and checked when read."""

import numpy as np
import pytest
import torch

from pipelines.data.image_set import ImageSet
from pipelines.evaluation.metrics.encoder_cache import cached_encoder, encoder_directory
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.feature_encoder import EncoderTraining
from pipelines.training.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(name="fp32", reason="it was asked for")
SHORT = EncoderTraining(epochs=0, min_steps=3, batch_size=16)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
IMAGES = ImageSet(NOISE, np.arange(20) % 2)


def cached(folder, fingerprint="a" * 16, num_classes=2, training=SHORT):
    return cached_encoder(
        folder,
        IMAGES,
        num_classes,
        fingerprint=fingerprint,
        device=CPU,
        precision=FP32,
        training=training,
    )


@pytest.mark.parametrize("num_classes", [2, None])
def test_cached_encoder_is_the_one_that_was_trained(num_classes, tmp_path):
    first, key = cached(tmp_path, num_classes=num_classes)
    (path,) = tmp_path.iterdir()
    assert key.rpartition("-")[0] == path.name
    assert encoder_directory(tmp_path, "a" * 16, 1, num_classes, SHORT) == path
    written = (path / "model.safetensors").stat().st_mtime_ns
    second, again = cached(tmp_path, num_classes=num_classes)
    assert again == key
    assert isinstance(second, FeatureClassifier) == (num_classes is not None)
    assert torch.equal(first.features(NOISE), second.features(NOISE))
    assert (path / "model.safetensors").stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]


def test_other_data_or_settings_have_an_encoder_of_their_own(tmp_path):
    keys = {
        cached(tmp_path)[1],
        cached(tmp_path, num_classes=None)[1],
        cached(tmp_path, fingerprint="b" * 16)[1],
        cached(tmp_path, training=EncoderTraining(min_steps=2, max_epochs=1))[1],
    }
    assert {path.name for path in tmp_path.iterdir()} == {key.rpartition("-")[0] for key in keys}
    assert len(keys) == 4


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_cache_is_refused(name, tmp_path):
    cached(tmp_path)
    (folder,) = tmp_path.iterdir()
    path = folder / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"must hold a whole feature network, .* remove that"):
        cached(tmp_path)
