"""A small network whose features images are compared in, and its training on the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.training.randomness import ExampleOrder, derive_seed
from stage1_vqvae.images import to_float

NUM_FEATURES = 128
_MAX_SIDE = 64
_EVALUATION_BATCH = 500
_Encoder = TypeVar("_Encoder", bound="FeatureEncoder")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTraining:
    """Length and rates of the training; the same for all encoders that are compared."""

    epochs: float = 3.0
    """Passes over many images."""
    min_steps: int = 500
    """Minimum number of optimizer steps, for few images."""
    max_epochs: float = 50.0
    """Maximum number of passes, for very few images."""
    batch_size: int = 128
    """Images per step; all images if there are fewer."""
    learning_rate: float = 5e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""

    def steps(self, num_images: int) -> int:
        """Returns the number of optimizer steps for `num_images` images."""
        per_epoch = num_images / min(self.batch_size, num_images)
        steps = min(max(self.epochs * per_epoch, self.min_steps), self.max_epochs * per_epoch)
        return max(2, round(steps))


class FeatureEncoder(nn.Module):
    """Three convolutions, a layer of 128 features, and a linear head that is for training only.

    Args:
        channels: C of the images, of any height and width.
        num_outputs: Outputs of the head.
    """

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_outputs = num_outputs
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(128 * 9, NUM_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(NUM_FEATURES, num_outputs))

    def forward(self, floats: Tensor) -> Tensor:
        """Returns the head's outputs (B, num_outputs) of images from `prepare`."""
        outputs: Tensor = self.head(self.body(floats))
        return outputs

    def prepare(self, images: Tensor) -> Tensor:
        """Converts uint8 images (B, C, H, W) to float32 in [-1, 1] with sides of at most 64.

        Larger images are averaged down, which bounds the cost.
        """
        floats = to_float(images)
        side = max(floats.shape[2:])
        if side <= _MAX_SIDE:
            return floats
        height, width = (max(1, round(n * _MAX_SIDE / side)) for n in floats.shape[2:])
        return F.adaptive_avg_pool2d(floats, (height, width))

    @torch.no_grad()
    def features(self, images: NDArray[np.uint8]) -> Tensor:
        """Returns features float32 (N, 128) >= 0, on the CPU, of uint8 images (N, C, H, W)."""
        self.eval()
        return torch.cat([self.body(batch).cpu() for batch in self.batches(images)])

    def batches(self, images: NDArray[np.uint8]) -> Iterator[Tensor]:
        """Yields images from `prepare`, on the device of the weights."""
        device = next(self.parameters()).device
        for start in range(0, len(images), _EVALUATION_BATCH):
            batch = torch.from_numpy(images[start : start + _EVALUATION_BATCH].copy())
            yield self.prepare(batch.to(device))


def train_encoder(
    build: Callable[[], _Encoder],
    loss: Callable[[_Encoder, Tensor, Tensor], Tensor],
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: torch.device,
    training: EncoderTraining,
) -> _Encoder:
    """Trains an encoder with AdamW and a one-cycle schedule (Smith and Topin 2018).

    Deterministic on a CPU with one number of threads; the global random state is restored.

    Args:
        build: Makes the encoder, with weights from the global random state.
        loss: Computes the loss of the encoder on images from `prepare` (B, C, H, W) with these
            indices int64 (B,), on the CPU.
        images: uint8 (N, C, H, W).
        seed: Seed of weights, order and whatever the loss draws.
        device: Where to train.
        training: Length and rates.

    Raises:
        ValueError: There are fewer than two images, which batch normalisation needs.
    """
    if len(images) < 2:
        raise ValueError(f"a feature network needs at least 2 images, got {len(images)}")
    steps = training.steps(len(images))
    order = ExampleOrder(len(images), min(training.batch_size, len(images)), seed)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "feature network"))
        model = build().to(device)
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=training.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=training.learning_rate, total_steps=steps, pct_start=0.25
        )
        model.train()
        for step in range(steps):
            indices = order.batch(step)
            batch = model.prepare(torch.from_numpy(images[indices.numpy()]).to(device))
            optimizer.zero_grad()
            loss(model, batch, indices).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()
