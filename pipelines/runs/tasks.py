"""Both stages as tasks of the trainer."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from pipelines.data.image_set import ImageSet
from pipelines.runs.batches import code_batches, context_rows, image_batches, images_at_once
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training.batches import BatchPlan, index_batches
from pipelines.training.config import TrainingConfig
from pipelines.training.rows import DeviceRows, send
from pipelines.training.task import OptimizerSpec
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction
from stage2_prior.base import CodePrior
from stage2_prior.grids import to_sequence
from stage2_prior.objective import PriorObjective, measure_bits_per_code
from stage2_prior.sampling.checks import Context, context_tensor

_FIRST_IMAGES = 64  # in each batch from which the codebook starts


class VQVAETask:
    """Stage one on the images of a data set.

    `batch_size` counts the images of a forward pass, over all processes; `augmentation` says what
    it sees of them. With `has_codebook` the model's codebook is trained already.
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
        augmentation: VQVAEAugmentationConfig | None = None,
        has_codebook: bool = False,
    ) -> None:
        self.objective = VQVAEObjective(model)
        self._batch_size = batch_size
        self._augmentation = augmentation or VQVAEAugmentationConfig()
        self._has_codebook = has_codebook
        self.num_training_examples = len(train)
        self.origin = f"model {_short_hash(model.config)} on images of {model.image_shape}"
        self._train = train
        self._validation = validation
        self._seen = _evenly_spaced(len(train), len(validation))

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        """Returns one optimizer for the whole objective."""
        return {"main": OptimizerSpec(module=self.objective, config=config)}

    def prepare(self, device: torch.device) -> None:
        """Starts the codebook from the z_e of random training images, the same on every process.

        They are whole images, whatever the augmentation: those have the most z_e.
        """
        if not self._has_codebook:
            order = torch.randperm(len(self._train))
            # In a cycle: the quantizer may take more batches than a small data set has.
            at_once = images_at_once(self._train.image_shape, min(len(order), _FIRST_IMAGES))
            batches = itertools.cycle(torch.split(order, at_once))
            images = DeviceRows(self._train.images, device)
            self.objective.initialise(images[indices] for indices in batches)
        size = self._augmentation.image_size(self.objective.model.image_shape)
        self.objective.scale_usage(self._batch_size, size)

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor]]:
        """Yields augmented images, uint8 (B, C, H, W)."""
        images = DeviceRows(self._train.images, device)
        for indices in index_batches(plan, len(self._train)):
            yield (self._augmentation(images[indices]),)

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on."""
        self.objective.set_progress(fraction)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Measures loss, PSNR, codebook usage and perplexity on the whole validation split.

        Also the loss on as many training images, whole and as they are, which a training step's
        loss is not: where the two part, stage one overfits.
        """
        model = self.objective.model
        metrics = measure_reconstruction(model, image_batches(self._validation, device))
        seen = measure_reconstruction(model, image_batches(self._train, device, self._seen))
        return {
            "loss": metrics.loss,
            "train_loss": seen.loss,
            "psnr": metrics.psnr,
            "usage": min(metrics.usage),
            "perplexity": min(metrics.perplexity),
        }


