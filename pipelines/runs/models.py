"""Models as their trainings begin: with random weights or those of another run.

On the meta device they have no weights, and only what does not fit is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pipelines.runs.config import RunConfig
from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior, load_prior
from stage2_prior.spec import PriorSpec


def new_vqvae(
    config: RunConfig, image_shape: tuple[int, int, int], *, device: str = "cpu"
) -> VQVAE:
    """Builds the VQ-VAE for images (C, H, W), with the weights of `config.vqvae_from` or random."""
    config.vqvae_augmentation.check_fits(image_shape, config.vqvae.downsampling)
    with torch.device(device):
        vqvae = VQVAE(config.vqvae, image_shape)
    if config.vqvae_from is not None:
        path = config.vqvae_from / "vqvae"
        _start_from(vqvae, VQVAE.from_pretrained(path), path, ("config", "image_shape"))
    return vqvae


def new_prior(
    config: RunConfig,
    grids: tuple[GridSpec, ...],
    num_classes: int | None,
    vqvae_hash: str | None = None,
    *,
    device: str = "cpu",
) -> CodePrior:
    """Builds the prior, with the weights of `config.prior_from` or random ones."""
    spec = PriorSpec(
        grids=grids,
        num_classes=num_classes,
        vqvae_hash=vqvae_hash,
        num_extra_labels=config.prior_augmentation.num_extra_labels(num_classes),
    )
    with torch.device(device):
        prior = build_prior(config.prior, spec)
    if config.prior_from is not None:
        path = config.prior_from / "prior"
        start = load_prior(path)
        start.spec = replace(start.spec, vqvae_hash=vqvae_hash)  # the codes may be another VQ-VAE's
        _start_from(prior, start, path, ("config", "grids", "num_classes", "spec"))
    return prior


def num_parameters(model: nn.Module) -> int:
    """Counts the parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def _start_from(
    model: VQVAE | CodePrior, start: VQVAE | CodePrior, path: Path, traits: tuple[str, ...]
) -> None:
    for trait in traits:
        required, found = getattr(model, trait), getattr(start, trait)
        if found != required:
            raise ValueError(
                f"{path} must have the {trait.replace('_', ' ')} of the model that starts from it, "
                f"{required}, got {found}: give the options it was trained with, or start from "
                "another run"
            )
    if not next(model.parameters()).is_meta:
        model.load_state_dict(start.state_dict())
