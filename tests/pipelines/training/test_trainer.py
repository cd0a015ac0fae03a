from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tiny_runs import KilledError
from torch import nn
from toy_tasks import NetTask, Output, QuadraticTask, small_config, trainer_for

from pipelines.training import trainer
from pipelines.training.metrics_log import read_metrics
from pipelines.training.precision import Precision
from pipelines.training.randomness import derive_seed

VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0])


def quadratic_config(**changes):
    """One batch is the whole set; no schedule, decay, clipping or averaging."""
    settings = {
        "epochs": 5.0,
        "batch_size": 4,
        "accumulation": 1,
        "learning_rate": 0.1,
        "final_learning_rate": 1.0,
        "warmup_fraction": 0.0,
        "weight_decay": 0.0,
        "betas": (0.0, 0.0),
        "clip_norm": None,
        "average_decay": 0.0,
        "validate_every": 1.0,
        "log_every": 1,
    }
    return small_config(**(settings | changes))


def rows(directory, kind):
    return [row for row in read_metrics(directory / "metrics.jsonl") if row.kind == kind]


def series(directory, kind, name):
    return [row.values[name] for row in rows(directory, kind)]


def test_training_follows_adamw_by_hand(tmp_path):
    task = QuadraticTask(VALUES, target=3.0)
    config = quadratic_config(learning_rate=0.3, betas=(0.9, 0.99), epochs=6.0)
    trainer_for(task, config, tmp_path).fit(resume=False)
    weight, first, second, losses = 0.0, 0.0, 0.0, []
    for t in range(1, 7):
        losses.append(np.mean((weight - VALUES.numpy()) ** 2) / 2)
        gradient = weight - 3.0
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        weight -= 0.3 * (first / (1 - 0.9**t)) / np.sqrt(second / (1 - 0.99**t))
    assert series(tmp_path, "train", "loss") == pytest.approx(losses)
    assert task.objective.weight.item() == pytest.approx(weight)


def test_training_follows_warm_up_and_cosine(tmp_path):
    # Without momentum AdamW moves by exactly the learning rate, towards the far minimum.
    config = quadratic_config(epochs=8.0, warmup_fraction=0.25, final_learning_rate=0.0)
    task = QuadraticTask(VALUES + 100, target=200.0)
    trainer_for(task, config, tmp_path).fit(resume=False)
    factors = [0.5, 1.0, *((1 + np.cos(np.pi * np.arange(6) / 6)) / 2)]
    assert series(tmp_path, "train", "learning_rate") == pytest.approx(0.1 * np.array(factors))
    assert task.objective.weight.item() == pytest.approx(0.1 * sum(factors))


@pytest.mark.parametrize(("clip_norm", "moved"), [(1.0, 0.1), (30.0, 0.3)])
def test_gradient_is_clipped_to_the_norm(tmp_path, monkeypatch, clip_norm, moved):
    # Plain gradient descent at a rate of 0.1 shows the gradient's size, which is 3.
    def build_sgd(parameters, _):
        return torch.optim.SGD(parameters, lr=0.1)

    monkeypatch.setattr("pipelines.training.optimizer._build_adamw", build_sgd)
    task = QuadraticTask(VALUES, target=3.0)
    trainer_for(task, quadratic_config(epochs=1.0, clip_norm=clip_norm), tmp_path).fit(resume=False)
    assert task.objective.weight.item() == pytest.approx(moved)
    assert series(tmp_path, "train", "gradient_norm") == pytest.approx([3.0])


