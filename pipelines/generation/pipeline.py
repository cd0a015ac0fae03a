"""Prior and VQ-VAE as one object, which samples and inpaints images."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.files.atomic import atomic_path
from pipelines.files.records import record_bytes
from pipelines.generation.masks import check_mask, fill_unknown, known_codes
from pipelines.generation.record import (
    PIPELINE_FILE,
    PIPELINE_KIND,
    PIPELINE_VERSION,
    PipelineRecord,
    read_pipeline_record,
)
from pipelines.runs.batches import images_at_once
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.pretrained import load_tokenizer
from stage2_prior.base import CodePrior
from stage2_prior.pretrained import load_prior
from stage2_prior.sampling.checks import (
    Labels,
    as_labels,
    check_any_order,
    check_numbers,
    labels_or_null,
)
from stage2_prior.sampling.settings import SamplingSettings

# As in `CodePrior.sample`: convolutions over few images sum in another order than those over many,
# which can change the rounding of a pixel.
_ROW_MULTIPLE = 16


class GenerationPipeline:
    """Samples code grids from a prior and decodes them.

        pipeline = GenerationPipeline.from_pretrained("runs/latest")
        images = pipeline(n=64, seed=0)              # uint8 (64, C, H, W)

    Args:
        vqvae: Decodes.
        prior: Samples; its `vqvae_hash` must be that of this VQ-VAE, whose codes it was trained on.
        class_names: Names by label; empty if unknown.
        train_images_per_class: By label; a class without any is only sampled by its label. Empty if
            unknown.
        settings: How to sample unless told otherwise; None samples from the unchanged distribution.

    Raises:
        ValueError: Prior and VQ-VAE do not belong together, or the classes are not the prior's.
    """

    def __init__(
        self,
        vqvae: ImageTokenizer,
        prior: CodePrior,
        class_names: tuple[str, ...] = (),
        train_images_per_class: tuple[int, ...] = (),
        settings: SamplingSettings | None = None,
    ) -> None:
        if prior.vqvae_hash is None:
            raise ValueError(
                "the prior does not say on which VQ-VAE's codes it was trained: give "
                "PriorSpec(vqvae_hash=...) the weights_hash() of that one"
            )
        if prior.vqvae_hash != vqvae.weights_hash():
            raise ValueError(
                "the prior was trained on the codes of another VQ-VAE (the weights' hash differs): "
                "use the pair that was trained together"
            )
        shapes = tuple((grid.height, grid.width) for grid in prior.grids)
        sizes = tuple(grid.codebook_size for grid in prior.grids)
        if shapes != vqvae.grid_shapes or sizes != vqvae.codebook_sizes:
            raise ValueError(
                f"prior and VQ-VAE must have the same code grids, got {shapes} of {sizes} codes "
                f"and {vqvae.grid_shapes} of {vqvae.codebook_sizes}: use the pair that was trained "
                "together"
            )
        if train_images_per_class and len(train_images_per_class) != prior.num_classes:
            raise ValueError(
                f"one number of training images is required for each of the prior's "
                f"{prior.num_classes} classes, got {len(train_images_per_class)}: use the record "
                "that belongs to the prior"
            )
        self.vqvae = vqvae
        self.prior = prior
        self.class_names = class_names
        self.train_images_per_class = train_images_per_class
        self.settings = settings or SamplingSettings()

    def __call__(
        self,
        n: int,
        labels: Labels | None = None,
        *,
        settings: SamplingSettings | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Generates images number `first_index` to `first_index + n - 1` of `seed`.

        Args:
            n: How many.
            labels: Integers (n,), or one label for all; None goes through `trained_labels` in turn
                where the prior knows classes.
            settings: Temperature, top-k, top-p, guidance; None takes the pipeline's `settings`.
            seed: Same seed, same images, whatever the batch size.
            first_index: Index of the first image.
            batch_size: Images made at once; the memory of the networks grows with it. The codes and
                images of all `n` are in memory, too.

        Returns:
            uint8 (n, C, H, W), on the CPU.

        Raises:
            TypeError: A number or a label is no integer.
            ValueError: A number is out of range, or labels or settings do not fit the prior.
        """
        n, seed, first_index, batch_size = check_numbers(n, seed, first_index, batch_size)
        resolved = self.resolve_labels(n, labels, first_index=first_index)
        codes = self.prior.sample(
            n,
            resolved,
            settings or self.settings,
            seed=seed,
            first_index=first_index,
            batch_size=batch_size,
        )
        return self.decode_in_batches(codes, batch_size)

    def check(
        self,
        settings: SamplingSettings,
        labels: Labels | None = None,
        *,
        n: int = 1,
        seed: int = 0,
        batch_size: int = 64,
        inpainting: bool = False,
    ) -> None:
        """Refuses what `__call__` or `inpaint` would refuse, before any image is read or made.

        The arguments are theirs; `inpainting` tells which of the two is meant.

        Raises:
            TypeError: A number or a label is no integer.
            ValueError: A number is out of range, or labels or settings do not fit the prior.
        """
        n, *_ = check_numbers(n, seed, 0, batch_size)
        if inpainting or settings.num_steps is not None:
            wanted = "completing known codes or sampling several codes at a time"
            check_any_order(self.prior.any_order, wanted)
        if not inpainting:
            labels = self.resolve_labels(n, labels)
        self.prior.resolve(settings, n, labelled=labels is not None)
        labels_or_null(labels, n, self.prior.config, self.prior.num_classes)

    def inpaint(
        self,
        images: Tensor,
        mask: Tensor,
        labels: Labels | None = None,
        *,
        settings: SamplingSettings | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> Tensor:
        """Samples the unknown pixels of images from the prior, given the known ones.

        A code is known where every pixel of its square (downsampling x downsampling) is known. The
        other codes are sampled given the known ones, and all are decoded. So known pixels come back
        as the VQ-VAE reconstructs them. Unknown pixels have no influence: they are replaced by the
        image's mean before encoding.

        Args:
            images: uint8 (B, C, H, W), of the size the models were trained on.
            mask: bool (H, W) for all images, or (B, H, W); True for a known pixel.
            labels: Integers (B,), or one label for all; None samples without labels, which a
                prior with classes must have been trained for (label_dropout above 0).
            settings: How to sample; None samples from the unchanged distribution, since settings
                are chosen for whole images.
            seed: Same seed, same images.
            first_index: Index of the first image.
            batch_size: Images made at once.

        Returns:
            uint8 (B, C, H, W), on the CPU.

        Raises:
            TypeError: Images are not uint8, the mask is not bool, or as `__call__`.
            ValueError: The prior samples in raster order only, or an argument is out of range.
        """
        if tuple(images.shape[1:]) != tuple(self.vqvae.image_shape):
            raise ValueError(
                f"images must have shape (B, {', '.join(map(str, self.vqvae.image_shape))}) as in "
                f"training, got {tuple(images.shape)}"
            )
        _, seed, first_index, batch_size = check_numbers(len(images), seed, first_index, batch_size)
        mask = check_mask(mask, images)
        known = tuple(
            known_codes(mask, shape, stride)
            for shape, stride in zip(self.vqvae.grid_shapes, self.vqvae.strides, strict=True)
        )
        codes = self.prior.complete(
            self._encode_known(images, mask, batch_size),
            known,
            labels,
            settings,
            seed=seed,
            first_index=first_index,
            batch_size=batch_size,
        )
        return self.decode_in_batches(codes, batch_size)

    @property
    def trained_labels(self) -> Tensor:
        """Labels of the classes that had training images: int64 (M,), ascending."""
        if not any(self.train_images_per_class):
            return torch.arange(self.prior.num_classes or 0)
        return torch.tensor(self.train_images_per_class).nonzero().flatten()

    def resolve_labels(
        self, n: int, labels: Labels | None, *, first_index: int = 0
    ) -> Tensor | None:
        """Returns the labels of `__call__`: int64 (n,), or None for a prior without classes."""
        if labels is not None:
            return as_labels(labels, n)
        if self.prior.num_classes is None:
            return None
        turn = self.trained_labels
        return turn[torch.arange(first_index, first_index + n) % len(turn)]

    def _encode_known(self, images: Tensor, mask: Tensor, batch_size: int) -> tuple[Tensor, ...]:
        """Encodes images with their unknown pixels replaced: int64 (B, h, w) per grid."""
        batches = []
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            filled = fill_unknown(images[batch], mask[batch])
            codes = self.vqvae.encode(_pad_rows(filled))
            batches.append(tuple(grid[: len(filled)] for grid in codes))
        return tuple(torch.cat(grids) for grids in zip(*batches, strict=True))

    def decode_in_batches(self, codes: tuple[Tensor, ...], batch_size: int) -> Tensor:
        """Decodes codes, int64 (N, h, w) per grid, in batches: uint8 (N, C, H, W), on the CPU.

        Fewer than `batch_size` large images are decoded at once, which bounds the memory and
        changes no pixel.
        """
        images = torch.empty((len(codes[0]), *self.vqvae.image_shape), dtype=torch.uint8)
        batch_size = images_at_once(self.vqvae.image_shape, batch_size)
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            decoded = self.vqvae.decode(tuple(_pad_rows(grid[batch]) for grid in codes))
            images[batch] = decoded[: len(images[batch])]
        return images

    def to(self, device: torch.device | str) -> Self:
        """Moves both models to `device`."""
        self.vqvae.to(device)
        self.prior.to(device)
        return self

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `vqvae/`, `prior/` and `pipeline.json` to a new `directory`, atomically.

        Raises:
            FileExistsError: `directory` exists.
        """
        directory = Path(directory)
        if directory.exists():
            raise FileExistsError(
                f"a new directory is required to save to, but {directory} exists: "
                "choose another path or remove it first"
            )
        with atomic_path(directory) as partial:
            self.vqvae.save_pretrained(partial / "vqvae")
            self.prior.save_pretrained(partial / "prior")
            record = PipelineRecord(
                class_names=self.class_names,
                train_images_per_class=self.train_images_per_class,
                settings=self.settings,
            )
            (partial / PIPELINE_FILE).write_bytes(
                record_bytes(PIPELINE_KIND, PIPELINE_VERSION, record, sealed=True)
            )

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Loads a run directory or what `save_pretrained` wrote, on the CPU.

        A run's `settings` are those chosen on its validation split, if there are any.

        Raises:
            FileNotFoundError: A model is missing.
            ValueError: The files are damaged or do not belong together.
        """
        directory = RunDirectory(directory).path
        if not directory.exists():
            raise FileNotFoundError(
                f"a finished run is required, but {directory} does not exist: name one, or train "
                "one with `python -m pipelines.train_all`"
            )
        vqvae = load_tokenizer(directory / "vqvae")
        prior = load_prior(directory / "prior")
        record = read_pipeline_record(directory)
        return cls(vqvae, prior, record.class_names, record.train_images_per_class, record.settings)


def _pad_rows(batch: Tensor) -> Tensor:
    """Pads a batch with zeros to a multiple of `_ROW_MULTIPLE` rows."""
    return F.pad(batch, (0, 0) * (batch.ndim - 1) + (0, -len(batch) % _ROW_MULTIPLE))
