"""The VQ-VAE: encoder, quantizer, decoder and likelihood in one module."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from stage1_vqvae.artifact import ArtifactRecord
from stage1_vqvae.base import ImageTokenizer, Reconstruction
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.config_checks import MAX_SIDE
from stage1_vqvae.images import pad_to_multiple, to_float, to_uint8
from stage1_vqvae.likelihoods import LIKELIHOODS
from stage1_vqvae.networks.decoder import Decoder
from stage1_vqvae.networks.encoder import Encoder
from stage1_vqvae.quantizers.base import QuantizerOutput
from stage1_vqvae.quantizers.build import build_quantizer


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAERecord(ArtifactRecord):
    """The `config.json` of a saved VQ-VAE."""

    image_shape: tuple[int, int, int]
    """(C, H, W) of the training images."""
    model: VQVAEConfig
    """Networks, quantizer, likelihood."""


@dataclass(frozen=True)
class VQVAEOutput:
    """Output of a VQ-VAE's forward pass."""

    output: Tensor
    """(B, C, H, W): the decoder's output, the parameters of the likelihood."""
    reconstruction_loss: Tensor
    """float32 (): -log p(x | z_q) up to constants, averaged over elements."""
    quantized: QuantizerOutput
    """Codes, z_q and the quantizer's loss terms."""