def test_accumulation_equals_one_big_batch(tmp_path):
    weights, losses, norms = [], [], []
    for parts in (1, 2, 4):
        task = QuadraticTask(torch.randn(16, generator=torch.Generator().manual_seed(0)))
        directory = tmp_path / str(parts)
        config = quadratic_config(batch_size=8, accumulation=parts, betas=(0.9, 0.99))
        trainer_for(task, config, directory).fit(resume=False)
        weights.append(task.objective.weight.item())
        losses.append(series(directory, "train", "loss"))
        norms.append(series(directory, "train", "gradient_norm"))
        assert {len(indices) for indices in task.seen} == {8 // parts}
    # The same sums in another order, in float32.
    assert weights[1:] == pytest.approx([weights[0]] * 2, rel=1e-5)
    for parts in (1, 2):
        assert losses[parts] == pytest.approx(losses[0], rel=1e-5)
        assert norms[parts] == pytest.approx(norms[0], rel=1e-5)


def test_every_example_is_seen_once_per_epoch(tmp_path):
    task = QuadraticTask(torch.arange(10.0))
    trainer_for(task, quadratic_config(batch_size=4, epochs=2.0), tmp_path).fit(resume=False)
    seen = [index for batch in task.seen for index in batch]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_validation_uses_the_averaged_weights(tmp_path):
    # Steps of exactly 0.1; the average's decays are 1/10, 2/11 and then 0.2.
    task = QuadraticTask(VALUES + 100, target=0.0)
    trainer_for(task, quadratic_config(epochs=3.0, average_decay=0.2), tmp_path).fit(resume=False)
    average, expected = 0.0, []
    for step, decay in enumerate((1 / 10, 2 / 11, 0.2), start=1):
        average = decay * average + (1 - decay) * 0.1 * step
        expected.append(average)
    assert series(tmp_path, "validation", "distance") == pytest.approx(expected)


def test_the_weights_of_the_lowest_validation_are_kept(tmp_path):
    # The weight walks 0.1, 0.2, ... 0.5, and passes nearest to the target at step 3.
    task = QuadraticTask(VALUES + 100, target=0.31)
    result = trainer_for(task, quadratic_config(), tmp_path).fit(resume=False)
    assert task.objective.weight.item() == pytest.approx(0.3)
    assert (result.step, result.best_step, result.stopped_early) == (5, 3, False)
    assert result.best_metrics == {"distance": pytest.approx(0.01, rel=1e-5)}
    assert result.last_metrics == {"distance": pytest.approx(0.19, rel=1e-5)}


def test_training_stops_when_patience_runs_out(tmp_path):
    task = QuadraticTask(VALUES + 100, target=0.31)
    result = trainer_for(task, quadratic_config(epochs=50.0, patience=2), tmp_path).fit(
        resume=False
    )
    assert (result.step, result.best_step, result.stopped_early) == (5, 3, True)


def test_a_training_that_stopped_early_stays_stopped_on_resume(tmp_path):
    config = quadratic_config(epochs=50.0, patience=2)
    first = trainer_for(QuadraticTask(VALUES + 100, target=0.31), config, tmp_path)
    first.fit(resume=False)
    task = QuadraticTask(VALUES + 100, target=0.31)
    result = trainer_for(task, config, tmp_path).fit(resume=True)
    assert (result.step, result.stopped_early, task.seen) == (5, True, [])
    assert result.last_metrics == {"distance": pytest.approx(0.19, rel=1e-5)}
    assert task.objective.weight.item() == pytest.approx(0.3)


def test_the_end_is_validated_and_saved_whatever_the_intervals(tmp_path):
    config = quadratic_config(validate_every=100.0, checkpoint_every=100, log_every=100)
    trainer_for(QuadraticTask(VALUES), config, tmp_path).fit(resume=False)
    assert [row.step for row in rows(tmp_path, "validation")] == [5]
    assert [row.step for row in rows(tmp_path, "train")] == [5]
    assert (tmp_path / "checkpoints" / "step-00000005").is_dir()


def test_training_rows_are_means_over_the_steps_since_the_last(tmp_path):
    every_step, every_third = tmp_path / "a", tmp_path / "b"
    for directory, log_every in ((every_step, 1), (every_third, 3)):
        task = QuadraticTask(torch.arange(8.0))
        config = quadratic_config(epochs=4.0, log_every=log_every)
        trainer_for(task, config, directory).fit(resume=False)
    losses = series(every_step, "train", "loss")
    assert [row.step for row in rows(every_third, "train")] == [3, 6, 8]
    assert [row.images_seen for row in rows(every_third, "train")] == [12, 24, 32]
    assert series(every_third, "train", "loss") == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:6]), np.mean(losses[6:])]
    )


def test_task_is_told_the_progress_before_each_step(tmp_path):
    task = QuadraticTask(VALUES)
    trainer_for(task, quadratic_config(), tmp_path).fit(resume=False)
    assert task.fractions == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_task_is_prepared_at_a_fresh_start_only(tmp_path):
    first, second = QuadraticTask(VALUES), QuadraticTask(VALUES)
    trainer_for(first, quadratic_config(), tmp_path).fit(resume=True)  # nothing to resume yet
    trainer_for(second, quadratic_config(), tmp_path).fit(resume=True)
    assert (first.preparations, second.preparations) == (1, 0)


def test_objective_trains_in_training_mode_and_ends_in_evaluation_mode(tmp_path):
    modes = []
    task = NetTask(lambda name: modes.append((name, task.objective.training)))
    trainer_for(task, small_config(), tmp_path).fit(resume=False)
    assert set(modes) == {
        ("prepare", True),
        ("set_progress", True),
        ("batch", True),
        ("validate", False),
    }
    assert not task.objective.training


def test_objective_computes_in_channels_last_and_ends_in_the_plain_format(tmp_path):
    formats = set()

    def look(name):
        if name == "batch":
            weight = task.objective.conv.weight
            formats.add(weight.is_contiguous(memory_format=torch.channels_last))

    task = NetTask(look)
    trainer_for(task, small_config(), tmp_path).fit(resume=False)
    assert formats == {True}
    assert task.objective.conv.weight.is_contiguous()


def test_progress_is_told_images_and_metrics(tmp_path):
    calls = []

    class Recorder:
        def start(self, *arguments):
            calls.append(("start", *arguments))

        def advance(self, images):
            calls.append(("advance", images))

        def show(self, metrics):
            calls.append(("show", *metrics))

        def close(self):
            calls.append(("close",))

    config = quadratic_config(epochs=2.0, validate_every=2.0)
    trainer_for(QuadraticTask(VALUES), config, tmp_path, progress=Recorder()).fit(resume=False)
    assert calls == [
        ("start", "quadratic", 8, 0),
        ("advance", 4),
        ("show", "loss"),
        ("advance", 4),
        ("show", "loss"),
        ("show", "validation distance"),
        ("close",),
    ]


