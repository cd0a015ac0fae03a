"""Benchmarks of both stages: training, sampling and decoding."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pipelines.benchmarks.peak_flops import peak_flops
from pipelines.benchmarks.timing import measure
from pipelines.cli.echo import say
from pipelines.data.image_set import ImageSet
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.cost import count_costs
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.training.config import TrainingConfig
from pipelines.training.device import deterministic_algorithms
from pipelines.training.precision import Precision, resolve_precision
from pipelines.training.task import Task
from pipelines.training.train_step import TrainStep
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import PriorSpec

_SAMPLES, _SAMPLES_ON_GPU = (64,), (64, 1024)
_STEPS_ON_GPU = 20
"""Steps between two times that a GPU is waited for, as it is between two lines of the log."""


def training_steps(
    task: Task, training: TrainingConfig, precision: Precision, device: torch.device, count: int
) -> Callable[[], None]:
    """Returns a function that makes `count` steps, as the trainer does, and checks their losses."""
    # No learning rate is 0, however many steps are timed.
    training = replace(training, epochs=1e6, warmup_fraction=0.0)
    steps = TrainStep(task, training, device, precision, seed=0)
    numbers = itertools.count()

    def run() -> None:
        for number in itertools.islice(numbers, count):
            steps.step(number)
        steps.check_finite()
        steps.metrics.take_means()

    return run


def benchmark_stages(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    repetitions: int,
    device: torch.device,
) -> None:
    """Times both stages' training steps, sampling and decoding, with random images (C, H, W)."""
    torch.manual_seed(config.seed)
    vqvae = VQVAE(config.vqvae, image_shape)
    grids = grid_specs(vqvae)
    prior = build_prior(config.prior, PriorSpec(grids=grids))

    precisions = tuple(
        resolve_precision(training.precision, device)
        for training in (config.vqvae_training, config.prior_training)
    )
    first, second = count_costs(config, image_shape, None, (precisions[0], precisions[1]))
    size = config.vqvae_training.batch_size
    pixels = np.random.default_rng(config.seed).integers(0, 256, (size, *image_shape), np.uint8)
    images = ImageSet(pixels)
    passes = size // config.vqvae_training.accumulation
    task: VQVAETask | PriorTask = VQVAETask(
        vqvae, images, images, passes, augmentation=config.vqvae_augmentation
    )
    training = config.vqvae_training
    _benchmark_training(task, training, first.training_flops, precisions[0], repetitions, device)
    size = config.prior_training.batch_size
    shapes = [(size, grid.height, grid.width) for grid in grids]
    sizes = tuple(grid.codebook_size for grid in grids)
    codes = tuple(
        torch.randint(most, shape, dtype=torch.int32)
        for most, shape in zip(sizes, shapes, strict=True)
    )
    split = SplitCodes(codes, None)
    dump = CodeDump({"train": split, "validation": split}, sizes, None, "")
    training, flops = config.prior_training, second.training_flops
    prior_task = PriorTask(prior, dump)
    _benchmark_training(prior_task, training, flops, precisions[1], repetitions, device)
    benchmark_sampling(vqvae.eval(), prior.eval(), repetitions, device)


def _benchmark_training(
    task: VQVAETask | PriorTask,
    training: TrainingConfig,
    flops: int,
    precision: Precision,
    repetitions: int,
    device: torch.device,
) -> None:
    """Prints images per second, each of `flops`, and the share of the device's peak."""
    count = 1 if device.type == "cpu" else _STEPS_ON_GPU
    task.objective.train().to(device)
    with torch.no_grad():
        task.prepare(device)
    task.objective.to(memory_format=torch.channels_last)
    with deterministic_algorithms(device):
        steps = training_steps(task, training, precision, device, count)
        timing = measure(steps, repetitions, device)
    peak = peak_flops(precision, device, repetitions)
    share = flops * training.batch_size * count / timing.median / peak
    rate = timing.per_second(training.batch_size * count)
    compiled = ", compiled" if training.compile else ""
    say(
        f"{task.name} training: {rate} images/s at batches of {training.batch_size}, "
        f"{precision.name}, {training.optimizer}{compiled}; {flops / 1e9:.3g} GFLOP an image, "
        f"{share:.0%} of the {peak / 1e12:.3g} TFLOP/s of a large matrix product"
    )


def benchmark_sampling(
    vqvae: VQVAE, prior: CodePrior, repetitions: int, device: torch.device
) -> None:
    """Times sampling and decoding one batch."""
    for samples in _SAMPLES if device.type == "cpu" else _SAMPLES_ON_GPU:
        sample = partial(prior.sample, samples, batch_size=samples)
        codes = sample()
        sampling = measure(sample, min(repetitions, 5), device)
        decoding = measure(partial(vqvae.decode, codes), repetitions, device)
        say(
            f"sampling codes of {samples} images: {sampling.milliseconds()} ms, "
            f"{sampling.per_second(samples * prior.num_codes)} codes/s"
        )
        say(f"decoding {samples} images: {decoding.milliseconds()} ms")
