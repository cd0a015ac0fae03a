"""`python -m pipelines.benchmark`: how fast a recipe's models train and sample on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pipelines.cli.command import parse, recipe_defaults, run_command, say
from pipelines.runs.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from pipelines.training.config import TrainingConfig
    from pipelines.training.precision import Precision
    from stage1_vqvae.model import VQVAE
    from stage2_prior.base import CodePrior

_SAMPLES = 64
# (N, K, D) of the nearest-code search: two of a 28x28 batch of 128, one of a large codebook.
_QUANTIZER_SIZES = ((6272, 512, 64), (6272, 512, 8), (16384, 8192, 8))
# One whose (N, K) distances would take 4 GiB.
_MEMORY_SIZE = (65536, 16384, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOptions:
    """Time training steps, sampling and quantization with random data; nothing is written.

    Each time is the median over the repetitions (of sampling and of other software at most 5),
    after one that is not counted, with the fastest and the slowest beside it. With the extra
    `bench` the quantizer is timed beside vector-quantize-pytorch's, both without restarts.
    """

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What would be trained; the data are not read."""
    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width of the random images."""
    repetitions: int = 20
    """How often each thing is timed."""
    part: Literal["all", "stages", "quantizer", "priors"] = "all"
    """What is timed: training and sampling of both stages, the quantizer's search, or both (all);
    or the priors' samplers beside GPT-2 and beside a PixelCNN without caches, which takes
    minutes."""


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
    training: TrainingConfig,
    precision: Precision,
    device: torch.device,
) -> Callable[[], None]:
    """One forward pass, backward pass and optimizer step as a function to time."""
    from pipelines.training.optimizer import build_optimizer

    optimizer = build_optimizer(objective, training)

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
    from stage2_prior.grids import GridSpec
    from stage2_prior.objective import PriorObjective
    from stage2_prior.pretrained import build_prior

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
    training = config.vqvae_training
    step = training_step(VQVAEObjective(vqvae).train(), (images,), training, precision, device)
    rate = measure(step, repetitions, device).per_second(size)
    say(
        f"vqvae training: {rate} images/s at batches of {size}, {precision.name}, "
        f"{training.optimizer}"
    )

    size = config.prior_training.batch_size
    sequence = torch.cat(
        [torch.randint(grid.codebook_size, (size, grid.num_codes)) for grid in grids], dim=1
    ).to(device)
    precision = resolve_precision(config.prior_training.precision, device)
    training = config.prior_training
    step = training_step(
        PriorObjective(prior).train(), (sequence, None), training, precision, device
    )
    rate = measure(step, repetitions, device).per_second(size)
    say(
        f"prior training: {rate} images/s at batches of {size}, {precision.name}, "
        f"{training.optimizer}"
    )
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

    from stage1_vqvae.quantizers.config import EMAQuantizerConfig
    from stage1_vqvae.quantizers.ema import EMAQuantizer

    has_peer = importlib.util.find_spec("vector_quantize_pytorch") is not None
    if not has_peer:
        say("quantizer: install the extra `bench` to time vector-quantize-pytorch beside it")
    for count, size, dim in _QUANTIZER_SIZES:
        z = torch.randn(1, dim, count, 1, device=device)
        z = z.to(memory_format=torch.channels_last)  # as the encoder gives it
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
        ratio = ours.median / product.median
        line = (
            f"EMA quantizer, N={count} K={size} D={dim}: {ours.milliseconds()} ms, {ratio:.1f} "
            f"times the bare product's {product.milliseconds()} ms"
        )
        if has_peer:
            from vector_quantize_pytorch import VectorQuantize

            other = VectorQuantize(dim=dim, codebook_size=size, decay=config.decay).to(device)
            other.train()
            with torch.no_grad():
                timing = measure(
                    lambda o=other, p=points[None]: o(p),  # type: ignore[misc]
                    min(options.repetitions, 5),
                    device,
                )
            line += (
                f"; vector-quantize-pytorch {timing.milliseconds()} ms, "
                f"{timing.median / ours.median:.1f} times ours"
            )
        say(line)


def quantizer_forward(count: int, size: int, dim: int) -> Callable[[], object]:
    """One training forward of an EMA quantizer, ready to be measured."""
    import torch

    from stage1_vqvae.quantizers.config import EMAQuantizerConfig
    from stage1_vqvae.quantizers.ema import EMAQuantizer

    config = EMAQuantizerConfig(codebook_size=size, codebook_dim=dim, restart_threshold=0)
    quantizer = EMAQuantizer(config).train()
    z = torch.randn(1, dim, count, 1)
    forward = torch.no_grad()(quantizer)
    forward(torch.randn(1, dim, 64, 1))  # libraries load, threads start
    return lambda: forward(z)


def benchmark_quantizer_memory() -> None:
    """Says how far the peak memory of a new process rises in one forward of a large codebook."""
    from pipelines.benchmarks.peak_memory import memory_of

    count, size, dim = _MEMORY_SIZE
    taken = memory_of(quantizer_forward, *_MEMORY_SIZE)
    say(
        f"EMA quantizer, N={count} K={size} D={dim}: {taken:,.0f} MB of memory above its inputs; "
        f"all distances at once would take {count * size * 4 / 1e6:,.0f} MB"
    )


def benchmark_priors(options: BenchmarkOptions, device: torch.device) -> None:
    """Times the transformer's sampler (on the CPU) and the PixelCNN's."""
    from pipelines.benchmarks.pixelcnn import benchmark_pixelcnn
    from pipelines.benchmarks.priors import (
        benchmark_parallel_decoding,
        benchmark_sampling_memory,
        benchmark_transformers,
    )

    benchmark_transformers(options.repetitions)
    benchmark_parallel_decoding(options.repetitions)
    benchmark_sampling_memory()
    benchmark_pixelcnn(device)


def main() -> None:
    """Reads the options and measures."""
    options = parse(BenchmarkOptions, default=BenchmarkOptions(run=recipe_defaults(sys.argv[1:])))
    if options.repetitions < 1:
        raise ValueError(f"repetitions must be at least 1, got {options.repetitions}")
    import torch

    from pipelines.training.device import choose_device

    device = choose_device(options.run.device)
    say(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    if options.part == "priors":
        benchmark_priors(options, device)
    if options.part in ("all", "stages"):
        benchmark_stages(options, device)
    if options.part in ("all", "quantizer"):
        benchmark_quantizer(options, device)
        if device.type == "cpu":
            benchmark_quantizer_memory()


if __name__ == "__main__":
    run_command(main)
