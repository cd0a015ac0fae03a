"""A training step on a GPU never makes the CPU wait, and is deterministic.

Without a GPU: on a device that has no values.
"""

import numpy as np
import pytest
import torch
from tiny_priors import VARIANTS, as_context, as_grids, random_context, random_labels
from tiny_priors import random_sequence as random_codes
from tiny_vqvae import CASES
from watched_gpu import GPU, watched_gpu

from pipelines.data.image_set import ImageSet
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training import rows
from pipelines.training.config import TrainingConfig
from pipelines.training.precision import Precision
from pipelines.training.train_step import TrainStep
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage2_prior import PriorSpec, build_prior

FP32 = Precision(name="fp32", reason="it was asked for")
FLIPPED = PriorAugmentationConfig(flip=True)
COUNT = 20


def rows_without_values(source, count, device="cpu"):
    dtype = source.dtype if torch.is_tensor(source) else torch.uint8
    return torch.zeros(count, *source.shape[1:], dtype=dtype, device=device)


@pytest.fixture(autouse=True)
def _gpu_has_no_memory(monkeypatch):
    monkeypatch.setattr(rows, "_fits", lambda *_: True)
    monkeypatch.setattr(rows, "_copied", lambda x, gpu: rows_without_values(x, len(x), gpu))
    monkeypatch.setattr(rows, "_gathered", lambda x, i: rows_without_values(x, len(i)))


def vqvae_task(name):
    sizes = {"downsampling": 2, "width": 6, "fine_width": 4, "num_layers": 1}
    with GPU:
        model = VQVAE(VQVAEConfig(quantizer=CASES[name], **sizes), (3, 8, 8))
    images = ImageSet(np.zeros((COUNT, 3, 8, 8), np.uint8))
    augmentation = VQVAEAugmentationConfig(crop=4, flip=True)
    return VQVAETask(model, images, images, 8, augmentation=augmentation, has_codebook=True)


def prior_task(variant):
    """Of labelled images, with another view of each."""
    spec = PriorSpec(
        grids=variant.grids,
        num_classes=3,
        context=variant.context,
        num_extra_labels=FLIPPED.num_extra_labels(3),
    )
    with GPU:
        prior = build_prior(variant.config(dropout=0.1), spec)
    codes = tuple(grid.int() for grid in as_grids(random_codes(spec.grids, COUNT), spec.grids))
    split = SplitCodes(codes, random_labels(3, COUNT))
    sizes = tuple(grid.codebook_size for grid in spec.grids)
    dump = CodeDump({"train": split, "validation": split}, sizes, 3, "hash")
    context = as_context(random_context(spec.context, COUNT), spec.context)
    contexts = None if context is None else {"train": context, "validation": context}
    return PriorTask(prior, dump, [split], FLIPPED, contexts)


def train(task, **changes):
    """Steps at the start and at the end of a training, where restarts and random orders end."""
    task.objective.train()
    config = TrainingConfig(epochs=100, batch_size=8, accumulation=2, clip_norm=0.5, **changes)
    with watched_gpu() as operations:
        step = TrainStep(task, config, GPU, FP32, seed=0)
        for i in (0, 1, step.total_steps - 1):
            step.step(i)
        step.close()
    return operations


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_step_of_stage_one_waits_for_a_gpu(name):
    assert "aten::_fused_adamw_" in train(vqvae_task(name))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_of_stage_two_waits_for_a_gpu(variant):
    assert "aten::_fused_adamw_" in train(prior_task(VARIANTS[variant]))


@pytest.mark.slow
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("make", [vqvae_task, prior_task])
def test_neither_muon_nor_batches_from_the_cpu_wait_for_a_gpu(make, resident, monkeypatch):
    monkeypatch.setattr(rows, "_fits", lambda *_: resident)
    task = make("ema" if make is vqvae_task else VARIANTS["transformer-any_order"])
    assert "aten::baddbmm" in train(task, optimizer="muon")


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: torch.bincount(x.long()),
        lambda x: x.cpu(),
        lambda x: x[torch.arange(2)],
        lambda _: torch.ones(2).to(GPU),
        lambda x: torch.histc(x),
    ],
)
def test_waiting_is_noticed(wait):
    # Otherwise the tests above could not fail.
    with (
        watched_gpu(),
        pytest.raises((AssertionError, RuntimeError, NotImplementedError)),
    ):
        wait(torch.ones(3, device=GPU))
