"""All benchmarks of a recipe's models."""

from __future__ import annotations

import torch

from pipelines.benchmarks.pixelcnn import benchmark_pixelcnn
from pipelines.benchmarks.priors import (
    benchmark_parallel_decoding,
    benchmark_sampling_memory,
    benchmark_transformers,
)
from pipelines.benchmarks.quantizer import benchmark_quantizer, benchmark_quantizer_memory
from pipelines.benchmarks.stages import benchmark_stages
from pipelines.cli.echo import say
from pipelines.runs.config import RunConfig
from pipelines.training.device import choose_device


def run_benchmarks(
    config: RunConfig, image_shape: tuple[int, int, int], *, repetitions: int, part: str
) -> None:
    """Times what `part` names (all, stages, quantizer or priors) and prints it."""
    device = choose_device(config.device)
    say(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    if part == "priors":
        benchmark_transformers(repetitions)
        benchmark_parallel_decoding(repetitions)
        benchmark_sampling_memory()
        benchmark_pixelcnn(device)
    if part in ("all", "stages"):
        benchmark_stages(config, image_shape, repetitions, device)
    if part in ("all", "quantizer"):
        benchmark_quantizer(repetitions, device)
        if device.type == "cpu":
            benchmark_quantizer_memory()
