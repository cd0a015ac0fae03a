"""Two optimizers that alternate or step together, on losses that share one graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import KilledError, rows_without_time
from toy_tasks import TwoPlayerTask, small_config, trainer_for

from pipelines.training.metrics_log import read_metrics
from pipelines.training.task import OptimizerSpec

VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0])
CONFIG = small_config(
    epochs=6.0,
    batch_size=4,
    learning_rate=0.3,
    final_learning_rate=1.0,
    warmup_fraction=0.0,
    weight_decay=0.0,
    clip_norm=None,
    average_decay=0.0,
    log_every=1,
)


class AdamByHand:
    """Loshchilov and Hutter 2019 on one number; the step count is that of its own steps."""

    def __init__(self, value, rate):
        self.value, self.rate = value, rate
        self.first = self.second = self.steps = 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.99 * self.second + 0.01 * gradient**2
        mean, square = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.99**self.steps)
        self.value -= self.rate * mean / (np.sqrt(square) + 1e-8)


@pytest.mark.parametrize(("every", "accumulation"), [(1, 2), (2, 1)])
def test_each_loss_moves_the_parameters_of_its_own_optimizer(tmp_path, every, accumulation):
    task = TwoPlayerTask(VALUES, every)
    config = replace(CONFIG, accumulation=accumulation)
    trainer_for(task, config, tmp_path).fit(resume=False)
    g, d = AdamByHand(3.0, 0.3), AdamByHand(1.0, 0.03)
    norms = []
    for step in range(1, 7):
        gradient_of_g, gradient_of_d = 3.0 * d.value, d.value - g.value
        norms.append(abs(gradient_of_d))
        d.step(np.clip(gradient_of_d, -1, 1))
        if step % every == 0:
            g.step(gradient_of_g)
    assert task.objective.generator["g"].item() == pytest.approx(g.value, rel=1e-5)
    assert task.objective.discriminator["d"].item() == pytest.approx(d.value, rel=1e-5)
    log = [r.values for r in read_metrics(tmp_path / "metrics.jsonl") if r.kind == "train"]
    assert [row["gradient_norm/discriminator"] for row in log] == pytest.approx(norms, rel=1e-5)
    assert log[0]["loss/discriminator"] == pytest.approx((1 - 3) ** 2 / 2)
    assert [("loss/generator" in row) for row in log] == [s % every == 0 for s in range(1, 7)]
    assert log[-1]["learning_rate/generator"] == pytest.approx(0.3)
    assert log[-1]["learning_rate/discriminator"] == pytest.approx(0.03)


@pytest.mark.parametrize("killed_at", [2, 7])
def test_resume_of_two_optimizers_equals_uninterrupted(tmp_path, killed_at):
    def fit(directory, last_step, *, resume):
        task = TwoPlayerTask(torch.arange(20.0), every=2)
        advance = task.set_progress

        def set_progress(fraction):
            if task.objective.steps == last_step:
                raise KilledError
            advance(fraction)

        task.set_progress = set_progress
        trainer_for(task, small_config(log_every=1), directory).fit(resume=resume)
        checkpoints = sorted(directory.rglob("*.safetensors"))
        tensors = {path.relative_to(directory): path.read_bytes() for path in checkpoints}
        return tensors, rows_without_time(directory)

    expected = fit(tmp_path / "whole", None, resume=False)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", killed_at, resume=False)
    assert fit(tmp_path / "killed", None, resume=True) == expected
    names = {path.stem for path in expected[0]}
    assert names == {"averaged", "best", "model", "optimizer-discriminator", "optimizer-generator"}


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (["generator"], r"'discriminator.d' belongs to 0"),
        (["generator", "discriminator", "generator"], r"'generator.g' belongs to 2"),
    ],
)
def test_parameters_without_one_optimizer_are_refused(tmp_path, players, message):
    task = TwoPlayerTask(VALUES)
    task.optimizers = lambda config: {
        f"{name}{i}": OptimizerSpec(module=getattr(task.objective, name), config=config)
        for i, name in enumerate(players)
    }
    with pytest.raises(ValueError, match=message):
        trainer_for(task, CONFIG, tmp_path).fit(resume=False)


def test_a_loss_without_an_optimizer_is_refused(tmp_path):
    task = TwoPlayerTask(VALUES)
    task.optimizers = lambda config: {"main": OptimizerSpec(module=task.objective, config=config)}
    with pytest.raises(ValueError, match=r"'main'.*got .*'discriminator'"):
        trainer_for(task, CONFIG, tmp_path).fit(resume=False)


def test_a_checkpoint_of_other_optimizers_is_refused(tmp_path):
    task = TwoPlayerTask(VALUES)
    trainer_for(task, CONFIG, tmp_path).fit(resume=False)
    other = TwoPlayerTask(VALUES)
    other.optimizers = lambda config: {"all": OptimizerSpec(module=other.objective, config=config)}
    with pytest.raises(ValueError, match="optimizer-all"):
        trainer_for(other, CONFIG, tmp_path).fit(resume=True)
