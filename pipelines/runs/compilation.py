"""Whether the trainings of a run can be compiled where it runs."""

from __future__ import annotations

import torch

from pipelines.runs.config import RunConfig
from stage2_prior.sampling.compilation import can_compile


def check_compilation(config: RunConfig, device: torch.device) -> None:
    """Refuses to compile a training on a device that has no compiler.

    Raises:
        RuntimeError: A training is to be compiled, and nothing can be compiled on `device`.
    """
    for option, training in (
        ("vqvae-training", config.vqvae_training),
        ("prior-training", config.prior_training),
    ):
        if training.compile and not can_compile(device):
            raise RuntimeError(
                f"--{option}.compile needs a C++ compiler (or Triton on a GPU) that works, but "
                f"none does for {device}: install one, or leave the option out"
            )
