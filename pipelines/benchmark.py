"""`python -m pipelines.benchmark`: how fast a recipe's models train and sample on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from pipelines.command import parse, recipe_defaults, run_command, say
from pipelines.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from pipelines.training.precision import Precision
    from stage1_vqvae.model import VQVAE
    from stage2_prior.base import CodePrior

_SAMPLES = 64
# (N, K, D) of the nearest-code search: two of a 28x28 batch of 128, one of a large codebook.
_QUANTIZER_SIZES = ((6272, 512, 64), (6272, 512, 8), (16384, 8192, 8))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOptions:
    """Time training steps, sampling and quantization with random data; nothing is written.

    Each figure is the median over the repetitions, after one that is not counted, with the fastest
    and the slowest beside it. With the extra `bench` the quantizer is timed beside
    vector-quantize-pytorch's.
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What would be trained; the data are not read."""
    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width of the random images."""
    repetitions: int = 20
    """How often each thing is timed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    fastest: float
    slowest: float

    def per_second(self, things: int) -> str:
        """`1,050 (980 to 1,100)`: rates of `things` per call."""
        rates = (things / self.median, things / self.slowest, things / self.fastest)
        return "{:,.0f} ({:,.0f} to {:,.0f})".format(*rates)

    def milliseconds(self) -> str:
        """`4.1 (4.0 to 4.9)`."""
        times = (self.median, self.fastest, self.slowest)
        return "{:.2f} ({:.2f} to {:.2f})".format(*(1000 * t for t in times))


def measure(call: Callable[[], object], repetitions: int, device: torch.device) -> Timing:
    """Times `call` after one run that is not counted."""
    import statistics
    import time

    import torch

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    call()
    seconds = []
    for _ in range(repetitions):
        finish()
        start = time.perf_counter()
        call()
        finish()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def training_step(
    objective: nn.Module,
    batch: tuple[torch.Tensor | None, ...],
    precision: Precision,
    device: torch.device,
) -> Callable[[], None]:
    """One forward pass, backward pass and optimizer step as a function to time."""
    import torch

    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with precision.autocast(device):
            loss = objective(*batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def benchmark_stages(options: BenchmarkOptions, device: torch.device) -> None:
    """Times both stages' training steps, the sampler and the decoder."""
    import torch

    from pipelines.training.precision import resolve_precision
    from stage1_vqvae.model import VQVAE
    from stage1_vqvae.objective import VQVAEObjective
    from stage2_prior.build import build_prior
    from stage2_prior.grids import GridSpec
    from stage2_prior.objective import PriorObjective

    config, repetitions = options.run, options.repetitions
    torch.manual_seed(config.seed)
    vqvae = VQVAE(config.vqvae, options.image_shape).to(device)
    grids = tuple(
        GridSpec(height, width, size)
        for (height, width), size in zip(vqvae.grid_shapes, vqvae.codebook_sizes, strict=True)
    )
    prior = build_prior(config.prior, grids).to(device)
    vqvae.to(memory_format=torch.channels_last)

    size = config.vqvae_training.batch_size
    images = torch.randint(256, (size, *options.image_shape), dtype=torch.uint8, device=device)
    precision = resolve_precision(config.vqvae_training.precision, device)
    step = training_step(VQVAEObjective(vqvae).train(), (images,), precision, device)
    rate = measure(step, repetitions, device).per_second(size)
    say(f"vqvae training: {rate} images/s at batches of {size}, {precision.name}")

    size = config.prior_training.batch_size
    sequence = torch.cat(
        [torch.randint(grid.codebook_size, (size, grid.num_codes)) for grid in grids], dim=1
    ).to(device)
    precision = resolve_precision(config.prior_training.precision, device)
    step = training_step(PriorObjective(prior).train(), (sequence, None), precision, device)
    rate = measure(step, repetitions, device).per_second(size)
    say(f"prior training: {rate} images/s at batches of {size}, {precision.name}")
    benchmark_sampling(vqvae.eval(), prior.eval(), repetitions, device)


def benchmark_sampling(
    vqvae: VQVAE, prior: CodePrior, repetitions: int, device: torch.device
) -> None:
    """Times drawing and decoding one batch."""
    codes = prior.sample(_SAMPLES)
    drawing = measure(lambda: prior.sample(_SAMPLES), min(repetitions, 5), device)
    decoding = measure(lambda: vqvae.decode(codes), repetitions, device)
    say(f"sampling codes of {_SAMPLES} images: {drawing.milliseconds()} ms")
    say(f"decoding {_SAMPLES} images: {decoding.milliseconds()} ms")


def benchmark_quantizer(options: BenchmarkOptions, device: torch.device) -> None:
    """Times the EMA quantizer's training forward, beside the bare matrix product and a peer."""
    import importlib.util

    import torch

    from stage1_vqvae.quantizer_config import EMAQuantizerConfig
    from stage1_vqvae.quantizers.ema import EMAQuantizer

    has_peer = importlib.util.find_spec("vector_quantize_pytorch") is not None
    if not has_peer:
        say("quantizer: install the extra `bench` to time vector-quantize-pytorch beside it")
    for count, size, dim in _QUANTIZER_SIZES:
        z = torch.randn(1, dim, count, 1, device=device)
        points, codebook = z[0, :, :, 0].T.contiguous(), torch.randn(size, dim, device=device)
        config = EMAQuantizerConfig(codebook_size=size, codebook_dim=dim, restart_threshold=0)
        quantizer = EMAQuantizer(config).to(device).train()
        with torch.no_grad():
            ours = measure(lambda q=quantizer, z=z: q(z), options.repetitions, device)  # type: ignore[misc]
            product = measure(
                lambda a=points, b=codebook: a @ b.T,  # type: ignore[misc]
                options.repetitions,
                device,
            )
        peer = ""
        if has_peer:
            from vector_quantize_pytorch import VectorQuantize

            other = VectorQuantize(dim=dim, codebook_size=size, decay=config.decay).to(device)
            other.train()
            with torch.no_grad():
                timing = measure(lambda o=other, p=points[None]: o(p), 3, device)  # type: ignore[misc]
            peer = f", vector-quantize-pytorch {timing.milliseconds()} ms"
        say(
            f"EMA quantizer, N={count} K={size} D={dim}: {ours.milliseconds()} ms, bare product "
            f"{product.milliseconds()} ms{peer}"
        )


def main() -> None:
    """Reads the options and measures."""
    options = parse(BenchmarkOptions, default=BenchmarkOptions(run=recipe_defaults(sys.argv[1:])))
    if options.repetitions < 1:
        raise ValueError(f"repetitions must be at least 1, got {options.repetitions}")
    import torch

    from pipelines.training.device import choose_device

    device = choose_device(options.run.device)
    say(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    benchmark_stages(options, device)
    benchmark_quantizer(options, device)


if __name__ == "__main__":
    run_command(main)
