"""The networks whose features images are compared in, each with the name its figures bear."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.evaluation.feature_classifier import NUM_FEATURES, FeatureClassifier

INCEPTION_CHANNELS = (1, 3)
"""Channels of images that Inception can look at."""
_SIDE = 299
_BATCH = 50
_WEIGHTS = "inception_v3_google-*.pth"
_HASH_DIGITS = 8
_NUM_POOLED = 2048
# Of the images that torchvision's weights were trained on.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """Where images are compared, and what the figures are called."""

    name: str
    """Key in the names of figures, e.g. `classifier`."""
    label: str
    """What a reader calls it."""
    frechet: str
    """What the Frechet distance of its features is called."""
    kernel: str
    """What the kernel distance of its features is called."""
    hash: str
    """Hexadecimal digits that tell it from another of the same name."""
    num_features: int
    """D."""
    features: Callable[[NDArray[np.uint8]], Tensor]
    """float32 (N, D), on the CPU, of uint8 images (N, C, H, W)."""


def classifier_network(classifier: FeatureClassifier, key: str) -> FeatureNetwork:
    """The data's own classifier: its Frechet distance is never called FID."""
    return FeatureNetwork(
        name="classifier",
        label="a classifier of the data's own classes",
        frechet="FD-classifier",
        kernel="KD-classifier",
        hash=key,
        num_features=NUM_FEATURES,
        features=classifier.features,
    )


def inception_weights(*, download: bool) -> Path | None:
    """Torchvision's weights of Inception v3 in torch's cache, or None where they are not there.

    Args:
        download: Whether they may be downloaded (104 MB) where they are missing.

    Raises:
        ValueError: The file is not the one its name promises.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(folder.glob(_WEIGHTS))
    if not found and download:
        url = _inception_url()
        path = folder / url.rpartition("/")[2]
        folder.mkdir(parents=True, exist_ok=True)
        # Not torchvision's own way, which would unpickle the file.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_named_hash(path.name))
        found = [path]
    if not found:
        return None
    path = found[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(_named_hash(path.name)):
        raise ValueError(
            f"the SHA-256 of {path} must begin as its name ends, but it is {digest[:_HASH_DIGITS]}"
            "...: the file is damaged, remove it"
        )
    return path


def expected_inception_hash(*, download: bool) -> str | None:
    """The hash of the network that `inception_weights` would lead to; nothing is downloaded."""
    found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(_WEIGHTS))
    if found:
        return _named_hash(found[0].name)
    return _named_hash(_inception_url()) if download else None


def inception_network(path: Path, device: torch.device) -> FeatureNetwork:
    """The pool features of torchvision's Inception v3 over 299x299, for the usual FID.

    Torchvision's weights are not those of the paper's TensorFlow graph: figures differ a little
    from ones computed with that.
    """
    from torchvision.models import inception_v3

    # The weights were trained on pixels in [-1, 1], to which `transform_input` brings torchvision's
    # own normalisation; torchvision insists on it whenever it loads these weights itself.
    model = inception_v3(weights=None, init_weights=False, transform_input=True)
    # The file is torchvision's, and only so readable; `weights_only` runs no code from it.
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.fc = nn.Identity()
    model.eval().to(device=device, memory_format=torch.channels_last)

    @torch.no_grad()
    def features(images: NDArray[np.uint8]) -> Tensor:
        return torch.cat(
            [
                model(inception_input(torch.from_numpy(images[i : i + _BATCH].copy()).to(device)))
                .float()
                .cpu()
                for i in range(0, len(images), _BATCH)
            ]
        )

    return FeatureNetwork(
        name="inception",
        label="Inception v3, trained on ImageNet",
        frechet="FID",
        kernel="KID",
        hash=_named_hash(path.name),
        num_features=_NUM_POOLED,
        features=features,
    )


def inception_input(images: Tensor) -> Tensor:
    """Normalised float32 (B, 3, 299, 299) of uint8 (B, C, H, W), C = 1 or 3.

    Gray images are repeated over the three channels.
    """
    rgb = images.float().div(255).expand(-1, 3, -1, -1)
    resized = F.interpolate(rgb, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (_MEAN, _STD))
    return (resized - mean) / std


def _inception_url() -> str:
    from torchvision.models import Inception_V3_Weights

    return str(Inception_V3_Weights.IMAGENET1K_V1.url)


def _named_hash(name: str) -> str:
    """The digits that the name of a file of weights ends with."""
    return Path(name).stem.rpartition("-")[2]