class PriorTask:
    """Stage two on the codes of a dump.

    Distribution augmentation (Jun et al. 2020, section 3): an image may be seen in another view,
    and the prior is told which. A view and a label share one learned vector, so that sampling
    knows of no views: label y in view v is label y + v * (num_classes + 1) of the prior, and y
    itself in view 0, the image as it is.

    Args:
        prior: Has the extra labels that the augmentation needs.
        dump: Codes of the images.
        other_views: Codes of other views of the training images.
        augmentation: Which those are, and how often they are seen; None without any.
        context: What the codes of the splits `train` and `validation` are conditioned on: int64
            (N, h_i, w_i) per context grid, or float32 (N, Lc, D); None for a prior without context.

    Raises:
        ValueError: The prior has other extra labels or another context.
    """

    name = "prior"
    monitor = "bits_per_code"

    def __init__(
        self,
        prior: CodePrior,
        dump: CodeDump,
        other_views: Iterable[SplitCodes] = (),
        augmentation: PriorAugmentationConfig | None = None,
        context: Mapping[str, Context] | None = None,
    ) -> None:
        train, validation = dump.splits["train"], dump.splits["validation"]
        self._augmentation = augmentation or PriorAugmentationConfig()
        required = self._augmentation.num_extra_labels(prior.num_classes)
        if prior.spec.num_extra_labels != required:
            raise ValueError(
                f"a prior with num_extra_labels {required} is required for this augmentation, got "
                f"{prior.spec.num_extra_labels}"
            )
        self.objective = PriorObjective(prior)
        self.num_training_examples = len(train)
        self.origin = f"model {_short_hash(prior.config)} on codes of VQ-VAE {dump.vqvae_hash}"
        # int32 (V, N, L), the images themselves in view 0; one view at a time is in memory twice.
        views = itertools.chain([train], other_views)
        own = to_sequence(train.codes)
        self._sequences = own.new_empty(self._augmentation.num_views, *own.shape)
        for sequences, view in zip(self._sequences, views, strict=True):
            sequences.copy_(to_sequence(view.codes))
        self._labels, self._null_label = train.labels, prior.null_label
        contexts = context or {}
        self._context = context_tensor(contexts.get("train"), len(train), prior.spec.context)
        context_tensor(contexts.get("validation"), len(validation), prior.spec.context)
        # Set before each step; not a state that a checkpoint would have to hold.
        self._share = self._augmentation.share(0.0)
        rows = _evenly_spaced(len(train), len(validation))
        self._validation = (validation, contexts.get("validation"))
        self._seen = (train.rows(rows), context_rows(contexts.get("train"), rows))

    def optimizers(self, config: TrainingConfig) -> dict[str, OptimizerSpec]:
        """Returns one optimizer for the whole objective."""
        return {"main": OptimizerSpec(module=self.objective, config=config)}

    def prepare(self, device: torch.device) -> None:
        """Does nothing: a prior needs no data to start."""

    def batches(self, plan: BatchPlan, device: torch.device) -> Iterator[tuple[Tensor | None, ...]]:
        """Yields the arguments of `PriorObjective.forward`."""
        sequences = DeviceRows(self._sequences.flatten(0, 1), device)  # (V * N, L)
        contexts = None if self._context is None else DeviceRows(self._context, device)
        for indices in index_batches(plan, self.num_training_examples):
            views = self._draw_views(len(indices))
            offset = views * (self._null_label + 1)
            labels = None if self._labels is None else self._labels[indices] + offset
            null_labels = (self._null_label + offset,) if len(self._sequences) > 1 else ()
            yield (
                sequences[views * self.num_training_examples + indices].long(),
                None if labels is None else send(labels, device),
                None if contexts is None else contexts[indices],
                *(send(labels, device) for labels in null_labels),
            )

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on, and sets the share of images in another view."""
        self.objective.set_progress(fraction)
        self._share = self._augmentation.share(fraction)

    def validate(self, device: torch.device) -> dict[str, float]:  # noqa: ARG002 - the prior moves its input itself
        """Measures bits per code on the whole validation split, and on as many training images.

        Both without dropout, with labels and in raster order, which a training step's loss is not:
        where they part, the prior overfits.
        """
        prior = self.objective.prior
        return {
            "bits_per_code": measure_bits_per_code(prior, code_batches(*self._validation)),
            "train_bits_per_code": measure_bits_per_code(prior, code_batches(*self._seen)),
        }

    def _draw_views(self, count: int) -> Tensor:
        """Draws the view in which each of `count` images is seen: int64 (B,), 0 as it is."""
        num_views = len(self._sequences)
        if num_views == 1:
            return torch.zeros(count, dtype=torch.int64)
        in_another_view = torch.rand(count) < self._share
        return torch.where(in_another_view, torch.randint(1, num_views, (count,)), 0)


def _short_hash(config: object) -> str:
    return hashlib.sha256(repr(config).encode()).hexdigest()[:12]


def _evenly_spaced(length: int, count: int) -> Tensor:
    """Returns `count` of `length` rows at even distances, or all if there are fewer: int64."""
    count = min(count, length)
    return torch.arange(count) * length // count
