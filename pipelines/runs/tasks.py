"""Both stages as tasks of the trainer."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipelines.data.image_set import ImageSet
from pipelines.runs.augmentation import AugmentationConfig
from pipelines.runs.batches import code_batches, image_batches
from pipelines.training.batches import BatchPlan, index_batches
from pipelines.training.config import TrainingConfig
from pipelines.training.task import OptimizerSpec
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction
from stage2_prior.base import CodePrior
from stage2_prior.grids import to_sequence
from stage2_prior.objective import PriorObjective, measure_bits_per_code


class VQVAETask:
    """Stage one on the images of a data set.

    Args:
        model: What is trained.
        train: Images to train on.
        validation: Images to measure on.
        batch_size: Images of a forward pass, over all processes.
        has_codebook: Whether the model's codebook is trained already.
    """

    name = "vqvae"
    monitor = "loss"

    def __init__(
        self,
        model: VQVAE,
        train: ImageSet,
        validation: ImageSet,
        batch_size: int,
        *,
        has_codebook: bool = False,
    ) -> None:
        self.objective = VQVAEObjective(model)
        self._batch_size = batch_size
        self._has_codebook = has_codebook
        self.num_training_examples = len(train)
        self.origin = f"model {_short_hash(model.config)} on images of {model.image_shape}"
        self._train = train
        self._validation = validation

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        """One optimizer for the whole objective."""
        return {"main": OptimizerSpec(module=self.objective, config=config)}

    def prepare(self, device: torch.device) -> None:
        """Starts the codebook from the z_e of random training images, the same on every process."""
        if not self._has_codebook:
            order = torch.randperm(len(self._train))
            # In a cycle: the quantizer may take more batches than a small data set has.
            batches = itertools.cycle(torch.split(order, min(len(order), 64)))
            self.objective.initialise(self._images(indices, device) for indices in batches)
        self.objective.scale_usage(self._batch_size)

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor]]:
        """Yields images uint8 (B, C, H, W)."""
        for indices in index_batches(plan, len(self._train)):
            yield (self._images(indices, device),)

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on."""
        self.objective.set_progress(fraction)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Loss, PSNR, and the codes' usage and perplexity on the whole validation split."""
        batches = image_batches(self._validation, device)
        metrics = measure_reconstruction(self.objective.model, batches)
        return {
            "loss": metrics.loss,
            "psnr": metrics.psnr,
            "usage": min(metrics.usage),
            "perplexity": min(metrics.perplexity),
        }

    def _images(self, indices: Tensor, device: torch.device) -> Tensor:
        return torch.from_numpy(self._train.images[indices.numpy()]).to(device)


class PriorTask:
    """Stage two on the codes of a dump.

    Args:
        prior: Knows as many views as there are.
        dump: Codes of the images.
        other_views: Codes of other views of the training images.
        augmentation: Which those are, and how often they are seen; None without any.
    """

    name = "prior"
    monitor = "bits_per_code"

    def __init__(
        self,
        prior: CodePrior,
        dump: CodeDump,
        other_views: Iterable[SplitCodes] = (),
        augmentation: AugmentationConfig | None = None,
    ) -> None:
        train = dump.splits["train"]
        self.objective = PriorObjective(prior)
        self.num_training_examples = len(train)
        self.origin = f"model {_short_hash(prior.config)} on codes of VQ-VAE {dump.vqvae_hash}"
        self._augmentation = augmentation or AugmentationConfig()
        # int32 (V, N, L), the images themselves in view 0; one view at a time is in memory twice.
        views = itertools.chain([train], other_views)
        own = to_sequence(train.codes)
        self._sequences = own.new_empty(self._augmentation.num_views, *own.shape)
        for sequences, view in zip(self._sequences, views, strict=True):
            sequences.copy_(to_sequence(view.codes))
        if prior.num_views != len(self._sequences):
            raise ValueError(
                f"a prior of {len(self._sequences)} views is required, got one of {prior.num_views}"
            )
        # Set before each step; not a state that a checkpoint would have to hold.
        self._share = self._augmentation.share(0.0)
        self._labels = train.labels
        self._validation = dump.splits["validation"]
        self._seen = _evenly_spaced(train, len(self._validation))

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        """One optimizer for the whole objective."""
        return {"main": OptimizerSpec(module=self.objective, config=config)}

    def prepare(self, device: torch.device) -> None:
        """A prior needs no data to start."""

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor | None, ...]]:
        """Yields codes int64 (B, L), and labels int64 (B,) or None.

        With augmentation two more: None for the context, and the views int64 (B,).
        """
        for indices in index_batches(plan, self.num_training_examples):
            yield self._batch(indices, device)

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on, and sets how many images are seen in another view."""
        self.objective.set_progress(fraction)
        self._share = self._augmentation.share(fraction)

    def validate(self, device: torch.device) -> dict[str, float]:  # noqa: ARG002 - the prior moves its input itself
        """Bits per code on the whole validation split, and on as many training images.

        Both without dropout, with labels and in raster order, which a training step's loss is not:
        where they part, the prior learns the training images by heart.
        """
        prior = self.objective.prior
        return {
            "bits_per_code": measure_bits_per_code(prior, code_batches(self._validation)),
            "train_bits_per_code": measure_bits_per_code(prior, code_batches(self._seen)),
        }

    def _batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor | None, ...]:
        labels = None if self._labels is None else self._labels[indices].to(device)
        num_views = len(self._sequences)
        if num_views == 1:
            return self._sequences[0, indices].long().to(device), labels
        seen_otherwise = torch.rand(len(indices)) < self._share
        views = torch.where(seen_otherwise, torch.randint(1, num_views, (len(indices),)), 0)
        sequences = self._sequences[views, indices].long().to(device)
        return sequences, labels, None, views.to(device)


def _short_hash(config: object) -> str:
    return hashlib.sha256(repr(config).encode()).hexdigest()[:12]


def _evenly_spaced(split: SplitCodes, count: int) -> SplitCodes:
    """`count` images of a split, or all where there are fewer, from all over it."""
    count = min(count, len(split))
    rows = torch.arange(count) * len(split) // count
    labels = None if split.labels is None else split.labels[rows]
    return SplitCodes(tuple(grid[rows] for grid in split.codes), labels)
