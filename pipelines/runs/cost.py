"""Computation and memory of both trainings, counted without doing them.

The objectives run on tensors that have shapes and no content.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipelines.data.image_set import DataSplits
from pipelines.files.names import duration
from pipelines.runs.choices import Speed
from pipelines.runs.codes import grid_specs
from pipelines.runs.config import RunConfig
from pipelines.runs.models import new_prior, new_vqvae, num_parameters
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import world_size
from pipelines.training.muon import muon_weights
from pipelines.training.precision import Precision, resolve_precision
from stage1_vqvae.objective import VQVAEObjective
from stage2_prior.objective import PriorObjective

_PROCESS_BYTES = 600 * 2**20  # Python with torch and all other imports
_WORKING_TENSORS = 4  # of the largest size, in the middle of a backward pass


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """Cost of one training."""

    parameters: int
    """Numbers that are trained."""
    flops: int
    """Of the forward pass of one whole image, two for each multiplication with its addition. Those
    of convolutions and matrix products, which is nearly all."""
    training_flops: int
    """Of a training step for one image, or for its crop: the backward pass costs two forward
    passes."""
    state_bytes: int
    """Weights with their gradients, the optimizer's moments, the averaged weights and their best
    copy."""
    activation_bytes: int
    """What a batch's forward pass keeps for the backward pass, and what that works with, over all
    processes."""

    def bytes(self, num_processes: int) -> int:
        """Memory of the training in each process, without images, codes and the process itself."""
        return self.state_bytes + self.activation_bytes // num_processes


def count_costs(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    precisions: tuple[Precision, Precision],
) -> tuple[StageCost, StageCost]:
    """Counts the cost of stage one and of stage two, each in its precision, for images (C, H, W).

    Weights to start from are not read.
    """
    config = replace(config, vqvae_from=None, prior_from=None)
    with FakeTensorMode():
        vqvae = new_vqvae(config, image_shape)
        # In evaluation mode: the statistics of a codebook depend on content, and cost little.
        objective = VQVAEObjective(vqvae).eval()
        training, precision = config.vqvae_training, precisions[0]
        size = training.batch_size // training.accumulation
        height, width = config.vqvae_augmentation.image_size(image_shape)
        images = torch.zeros(size, image_shape[0], height, width, dtype=torch.uint8)
        first = _count(objective, (images,), training, precision)
        whole = torch.zeros(1, *image_shape, dtype=torch.uint8)
        first = replace(first, flops=_flops(objective, (whole,), precision))

        grids, training = grid_specs(vqvae), config.prior_training
        prior = new_prior(config, grids, num_classes)
        size = training.batch_size // training.accumulation
        codes = torch.zeros(size, sum(grid.num_codes for grid in grids), dtype=torch.int64)
        labels = None if num_classes is None else codes[:, 0]
        second = _count(PriorObjective(prior).train(), (codes, labels), training, precisions[1])
    return first, second


def plan_costs(
    config: RunConfig, splits: DataSplits, device: torch.device, speed: Speed
) -> tuple[str, str]:
    """Describes the cost of both stages in a line each; `speed` is that of this machine."""
    crop = config.vqvae_augmentation.crop
    stages = (
        ("cost:  vqvae", config.vqvae_training, speed.vqvae, "it" if crop is None else "its crop"),
        ("       prior", config.prior_training, speed.prior, "it"),
    )
    first, second = (resolve_precision(training.precision, device) for _, training, *_ in stages)
    costs = count_costs(config, splits.image_shape, splits.num_classes, (first, second))
    vqvae, prior = (
        f"{name} {cost.flops / 1e9:.3g} GFLOP for an image, {cost.training_flops / 1e9:.3g} to "
        f"train on {seen}; {_memory(cost, splits, device)}; "
        f"{duration(training.total_steps(len(splits.train)) * training.batch_size / rate)} at "
        f"{rate:,.0f} images/s"
        for (name, training, rate, seen), cost in zip(stages, costs, strict=True)
    )
    return vqvae, prior


def _memory(cost: StageCost, splits: DataSplits, device: torch.device) -> str:
    count = world_size()
    each = " in each process" if count > 1 else ""
    if device.type != "cpu":
        return f"{cost.bytes(count) / 2**30:.2f} GiB on the device{each}"
    images = sum(
        part.images.nbytes
        for part in splits.by_name.values()
        if not isinstance(part.images, np.memmap)  # it is read from a file
    )
    return f"{(cost.bytes(count) + images + _PROCESS_BYTES) / 2**30:.2f} GiB of memory{each}"


def _count(
    objective: nn.Module,
    batch: tuple[Tensor | None, ...],
    training: TrainingConfig,
    precision: Precision,
) -> StageCost:
    state = [*objective.parameters(), *objective.buffers()]
    with precision.autocast(torch.device("cpu")), _counting_saved(but=state) as saved:
        objective(*batch)
    assert batch[0] is not None
    flops = _flops(objective, batch, precision) // len(batch[0])
    parameters = num_parameters(objective)
    with_one_moment = sum(weight.numel() for weight in _muon_weights(objective, training))
    return StageCost(
        parameters=parameters,
        flops=flops,
        training_flops=3 * flops,
        # Gradients, and Muon's moment or AdamW's two; the state, its average and the best one.
        state_bytes=4 * (3 * parameters - with_one_moment) + 3 * sum(map(_num_bytes, state)),
        activation_bytes=sum(saved.values()) + _WORKING_TENSORS * max(saved.values()),
    )


def _flops(objective: nn.Module, batch: tuple[Tensor | None, ...], precision: Precision) -> int:
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),  # the counter knows nothing of the CPU's fused attention
        FlopCounterMode(display=False) as counter,
        precision.autocast(torch.device("cpu")),
    ):
        objective(*batch)
    return int(counter.get_total_flops())


def _muon_weights(objective: nn.Module, training: TrainingConfig) -> list[nn.Parameter]:
    return muon_weights(objective) if training.optimizer == "muon" else []


@contextmanager
def _counting_saved(but: list[Tensor]) -> Iterator[dict[int, int]]:
    """Collects the bytes of all memory that autograd saves in the block, each once, by address.

    The memory of the tensors in `but` is left out.
    """
    kept: list[torch.UntypedStorage] = []  # an address is used again once its memory is free
    found: dict[int, int] = {}
    others = {tensor.untyped_storage()._cdata for tensor in but}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in others:
            kept.append(storage)
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield found


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
