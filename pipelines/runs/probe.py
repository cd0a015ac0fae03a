"""Speed of both trainings on this machine: a few real steps of each."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from statistics import median

import torch

from pipelines.data.image_set import DataSplits
from pipelines.runs.choices import Speed
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.models import new_prior, new_vqvae
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import on_main, world_size
from pipelines.training.precision import Precision, resolve_precision
from pipelines.training.task import Task
from pipelines.training.train_step import TrainStep
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.model import VQVAE

_TIME_LIMIT = 3.0
"""Seconds of measured steps of a stage; its first steps come on top."""
_MOST_STEPS = 20
_SMALL_BATCH = 8  # of each process


def measure_speed(config: RunConfig, splits: DataSplits, device: torch.device) -> Speed:
    """Measures training images per second of each stage, with random weights and codes.

    The steps are the trainer's, in its precision and at its batch size, or at a smaller one where
    those would take too long: about ten seconds in all. Under torchrun all processes step together,
    and rank 0 measures. Reseeds torch's global random stream.
    """
    config = replace(config, vqvae_from=None, prior_from=None)
    torch.manual_seed(config.seed)
    vqvae = new_vqvae(config, splits.image_shape)
    passes = config.vqvae_training.batch_size // config.vqvae_training.accumulation
    task = VQVAETask(
        vqvae,
        splits.train,
        splits.validation,
        passes,
        augmentation=config.vqvae_augmentation,
        has_codebook=True,
    )
    return Speed(
        vqvae=_images_per_second(task, config.vqvae_training, device),
        prior=_images_per_second(
            _prior_task(config, vqvae, splits.num_classes), config.prior_training, device
        ),
    )


def _prior_task(config: RunConfig, vqvae: VQVAE, num_classes: int | None) -> PriorTask:
    """Returns the task of the prior on a batch of random codes."""
    grids, count = grid_specs(vqvae), config.prior_training.batch_size
    codes = SplitCodes(
        tuple(
            torch.randint(grid.codebook_size, (count, grid.height, grid.width), dtype=torch.int32)
            for grid in grids
        ),
        None if num_classes is None else torch.randint(num_classes, (count,)),
    )
    dump = CodeDump(
        splits={"train": codes, "validation": codes},
        codebook_sizes=vqvae.codebook_sizes,
        num_classes=num_classes,
        vqvae_hash="",
    )
    augmentation = config.prior_augmentation
    views = [codes] * len(augmentation.other_views)
    return PriorTask(new_prior(config, grids, num_classes), dump, views, augmentation)


def _images_per_second(task: Task, training: TrainingConfig, device: torch.device) -> float:
    objective = task.objective.train().to(device)
    if device.type != "mps":  # as the trainer does
        objective.to(memory_format=torch.channels_last)
    precision = Precision(**on_main(lambda: asdict(resolve_precision(training.precision, device))))

    def seconds(batch_size: int, accumulation: int = 1, most_steps: int = 1) -> float:
        """Returns the median time of steps, rank 0's in every process."""
        # Not compiled: that would take minutes, once for each size.
        sizes = replace(training, batch_size=batch_size, accumulation=accumulation, compile=False)
        step = TrainStep(task, sizes, device, precision, seed=0)
        try:
            # The first step takes memory and chooses kernels, which matters less the longer it is.
            first = _time_of_step(step, device)
            if first > _TIME_LIMIT / 2:
                return first
            return median(_time_of_step(step, device) for _ in range(most_steps))
        finally:
            step.close()

    size, count = training.batch_size, world_size()
    smallest, small = count, min(_SMALL_BATCH * count, size)
    seconds(smallest)  # not counted: libraries and kernels are loaded
    of_small = seconds(small)
    if small == size:
        return size / of_small
    # A step takes a time for each image, and one for the optimizer.
    of_smallest = seconds(smallest)
    expected = of_small + (size - small) * max(of_small - of_smallest, 0) / (small - smallest)
    if 2 * expected > _TIME_LIMIT:
        return size / expected
    steps = min(max(int(_TIME_LIMIT / expected) - 1, 1), _MOST_STEPS)
    return size / seconds(size, training.accumulation, steps)


def _time_of_step(step: TrainStep, device: torch.device) -> float:
    """Returns the seconds of a step on rank 0."""
    start = time.perf_counter()
    step.step(0)
    if device.type != "cpu":
        torch.accelerator.synchronize()
    elapsed = time.perf_counter() - start
    return on_main(lambda: elapsed)
