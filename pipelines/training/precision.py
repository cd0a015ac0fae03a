"""Choice of the training precision, by a short test of bfloat16 on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
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
TIMED_LAYERS: tuple[Layer, ...] = ("conv3x3", "linear")
"""Where nearly all of the time of our networks goes."""

_BATCH, _CHANNELS, _SIDE = 16, 64, 14
_ROUNDS = 10
_TIME_LIMIT = 0.2
"""Seconds after which a slow machine's timing is cut short."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """The number format of convolutions and matrix products during training."""

    name: Literal["fp32", "bf16"]
    """Float32 or bfloat16."""
    reason: str
    """Why, as the end of the sentence "trains in bf16: ..."."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of this format."""
        return torch.bfloat16 if self.name == "bf16" else torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """Returns the context in which an objective's forward pass runs."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.name == "bf16")


def resolve_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """Resolves the configured choice for this machine.

    `auto` is bf16 on a GPU that supports it, on a CPU if `probe_cpu` finds it correct and faster,
    and fp32 elsewhere. The result is a measurement: a resumed run has to keep it.
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
    without AVX512 since 2.13 (#183815). Takes tens of milliseconds, and leaves the global random
    stream alone.

    It runs in a single thread: waiting for other threads on busy cores takes ten times as long as
    the work itself.
    """
    with _single_thread():
        for layer in LAYERS:
            error = relative_error(layer)
            if not error <= TOLERANCE:  # not `>`: a NaN is an error as well
                return Precision(name="fp32", reason=f"bf16 {layer} is off by {error:.0%} here")
        ratio = speed_ratio()
    if ratio <= 1:
        return Precision(name="fp32", reason=f"bf16 takes {1 / ratio:.1f} times as long here")
    return Precision(name="bf16", reason=f"it is right and {ratio:.1f} times as fast here")


def relative_error(layer: Layer) -> float:
    """Computes the largest ||bf16 - fp32|| / ||fp32|| over output and both gradients."""
    inputs, weight = _operands(layer)
    exact = run_layer(layer, inputs, weight, bf16=False)
    rounded = run_layer(layer, inputs, weight, bf16=True)
    errors = [(b.float() - a).norm() / a.norm() for a, b in zip(exact, rounded, strict=True)]
    return float(torch.stack(errors).max())


def speed_ratio() -> float:
    """Measures how many times as fast bf16 is, by the shortest times of both.

    Processor time of this thread hardly depends on other programs on the same cores.
    """
    operands = {layer: _operands(layer) for layer in TIMED_LAYERS}
    shortest = {(layer, bf16): float("inf") for layer in TIMED_LAYERS for bf16 in (False, True)}
    deadline = time.perf_counter() + _TIME_LIMIT
    for _ in range(_ROUNDS):
        for layer, bf16 in shortest:
            start = time.thread_time()
            run_layer(layer, *operands[layer], bf16=bf16)
            elapsed = time.thread_time() - start
            shortest[layer, bf16] = min(shortest[layer, bf16], elapsed)
        if time.perf_counter() > deadline:
            break
    slow, fast = (sum(shortest[layer, bf16] for layer in TIMED_LAYERS) for bf16 in (False, True))
    return slow / fast


@contextmanager
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_layer(
    layer: Layer, inputs: Tensor, weight: Tensor, *, bf16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs forward and backward: (output, gradient of the input, gradient of the weight)."""
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        output = F.linear(inputs, weight) if layer == "linear" else F.conv2d(inputs, weight)
    # A cotangent that varies: under a constant one, errors of opposite sign would cancel.
    cotangent = output.detach().cos()
    input_gradient, weight_gradient = torch.autograd.grad(output, (inputs, weight), cotangent)
    return output.detach(), input_gradient, weight_gradient


def _operands(layer: Layer) -> tuple[Tensor, Tensor]:
    """Returns input and weight of a layer, in shapes and memory format of a small network."""
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
    # Scaled so that outputs are about 1, where the cotangent's cosine varies smoothly.
    weight /= weight[0].numel() ** 0.5
    return inputs.requires_grad_(), weight.requires_grad_()
