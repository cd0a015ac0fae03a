"""Base class of the models that map images to code grids and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.artifact import ArtifactRecord, load_artifact, save_artifact, weights_hash
from stage1_vqvae.images import to_float


@dataclass(frozen=True)
class Reconstruction:
    """Output of `ImageTokenizer.reconstruct`."""

    images: Tensor
    """uint8 (B, C, H, W): the decoded images."""
    codes: tuple[Tensor, ...]
    """int64 (B, h, w) per grid."""
    loss: Tensor
    """float32 (): -log p(x | codes) up to constants, averaged over elements."""


class ImageTokenizer(nn.Module, ABC):
    """Maps images to a tuple of code grids, coarse to fine, and back.

    Everything that does not train a model knows it by this interface alone. A subclass of another
    `artifact_kind` is loaded by `load_tokenizer` once it stands in the table of `pretrained.py`.

        tokenizer = load_tokenizer("runs/latest/vqvae")
        codes = tokenizer.encode(images)     # uint8 (B, C, H, W) -> tuple of int64 (B, h, w)
        images = tokenizer.decode(codes)     # and back
    """

    artifact_kind: ClassVar[str]
    """Kind of the model in its `config.json`."""
    record_type: ClassVar[type[ArtifactRecord]]
    """Dataclass of its `config.json`."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of the training images."""

    @property
    @abstractmethod
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes of each grid."""

    @property
    @abstractmethod
    def strides(self) -> tuple[int, ...]:
        """Pixels per side of the square that one position of each grid stands for."""

    @property
    def grid_shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape (h, w) of each code grid of an image of `image_shape`."""
        _, height, width = self.image_shape
        return tuple((-(-height // stride), -(-width // stride)) for stride in self.strides)

    @property
    def raw_bits_per_image(self) -> float:
        """Bits of an image's codes without entropy coding: the sum of h w log2 K over the grids."""
        pairs = zip(self.grid_shapes, self.codebook_sizes, strict=True)
        return sum(h * w * math.log2(size) for (h, w), size in pairs)

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            images: uint8 (B, C, H, W).

        Returns:
            int64 (B, h, w) per grid, each in [0, codebook_size).
        """

    @abstractmethod
    def decode(self, codes: tuple[Tensor, ...], size: tuple[int, int] | None = None) -> Tensor:
        """Decodes code grids.

        Args:
            codes: int64 (B, h, w) per grid, each in [0, codebook_size).
            size: (H, W) to crop to; None takes the training size where the grids have its shape,
                else the whole decoded area.

        Returns:
            uint8 (B, C, H, W).
        """

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Encodes and decodes uint8 images (B, C, H, W), with the mean squared error as the loss.

        A subclass with a likelihood of its own redefines it.
        """
        codes = self.encode(images)
        decoded = self.decode(codes, (images.shape[-2], images.shape[-1]))
        originals = to_float(images.to(decoded.device))
        return Reconstruction(decoded, codes, F.mse_loss(to_float(decoded), originals))

    def weights_hash(self) -> str:
        """Returns the SHA-256 of the weights, by which a code dump and a prior know the model."""
        return weights_hash(self.state_dict())

    @abstractmethod
    def record_fields(self) -> dict[str, Any]:
        """Returns the JSON-ready fields of the record besides the hashes."""

    @classmethod
    @abstractmethod
    def from_record(cls, record: Any) -> Self:
        """Builds the model with fresh weights from its record."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` to a new `directory`, atomically.

        Raises:
            FileExistsError: `directory` exists.
            OSError: The disk is full or refuses.
            ValueError: Weights are not float32.
        """
        save_artifact(directory, self.artifact_kind, self.record_fields(), self)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Loads what `save_pretrained` wrote, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The files are damaged or do not belong together.
        """
        model = load_artifact(directory, cls.artifact_kind, cls.record_type, cls.from_record)
        return model.to(memory_format=torch.channels_last).eval()
