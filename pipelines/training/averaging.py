"""Weights averaged over training (Polyak averaging with an exponential window)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipelines.training.state_tensors import cloned, copy_into, state_tensors


def ramped_decay(decay: float, updates: int) -> float:
    """Computes min(decay, (1 + t) / (10 + t)) after t updates, so that short runs average too."""
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Exponential moving average of a module's state.

    Floating-point parameters and buffers are averaged; integer and boolean buffers, which have no
    mean, are copied. `decay` is the share of the old average that one update keeps, in [0, 1).
    `tensors` is the average by name, on the module's device; the first one is the state itself.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = cloned(state_tensors(module))

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """Updates the average: d * average + (1 - d) * weights, d = `ramped_decay(decay, updates)`.

        `module` is that of the constructor, after an optimizer step, and `updates` the number of
        earlier updates.
        """
        averaged: list[Tensor] = []
        live: list[Tensor] = []
        # The state is read anew each time: a module may replace a buffer instead of writing to it.
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self.tensors[name])
                live.append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(averaged, live, 1 - ramped_decay(self.decay, updates))

    @contextmanager
    def swapped_into(self, module: nn.Module) -> Iterator[None]:
        """Gives `module` the averaged state for the block, then restores its own exactly."""
        own = cloned(state_tensors(module))
        copy_into(state_tensors(module), self.tensors, "the weight average")
        try:
            yield
        finally:
            copy_into(state_tensors(module), own, "the weights before averaging")
