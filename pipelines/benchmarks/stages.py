"""Benchmarks of both stages: training, sampling and decoding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pipelines.benchmarks.timing import measure
from pipelines.cli.echo import say
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.training.config import TrainingConfig
from pipelines.training.optimizer import ModuleOptimizer
from pipelines.training.precision import resolve_precision
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import VQVAEObjective
from stage2_prior.base import CodePrior
from stage2_prior.objective import PriorObjective
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import PriorSpec

_SAMPLES = 64


def training_step(
    objective: nn.Module,
    batch: tuple[torch.Tensor | None, ...],
    training: TrainingConfig,
    device: torch.device,
) -> Callable[[], None]:
    """Returns a function that runs one forward pass, backward pass and optimizer step."""
    precision = resolve_precision(training.precision, device)
    optimizer = ModuleOptimizer(objective, training, precision.dtype)

    def step() -> None:
        with precision.autocast(device):
            loss = objective(*batch).loss
        loss.backward()
        optimizer.update()

    return step


def benchmark_stages(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    repetitions: int,
    device: torch.device,
) -> None:
    """Times both stages' training steps, sampling and decoding, with random images (C, H, W)."""
    torch.manual_seed(config.seed)
    vqvae = VQVAE(config.vqvae, image_shape).to(device)
    grids = grid_specs(vqvae)
    prior = build_prior(config.prior, PriorSpec(grids=grids)).to(device)
    vqvae.to(memory_format=torch.channels_last)

    size = config.vqvae_training.batch_size
    images = torch.randint(256, (size, *image_shape), dtype=torch.uint8, device=device)
    images = config.vqvae_augmentation(images)
    objective = VQVAEObjective(vqvae).train()
    _benchmark_training("vqvae", objective, (images,), config.vqvae_training, repetitions, device)
    size = config.prior_training.batch_size
    sequence = torch.cat(
        [torch.randint(grid.codebook_size, (size, grid.num_codes)) for grid in grids], dim=1
    ).to(device)
    _benchmark_training(
        "prior",
        PriorObjective(prior).train(),
        (sequence, None),
        config.prior_training,
        repetitions,
        device,
    )
    benchmark_sampling(vqvae.eval(), prior.eval(), repetitions, device)


def _benchmark_training(
    name: str,
    objective: nn.Module,
    batch: tuple[torch.Tensor | None, ...],
    training: TrainingConfig,
    repetitions: int,
    device: torch.device,
) -> None:
    step = training_step(objective, batch, training, device)
    rate = measure(step, repetitions, device).per_second(training.batch_size)
    precision = resolve_precision(training.precision, device)
    say(
        f"{name} training: {rate} images/s at batches of {training.batch_size}, "
        f"{precision.name}, {training.optimizer}"
    )


def benchmark_sampling(
    vqvae: VQVAE, prior: CodePrior, repetitions: int, device: torch.device
) -> None:
    """Times sampling and decoding one batch."""
    codes = prior.sample(_SAMPLES)
    sampling = measure(lambda: prior.sample(_SAMPLES), min(repetitions, 5), device)
    decoding = measure(lambda: vqvae.decode(codes), repetitions, device)
    say(f"sampling codes of {_SAMPLES} images: {sampling.milliseconds()} ms")
    say(f"decoding {_SAMPLES} images: {decoding.milliseconds()} ms")