def test_forward_and_validation_run_under_autocast_of_the_precision(tmp_path):
    dtypes = set()

    class Watched(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            dtypes.add(output.dtype)
            return output

    task = NetTask()
    task.objective.head = Watched(4, 1)
    trainer_for(task, small_config(precision="bf16"), tmp_path).fit(resume=False)
    assert dtypes == {torch.bfloat16}
    assert {tensor.dtype for tensor in task.objective.parameters()} == {torch.float32}


class Spoiled(QuadraticTask):
    """Hands out `value` at one step (1 for the first)."""

    def __init__(self, step, value):
        super().__init__(VALUES)
        self.step, self.value = step, value

    def batches(self, plan, device):
        for (x,) in super().batches(plan, device):
            if len(self.seen) == self.step:
                x[0] = self.value
            yield (x,)


@pytest.mark.parametrize(
    ("value", "cause"),
    [(float("nan"), "loss is nan"), (1e25, "loss is inf")],
)
def test_a_non_finite_loss_stops_with_step_and_cause(tmp_path, value, cause):
    config = quadratic_config(checkpoint_every=3)
    with pytest.raises(RuntimeError, match=f"quadratic stopped at step 5: the {cause}"):
        trainer_for(Spoiled(5, value), config, tmp_path).fit(resume=False)
    # The last good checkpoint stays, and continues with sound data.
    result = trainer_for(QuadraticTask(VALUES), config, tmp_path).fit(resume=True)
    assert result.step == 5


class SteepSquareRoot(nn.Module):
    """sqrt at zero: a finite loss with an infinite gradient."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        loss = (self.weight.sqrt() * x).mean()
        return Output({"main": loss}, {})


def test_a_non_finite_gradient_stops_with_step_and_cause(tmp_path):
    task = QuadraticTask(VALUES)
    task.objective = SteepSquareRoot()
    with pytest.raises(RuntimeError, match="step 1: the gradient_norm is inf"):
        trainer_for(task, quadratic_config(), tmp_path).fit(resume=False)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    task = QuadraticTask(VALUES)
    task.objective.register_buffer("statistics", torch.zeros(2))  # the loss does not show it

    def set_progress(fraction):
        if fraction > 0.7:
            task.objective.statistics[1] = float("inf")

    task.set_progress = set_progress
    with pytest.raises(RuntimeError, match="step 5: 'statistics'"):
        trainer_for(task, quadratic_config(checkpoint_every=3), tmp_path).fit(resume=False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("metrics", [{"distance": float("nan")}, {"mse": 0.5}])
def test_validation_without_a_finite_monitored_metric_stops(tmp_path, metrics):
    task = QuadraticTask(VALUES)
    task.validate = lambda _: metrics
    with pytest.raises(RuntimeError, match=r"'distance', got (nan|None) at step 1"):
        trainer_for(task, quadratic_config(), tmp_path).fit(resume=False)


def test_a_fresh_start_over_old_checkpoints_is_refused(tmp_path):
    trainer_for(QuadraticTask(VALUES), quadratic_config(), tmp_path).fit(resume=False)
    with pytest.raises(FileExistsError, match="step 5"):
        trainer_for(QuadraticTask(VALUES), quadratic_config(), tmp_path).fit(resume=False)


def test_precision_is_measured_by_the_first_start_only(tmp_path, monkeypatch):
    config = quadratic_config(precision="auto", epochs=2.0)
    measured = Precision(name="bf16", reason="the probe said so")
    monkeypatch.setattr(trainer, "resolve_precision", lambda *_: measured)
    trainer_for(QuadraticTask(VALUES), config, tmp_path).fit(resume=False)
    monkeypatch.delattr(trainer, "resolve_precision")
    result = trainer_for(QuadraticTask(VALUES), config, tmp_path).fit(resume=True)
    assert result.precision == measured


def test_every_step_has_random_numbers_of_its_own(tmp_path):
    drawn = []

    class Drawing(QuadraticTask):
        def batches(self, plan, device):
            for batch in super().batches(plan, device):
                drawn.append(torch.rand(()).item())
                yield batch

    trainer_for(Drawing(VALUES), quadratic_config(), tmp_path).fit(resume=False)
    expected = []
    for step in range(5):
        torch.manual_seed(derive_seed(0, "quadratic", step, 0))
        expected.append(torch.rand(()).item())
    assert drawn == expected


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_batches_are_closed_at_the_end(tmp_path, is_interrupted):
    closed = []

    class Closing(QuadraticTask):
        def batches(self, plan, device):
            try:
                yield from super().batches(plan, device)
            finally:
                closed.append(len(self.seen))

        def validate(self, device):
            if is_interrupted:
                raise KilledError
            return super().validate(device)

    trainer = trainer_for(Closing(VALUES), quadratic_config(), tmp_path)
    with pytest.raises(KilledError) if is_interrupted else nullcontext():
        trainer.fit(resume=False)
    assert closed == [trainer._state.step]
