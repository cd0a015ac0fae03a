"""The weights of another run to start a training from."""

from __future__ import annotations

from pathlib import Path

from stage1_vqvae.model import VQVAE
from stage2_prior.base import CodePrior
from stage2_prior.pretrained import load_prior

_VQVAE_TRAITS = ("config", "image_shape")
_PRIOR_TRAITS = ("config", "spec")


def start_vqvae_from(model: VQVAE, run: Path) -> None:
    """Copies the weights of a run's VQ-VAE into `model`; on the meta device only checks them."""
    _start_from(model, VQVAE.from_pretrained(run / "vqvae"), run / "vqvae", _VQVAE_TRAITS)


def start_prior_from(prior: CodePrior, run: Path) -> None:
    """Copies the weights of a run's prior into `prior`; on the meta device it only checks them."""
    _start_from(prior, load_prior(run / "prior"), run / "prior", _PRIOR_TRAITS)


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