class VQVAE(ImageTokenizer):
    """Vector-quantised variational autoencoder (van den Oord et al. 2017).

    Fully convolutional: it encodes images of any size, padding to a multiple of the downsampling
    and cropping back; `image_shape` is the size it was trained on and decodes to by default.

    Args:
        config: Networks, quantizer, likelihood.
        image_shape: (C, H, W) of the training images.

    Raises:
        ValueError: A side of `image_shape` is below 1 or above 65,536.
    """

    artifact_kind = "vqvae"
    record_type = VQVAERecord

    def __init__(self, config: VQVAEConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if len(image_shape) != 3 or not 1 <= min(image_shape) <= max(image_shape) <= MAX_SIDE:
            raise ValueError(
                f"image_shape must be (C, H, W), each from 1 to {MAX_SIDE:,}, got {image_shape}"
            )
        self.config = config
        self.image_shape = image_shape
        self.encoder = Encoder(config, image_shape[0])
        self.quantizer = build_quantizer(config.quantizer)
        self.decoder = Decoder(config, image_shape[0])
        self.likelihood = LIKELIHOODS[config.likelihood]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes of each grid."""
        return self.quantizer.codebook_sizes

    @property
    def strides(self) -> tuple[int, ...]:
        """The downsampling of each grid."""
        return (self.config.downsampling,) * len(self.codebook_sizes)

    def forward(self, images: Tensor) -> VQVAEOutput:
        """Encodes, quantizes and decodes uint8 images (B, C, H, W)."""
        floats = to_float(images)
        quantized = self.quantizer(self._features(floats))
        output = self._crop(self.decoder(quantized.z_q), (images.shape[-2], images.shape[-1]))
        return VQVAEOutput(output, self.likelihood.loss(output.float(), floats), quantized)

    def encode_features(self, images: Tensor) -> Tensor:
        """Computes z_e, (B, D, h, w), of uint8 images (B, C, H, W)."""
        return self._features(to_float(images))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Encodes and decodes uint8 images (B, C, H, W) in one forward pass.

        Raises:
            TypeError, ValueError: As `encode`.
        """
        result = self(self._checked(images))
        decoded = to_uint8(self.likelihood.mean(result.output.float()))
        return Reconstruction(decoded, result.quantized.codes, result.reconstruction_loss)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Encodes uint8 images (B, C, H, W) of any size: int64 (B, ceil(H/f), ceil(W/f)) per grid.

        Raises:
            TypeError: The images are not a uint8 tensor, or the weights not float32.
            ValueError: They do not have the model's number of channels.
        """
        return self.quantizer.encode(self.encode_features(self._checked(images)))

    @torch.no_grad()
    def decode(self, codes: tuple[Tensor, ...], size: tuple[int, int] | None = None) -> Tensor:
        """See `ImageTokenizer.decode`.

        A residual quantizer also decodes the first grids alone, coarser the fewer they are.

        Raises:
            TypeError: The codes are not int64 tensors, or the weights not float32.
            ValueError: Their number, shape or range does not fit, or `size` is below 1 or more than
                was decoded.
        """
        self._check_weights()
        self._check_codes(codes)
        z_q = self.quantizer.decode(tuple(grid.to(self._device) for grid in codes))
        output = self.decoder(z_q.contiguous(memory_format=torch.channels_last))
        if size is None:
            shapes = tuple(tuple(grid.shape[1:]) for grid in codes)
            trained = shapes == self.grid_shapes[: len(codes)]
            size = self.image_shape[1:] if trained else (output.shape[-2], output.shape[-1])
        images = to_uint8(self.likelihood.mean(self._crop(output.float(), size)))
        return images.contiguous()  # neither a crop's strides nor channels last

    def record_fields(self) -> dict[str, Any]:
        """See `ImageTokenizer.record_fields`."""
        return {"image_shape": self.image_shape, "model": asdict(self.config)}

    @classmethod
    def from_record(cls, record: VQVAERecord) -> Self:
        """See `ImageTokenizer.from_record`."""
        return cls(record.model, record.image_shape)

    def _features(self, floats: Tensor) -> Tensor:
        """Computes z_e, (B, D, h, w), of float images in [-1, 1], (B, C, H, W)."""
        z_e: Tensor = self.encoder(pad_to_multiple(floats, self.config.downsampling))
        return z_e

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _checked(self, images: Tensor) -> Tensor:
        """Returns the images on the model's device; `to_float` checks their dtype and axes."""
        self._check_weights()
        _check_tensor(images, "images", "uint8")
        if images.ndim == 4 and images.shape[1] != self.image_shape[0]:
            raise ValueError(
                f"images must have {self.image_shape[0]} channels as in training, got "
                f"{images.shape[1]}: convert them or train a model on such images"
            )
        return images.to(self._device)

    def _check_weights(self) -> None:
        dtype = next(self.parameters()).dtype
        if dtype != torch.float32:
            raise TypeError(
                f"weights must be float32 to encode and decode, got {dtype}: call .float() first"
            )

    def _check_codes(self, codes: tuple[Tensor, ...]) -> None:
        most = len(self.codebook_sizes)
        fewest = 1 if self.quantizer.decodes_prefixes else most
        if not isinstance(codes, tuple) or not fewest <= len(codes) <= most:
            raise ValueError(
                f"codes must be a tuple of {most if fewest == most else f'1 to {most}'} grids, got "
                f"{len(codes) if isinstance(codes, tuple) else type(codes).__name__}"
            )
        for grid, codebook_size in zip(codes, self.codebook_sizes, strict=False):
            _check_tensor(grid, "codes", "int64")
            if grid.dtype != torch.int64:
                raise TypeError(f"codes must be int64, got {grid.dtype}: convert them with .long()")
            if grid.ndim != 3:
                raise ValueError(f"codes must have shape (B, h, w), got {tuple(grid.shape)}")
            if grid.numel() and not 0 <= int(grid.min()) <= int(grid.max()) < codebook_size:
                raise ValueError(
                    f"codes must be in [0, {codebook_size}), got {int(grid.min())} to "
                    f"{int(grid.max())}: they were made with another codebook"
                )

    @staticmethod
    def _crop(images: Tensor, size: tuple[int, int]) -> Tensor:
        if not (1 <= size[0] <= images.shape[-2] and 1 <= size[1] <= images.shape[-1]):
            raise ValueError(
                f"size must be at least 1 and at most the decoded {tuple(images.shape[-2:])}, "
                f"got {tuple(size)}"
            )
        return images[..., : size[0], : size[1]]


def _check_tensor(value: object, name: str, dtype: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be {dtype} tensors, got {type(value).__name__}: convert them with "
            "torch.as_tensor()"
        )
