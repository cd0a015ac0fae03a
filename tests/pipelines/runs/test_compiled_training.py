"""Compiled trainings: the losses of uncompiled ones, and an exact resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._dynamo.config
import torch._inductor.config
from tiny_priors import CONFIGS, random_labels
from tiny_runs import KilledError, kill_at
from tiny_vqvae import quantizer_config

from pipelines.data.image_set import ImageSet
from pipelines.runs import compilation
from pipelines.runs.compilation import check_compilation
from pipelines.runs.config import RunConfig
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.training.config import TrainingConfig
from pipelines.training.metrics_log import MetricsLog, read_metrics
from pipelines.training.trainer import Trainer
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage2_prior import GridSpec, PriorSpec, build_prior

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=3, batch_size=8, learning_rate=0.01, precision="fp32", log_every=1, checkpoint_every=3
)
"""Nine steps."""


def vqvae_task():
    """The temperature changes with every step."""
    torch.manual_seed(0)
    config = VQVAEConfig(
        quantizer=quantizer_config("gumbel"), downsampling=2, width=6, fine_width=4, num_layers=1
    )
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
    images = ImageSet(images)
    return VQVAETask(VQVAE(config, (3, 8, 8)), images, images, 8)


def prior_task():
    """The share of random orders changes with every step, and falls to none."""
    torch.manual_seed(0)
    grid = GridSpec(2, 3, 5)
    config = replace(CONFIGS["transformer"], any_order=True, random_order_share=0.0)
    prior = build_prior(config, PriorSpec(grids=(grid,), num_classes=3))
    split = SplitCodes((torch.randint(5, (24, 2, 3), dtype=torch.int32),), random_labels(3, 24))
    return PriorTask(prior, CodeDump({"train": split, "validation": split}, (5,), 3, "hash"))


def fit(task, folder, *, resume=False, **changes):
    trainer = Trainer(
        task,
        replace(CONFIG, **changes),
        checkpoint_dir=folder / "checkpoints",
        metrics=MetricsLog(folder / "metrics.jsonl"),
        device=CPU,
        seed=0,
    )
    trainer.fit(resume=resume)
    rows = read_metrics(folder / "metrics.jsonl")
    return [row.values["loss"] for row in rows if row.kind == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [vqvae_task, prior_task])
def test_compiled_training_has_the_losses_of_an_uncompiled_one(make, tmp_path, monkeypatch):
    # Dropout has other kernels when it is compiled, which draw other numbers.
    monkeypatch.setattr("stage2_prior.dropout.Dropout.forward", lambda _, x: x)
    expected = fit(make(), tmp_path / "eager")
    task = make()
    names = list(task.objective.state_dict())
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch(fallback_random=True),  # else they are others than torch's
        # Temperatures and shares of random orders compile nothing; the end of such orders does.
        torch._dynamo.config.patch(error_on_recompile=make is vqvae_task),
    ):
        losses = fit(task, tmp_path / "compiled", compile=True)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses != expected  # it was compiled: sums are rounded in another order
    assert list(task.objective.state_dict()) == names


@pytest.mark.slow
@pytest.mark.parametrize("make", [vqvae_task, prior_task])
def test_resume_of_a_compiled_training_equals_uninterrupted(make, tmp_path, monkeypatch):
    expected = make()
    losses = fit(expected, tmp_path / "whole", compile=True)
    with monkeypatch.context() as patch:
        kill_at(patch, type(expected), "set_progress", 6)
        with pytest.raises(KilledError):
            fit(make(), tmp_path / "killed", compile=True)
    torch._dynamo.reset()  # as a new process
    task = make()
    assert fit(task, tmp_path / "killed", resume=True, compile=True) == losses
    torch.testing.assert_close(
        task.objective.state_dict(), expected.objective.state_dict(), rtol=0, atol=0
    )


def test_a_compiled_training_is_not_resumed_uncompiled(tmp_path):
    fit(prior_task(), tmp_path)
    with pytest.raises(ValueError, match=r"compile was False .* True"):
        fit(prior_task(), tmp_path, resume=True, compile=True)


@pytest.mark.parametrize("stage", ["vqvae", "prior"])
def test_compiling_without_a_compiler_is_refused(stage, monkeypatch):
    monkeypatch.setattr(compilation, "can_compile", lambda _: False)
    check_compilation(RunConfig(), CPU)
    config = RunConfig(**{f"{stage}_training": TrainingConfig(compile=True)})
    with pytest.raises(RuntimeError, match=rf"--{stage}-training\.compile needs a C.. compiler"):
        check_compilation(config, CPU)
