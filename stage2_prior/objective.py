"""The training objective of stage two, and bits per code on a whole split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from stage2_prior.base import CodePrior
from stage2_prior.config import TransformerConfig
from stage2_prior.sampling.checks import Context
from stage2_prior.sampling.ordering import random_orders


@dataclass(frozen=True)
class PriorStep:
    """Loss and metrics of one training step."""

    loss: Tensor
    """float32 (): nats per code."""
    metrics: dict[str, Tensor]
    """Detached float32 (): `bits_per_code`."""

    @property
    def losses(self) -> dict[str, Tensor]:
        """The loss by optimizer, of which there is one."""
        return {"main": self.loss}


class PriorObjective(nn.Module):
    """Mean -log p(c_t | c_<t, label, context), with labels dropped at random in training.

    Dropping them trains the same network without labels too, which guidance needs (Ho and
    Salimans 2022, algorithm 1).

    A prior of any order sees a share of the images in a random order, the rest in raster order. The
    share falls linearly from 1, so that the raster order ends as good as without (Yu et al. 2024,
    "RAR", section 3.2); here it may stop above 0, so that the other orders stay good too.
    """

    random_share: Tensor
    """float32 (): the share of images in a random order."""

    def __init__(self, prior: CodePrior) -> None:
        super().__init__()
        self.prior = prior
        # A tensor, so that compiled code serves every share.
        self.register_buffer("random_share", torch.zeros(()), persistent=False)
        self.set_progress(0.0)

    def set_progress(self, fraction: float) -> None:
        """Sets the share of random orders for `fraction` of training being done, in [0, 1]."""
        share, config = 0.0, self.prior.config
        if self.prior.any_order:
            assert isinstance(config, TransformerConfig), "the config has the shares of orders"
            last, until = config.random_order_share, config.random_order_until
            done = min(fraction / until, 1.0) if until else 1.0
            share = last + (1 - last) * (1 - done)
        self.random_share.fill_(share)
        self._has_random_orders = share > 0

    def forward(
        self,
        sequence: Tensor,
        labels: Tensor | None,
        context: Tensor | None = None,
        null_labels: Tensor | None = None,
    ) -> PriorStep:
        """Computes the loss of a batch.

        Args:
            sequence: int64 (B, L), as for `CodePrior.forward`.
            labels: int64 (B,), or None for a prior without labels.
            context: As for `CodePrior.forward`.
            null_labels: int64 (B,), what each label is replaced by where it is dropped; None for
                the prior's `null_label`.
        """
        if null_labels is None:
            null_labels = torch.full_like(sequence[:, 0], self.prior.null_label)
        if labels is None:
            labels = null_labels
        elif self.training and self.prior.config.label_dropout:
            random = torch.rand(labels.shape, device=labels.device)
            labels = torch.where(random < self.prior.config.label_dropout, null_labels, labels)
        loss = self.prior.nll(sequence, labels, context, self._order(sequence)).mean()
        return PriorStep(loss, {"bits_per_code": loss.detach() / math.log(2)})

    def _order(self, sequence: Tensor) -> Tensor | None:
        """A random order for a random share of the images: int64 (B, L), or None."""
        if not self.training or not self._has_random_orders:
            return None
        batch, length = sequence.shape
        random = torch.rand(batch, 1, device=sequence.device) < self.random_share
        raster = torch.arange(length, device=sequence.device)
        return torch.where(random, random_orders(batch, length, sequence.device), raster)


CodeBatch: TypeAlias = (
    tuple[tuple[Tensor, ...], Tensor | None]
    | tuple[tuple[Tensor, ...], Tensor | None, Context | None]
)
"""Arguments of `CodePrior.log_prob`: codes, labels, and the context of a prior with one."""


def measure_bits_per_code(prior: CodePrior, batches: Iterable[CodeBatch]) -> float:
    """Computes -log2 p(codes | labels, context) per code, averaged over all images.

    Args:
        prior: Is put into evaluation mode and left there.
        batches: Code grids (B, h_i, w_i), labels (B,) or None, and context; B may differ.

    Raises:
        ValueError: There are no images.
    """
    prior.eval()
    nats, images = 0.0, 0
    for batch in batches:
        nats -= prior.log_prob(*batch).sum().item()
        images += len(batch[0][0])
    if not images:
        raise ValueError("at least one image is required to measure bits per code, got none")
    return nats / (images * prior.num_codes * math.log(2))
