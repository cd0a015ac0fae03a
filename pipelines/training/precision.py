"""Whether bfloat16 is worth using on this machine, found out by a short test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.training.config import PrecisionChoice

TOLERANCE = 0.02
"""Largest relative error of a correct bfloat16 kernel: rounding its inputs and outputs to 8 bits
costs about 0.003, while a wrong kernel is off by its whole magnitude."""

Layer = Literal["conv1x1", "conv2x2", "conv3x3", "linear"]
LAYERS: tuple[Layer, ...] = ("conv1x1", "conv2x2", "conv3x3", "linear")
_REPEATS = 3
_BATCH, _CHANNELS, _SIDE = 16, 64, 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """The number format of convolutions and matrix products during training."""

    name: Literal["fp32", "bf16"]
    """fp32 or bf16."""

    reason: str
    """Why, as the end of the sentence "trains in bf16: ..."."""

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which an objective's forward pass runs."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.name == "bf16")


def resolve_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """Turns the configured choice into the format this machine trains in.

    `auto` is bf16 on a GPU that has it; on a CPU where `probe_cpu` finds it right and faster; and
    fp32 elsewhere. The answer is a measurement: whoever must repeat a run has to keep it.
    """
    if choice != "auto":
        return Precision(name=choice, reason="it was asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(name="bf16", reason="this GPU computes in it")
        return Precision(name="fp32", reason="this GPU does not compute in bf16")
    if device.type == "cpu":
        return probe_cpu()
    return Precision(name="fp32", reason=f"bf16 is not tried on {device.type}")


def probe_cpu() -> Precision:
    """Compares bfloat16 with float32 on small layers, forward and backward.

    Both halves have failed in released versions of PyTorch: 2x2 convolutions were wrong in 2.5.1
    (pytorch/pytorch#163347), and convolutions have been 4 to 16 times slower than float32 on CPUs
    without AVX512 since 2.13 (#183815). Takes a few tens of milliseconds, and leaves the global
    random stream alone.
    """
    for layer in LAYERS:
        error = relative_error(layer)
        if not error <= TOLERANCE:  # not `>`: a NaN is an error as well
            return Precision(name="fp32", reason=f"bf16 {layer} is off by {error:.0%} here")
    slow = sum(seconds(layer, bf16=False) for layer in LAYERS)
    fast = sum(seconds(layer, bf16=True) for layer in LAYERS)
    if fast >= slow:
        return Precision(name="fp32", reason=f"bf16 takes {fast / slow:.1f} times as long here")
    return Precision(name="bf16", reason=f"it is right and {slow / fast:.1f} times faster here")


def relative_error(layer: Layer) -> float:
    """Largest ||bf16 - fp32|| / ||fp32|| over the layer's output and its two gradients."""
    exact, rounded = run_layer(layer, bf16=False), run_layer(layer, bf16=True)
    errors = [(b.float() - a).norm() / a.norm() for a, b in zip(exact, rounded, strict=True)]
    return float(torch.stack(errors).max())


def seconds(layer: Layer, *, bf16: bool) -> float:
    """The shortest of a few forward and backward passes: the least disturbed by other programs."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run_layer(layer, bf16=bf16)
        times.append(time.perf_counter() - start)
    return min(times)


def run_layer(layer: Layer, *, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and backward pass: (output, gradient of the input, gradient of the weight)."""
    generator = torch.Generator().manual_seed(0)
    if layer == "linear":
        inputs = torch.randn(_BATCH * _SIDE**2, _CHANNELS, generator=generator)
        weight = torch.randn(4 * _CHANNELS, _CHANNELS, generator=generator)
    else:
        kernel = int(layer[-1])
        inputs = torch.randn(_BATCH, _CHANNELS, _SIDE, _SIDE, generator=generator)
        weight = torch.randn(_CHANNELS, _CHANNELS, kernel, kernel, generator=generator)
        inputs = inputs.to(memory_format=torch.channels_last)
        weight = weight.to(memory_format=torch.channels_last)
    inputs.requires_grad_()
    weight.requires_grad_()
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        output = F.linear(inputs, weight) if layer == "linear" else F.conv2d(inputs, weight)
    # A fixed random cotangent; backward of a plain sum would hide errors that cancel.
    cotangent = torch.randn(output.shape, generator=generator).to(output.dtype)
    input_gradient, weight_gradient = torch.autograd.grad(output, (inputs, weight), cotangent)
    return output.detach(), input_gradient, weight_gradient
