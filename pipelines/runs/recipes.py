"""Recipes: full settings, one function each.

Measured so far: `fashion-mnist-mini`, `fashion-mnist` and `smoke`.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.data.config import DataConfig
from pipelines.runs.config import RecipeName, RunConfig
from pipelines.training.config import TrainingConfig
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, GradientQuantizerConfig
from stage2_prior.config import TransformerConfig


def _muon(
    *, epochs: float, learning_rate: float, validate_every: float = 1, patience: int | None = None
) -> TrainingConfig:
    """Muon with the rate it was tuned to; AdamW is only better in the first few hundred steps."""
    return TrainingConfig(
        epochs=epochs,
        optimizer="muon",
        learning_rate=learning_rate,
        validate_every=validate_every,
        patience=patience,
    )


def fashion_mnist_mini() -> RunConfig:
    """The embedded 10,000 images, in a few minutes on two CPU cores."""
    return RunConfig(
        recipe="fashion-mnist-mini",
        data=DataConfig(source="fashion-mnist-mini"),
        vqvae=VQVAEConfig(
            width=96, fine_width=64, num_layers=2, quantizer=GradientQuantizerConfig()
        ),
        vqvae_training=_muon(epochs=10, learning_rate=5e-3),
        prior=TransformerConfig(num_layers=4, width=128, num_heads=4, dropout=0.1),
        prior_training=_muon(epochs=12, learning_rate=3e-3),
    )


def fashion_mnist() -> RunConfig:
    """All 70,000 images, in one to two hours on two CPU cores."""
    return RunConfig(
        recipe="fashion-mnist",
        data=DataConfig(source="fashion-mnist"),
        # Its codes are the easiest to predict at this quality, so that samples come out better.
        vqvae=VQVAEConfig(
            width=160, fine_width=64, num_layers=3, quantizer=GradientQuantizerConfig()
        ),
        vqvae_training=_muon(epochs=10, learning_rate=4e-3),
        # Learning from other views too (`augmentation`) lowers the bits, and brings the samples no
        # nearer to real images.
        prior=TransformerConfig(num_layers=6, width=192, num_heads=6, dropout=0.1),
        prior_training=_muon(epochs=8, learning_rate=3e-3),
    )


def mnist() -> RunConfig:
    """MNIST digits, downloaded by torchvision."""
    return RunConfig(
        recipe="mnist",
        data=DataConfig(source="mnist"),
        vqvae=VQVAEConfig(width=96, fine_width=64, num_layers=2),
        vqvae_training=_muon(epochs=5, learning_rate=4e-3),
        prior=TransformerConfig(num_layers=6, width=192, num_heads=6, dropout=0.05),
        prior_training=_muon(epochs=4, learning_rate=3e-3),
    )


def cifar10() -> RunConfig:
    """CIFAR-10 at 8x8 codes of 9 bits, downloaded by torchvision."""
    return RunConfig(
        recipe="cifar10",
        data=DataConfig(source="cifar10"),
        vqvae=VQVAEConfig(width=160, fine_width=64, num_layers=3),
        vqvae_training=_muon(epochs=12, learning_rate=4e-3),
        prior=TransformerConfig(num_layers=8, width=256, num_heads=8, dropout=0.1),
        prior_training=_muon(epochs=12, learning_rate=2e-3),
    )


def folder_64() -> RunConfig:
    """Your own photos at 64x64: add --data.source folder:PATH."""
    return RunConfig(
        recipe="folder-64",
        data=DataConfig(source="folder:images", image_size=(64, 64), channels=3),
        vqvae=VQVAEConfig(
            downsampling=8,
            width=160,
            fine_width=64,
            num_layers=3,
            quantizer=EMAQuantizerConfig(codebook_size=1024),
        ),
        vqvae_training=_muon(epochs=40, learning_rate=4e-3, validate_every=2),
        prior=TransformerConfig(num_layers=8, width=256, num_heads=8, dropout=0.1),
        prior_training=_muon(epochs=40, learning_rate=2e-3, validate_every=2, patience=5),
    )


def smoke() -> RunConfig:
    """A whole run in under a minute, to see that everything works; its images are poor."""
    return RunConfig(
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
    )


RECIPES: dict[RecipeName, Callable[[], RunConfig]] = {
    "fashion-mnist-mini": fashion_mnist_mini,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
    "folder-64": folder_64,
    "smoke": smoke,
}
