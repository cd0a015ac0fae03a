"""Dropout whose random bits do not cost a fifth of a training step on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BYTE_VALUES = 256


class Dropout(nn.Module):
    """Sets each element to zero with a given probability and scales the others up in training.

    Srivastava et al. 2014, "Dropout", section 4, scaled so that the mean is kept. A CPU draws one
    random number per element, one after the other; here a 64-bit number serves eight elements, a
    byte each, so that on a CPU the probability is rounded to a multiple of 1/256. Compiled, torch's
    own costs no more: its numbers are drawn in the loop that uses them.

    Args:
        probability: In [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Maps float x to the same shape and dtype; the identity in evaluation mode."""
        if not self.training or not self.probability:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.probability)
        threshold = min(round(self.probability * _BYTE_VALUES), _BYTE_VALUES - 1)
        numbers = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(1 << 63), None)
        kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
        return x * kept.to(x.dtype).mul_(_BYTE_VALUES / (_BYTE_VALUES - threshold))
