"""Benchmarks of the EMA quantizer: time and memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch

from pipelines.benchmarks.peak_memory import memory_of
from pipelines.benchmarks.timing import measure
from pipelines.cli.echo import say
from stage1_vqvae.quantizers.config import EMAQuantizerConfig
from stage1_vqvae.quantizers.ema import EMAQuantizer

# (N, K, D) of the nearest-code search: two of a 28x28 batch of 128, one of a large codebook.
_SIZES = ((6272, 512, 64), (6272, 512, 8), (16384, 8192, 8))
# One whose (N, K) distances would take 4 GiB.
_MEMORY_SIZE = (65536, 16384, 8)


@torch.no_grad()
def benchmark_quantizer(repetitions: int, device: torch.device) -> None:
    """Times the EMA quantizer's training forward, the bare matrix product and another library."""
    has_other = find_spec("vector_quantize_pytorch") is not None
    if not has_other:
        say("quantizer: install the extra `bench` to time vector-quantize-pytorch too")
    for count, size, dim in _SIZES:
        z = torch.randn(1, dim, count, 1, device=device)
        z = z.to(memory_format=torch.channels_last)  # as the encoder returns it
        points, codebook = z[0, :, :, 0].T.contiguous(), torch.randn(size, dim, device=device)
        config = EMAQuantizerConfig(codebook_size=size, codebook_dim=dim, restart_threshold=0)
        quantizer = EMAQuantizer(config).to(device).train()
        ours = measure(partial(quantizer, z), repetitions, device)
        product = measure(partial(torch.matmul, points, codebook.T), repetitions, device)
        line = (
            f"EMA quantizer, N={count} K={size} D={dim}: {ours.milliseconds()} ms, "
            f"{ours.median / product.median:.1f} times the bare product's "
            f"{product.milliseconds()} ms"
        )
        if has_other:
            library = import_module("vector_quantize_pytorch")
            other = library.VectorQuantize(dim=dim, codebook_size=size, decay=config.decay)
            other.to(device).train()
            timing = measure(partial(other, points[None]), min(repetitions, 5), device)
            line += (
                f"; vector-quantize-pytorch {timing.milliseconds()} ms, "
                f"{timing.median / ours.median:.1f} times ours"
            )
        say(line)


def quantizer_forward(count: int, size: int, dim: int) -> Callable[[], object]:
    """Returns a function that runs one training forward of an EMA quantizer."""
    config = EMAQuantizerConfig(codebook_size=size, codebook_dim=dim, restart_threshold=0)
    quantizer = EMAQuantizer(config).train()
    z = torch.randn(1, dim, count, 1)
    forward = torch.no_grad()(quantizer)
    forward(torch.randn(1, dim, 64, 1))  # libraries load, threads start
    return lambda: forward(z)


def benchmark_quantizer_memory() -> None:
    """Prints how far the peak memory of a new process rises in a forward with a large codebook."""
    count, size, dim = _MEMORY_SIZE
    taken = memory_of(quantizer_forward, *_MEMORY_SIZE)
    say(
        f"EMA quantizer, N={count} K={size} D={dim}: {taken:,.0f} MB of memory above its inputs; "
        f"all distances at once would take {count * size * 4 / 1e6:,.0f} MB"
    )
