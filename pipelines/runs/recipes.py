"""Recipes: full settings for the data sets that were tried.

Measured so far: `fashion-mnist-mini`, `fashion-mnist` and `smoke`.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.data.config import DataConfig
from pipelines.runs.config import RecipeName, RunConfig
from pipelines.training.config import TrainingConfig
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, GradientQuantizerConfig
from stage2_prior.config import TransformerConfig

# Muon with tuned rates; AdamW is only better in the first few hundred steps.
_MUON = TrainingConfig(optimizer="muon", learning_rate=4e-3)
_VQVAE = VQVAEConfig(width=160, fine_width=64, num_layers=3)
_SMALL_VQVAE = VQVAEConfig(width=96, fine_width=64, num_layers=2)
_PRIOR = TransformerConfig(num_layers=6, width=192, num_heads=6, dropout=0.1)
_LARGE_PRIOR = TransformerConfig(num_layers=8, width=256, num_heads=8, dropout=0.1)


def _folder(recipe: RecipeName, side: int) -> RunConfig:
    """Returns the settings for a user's own images, of which `rules` choose many by the data."""
    return RunConfig(
        recipe=recipe,
        data=DataConfig(source="folder:images", image_size=(side, side), channels=3),
        # Blocks at finer resolutions take half of the time, and gain 0.2 dB at equal images.
        vqvae=replace(
            _VQVAE,
            fine_layers=0,
            downsampling=8 if side <= 128 else 16,
            quantizer=EMAQuantizerConfig(codebook_size=1024),
        ),
        vqvae_training=replace(_MUON, epochs=40, validate_every=2),
        prior=_LARGE_PRIOR,
        prior_training=replace(_MUON, epochs=40, learning_rate=2e-3, validate_every=2, patience=5),
    )


_ALL = (
    # The embedded 10,000 images, in a few minutes on two CPU cores.
    RunConfig(
        recipe="fashion-mnist-mini",
        data=DataConfig(source="fashion-mnist-mini"),
        vqvae=replace(_SMALL_VQVAE, quantizer=GradientQuantizerConfig()),
        vqvae_training=replace(_MUON, epochs=10, learning_rate=5e-3),
        prior=replace(_PRIOR, num_layers=4, width=128, num_heads=4),
        prior_training=replace(_MUON, epochs=12, learning_rate=3e-3),
    ),
    # All 70,000 images, in one to two hours on two CPU cores. At this quality the codes of the
    # gradient quantizer are the easiest to predict, which makes the best samples.
    # `prior_augmentation` lowers the bits, and brings the samples no nearer to real images.
    RunConfig(
        recipe="fashion-mnist",
        data=DataConfig(source="fashion-mnist"),
        vqvae=replace(_VQVAE, quantizer=GradientQuantizerConfig()),
        vqvae_training=replace(_MUON, epochs=10),
        prior=_PRIOR,
        prior_training=replace(_MUON, epochs=8, learning_rate=3e-3),
    ),
    RunConfig(
        recipe="mnist",
        data=DataConfig(source="mnist"),
        vqvae=_SMALL_VQVAE,
        vqvae_training=replace(_MUON, epochs=5),
        prior=replace(_PRIOR, dropout=0.05),
        prior_training=replace(_MUON, epochs=4, learning_rate=3e-3),
    ),
    RunConfig(
        recipe="cifar10",
        data=DataConfig(source="cifar10"),
        vqvae=_VQVAE,
        vqvae_training=replace(_MUON, epochs=12),
        prior=_LARGE_PRIOR,
        prior_training=replace(_MUON, epochs=12, learning_rate=2e-3),
    ),
    _folder("folder-64", 64),
    _folder("folder-128", 128),
    _folder("folder-256", 256),
    # A whole run in under a minute, to see that everything works; its images are poor.
    RunConfig(
        recipe="smoke",
        data=DataConfig(source="fashion-mnist-mini", limit=1024),
        vqvae=VQVAEConfig(
            width=32,
            fine_width=16,
            num_layers=1,
            quantizer=EMAQuantizerConfig(codebook_size=64, kmeans_batches=2),
        ),
        vqvae_training=TrainingConfig(epochs=4, validate_every=2),
        prior=TransformerConfig(num_layers=2, width=64, num_heads=2),
        prior_training=TrainingConfig(epochs=4, validate_every=2),
    ),
)
RECIPES: dict[str, RunConfig] = {run.recipe: run for run in _ALL}
"""Settings by `--recipe`."""
