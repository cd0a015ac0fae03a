"""Interrupted anywhere and resumed, a training ends as if it had not been: bit for bit."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import KilledError
from toy_tasks import NetTask, QuadraticTask, small_config, trainer_for

from pipelines.training.metrics_log import read_metrics

CALLS_OF_A_RUN = 1 + 12 * 3 + 3
"""prepare; then set_progress and two batches in each of 12 steps; validations at 5, 10 and 12."""


def kill_at(call):
    """Raises at the `call`-th call (1 for the first) that a task receives."""
    count = 0

    def on_call(_):
        nonlocal count
        count += 1
        if count == call:
            raise KilledError

    return on_call


def fit(directory, *, resume, on_call=lambda _: None):
    """Trains and returns everything that must not depend on interruptions."""
    task = NetTask(on_call)
    torch.manual_seed(hash(directory) % 1000)  # the stream's state at the start must not matter
    result = trainer_for(task, small_config(), directory).fit(resume=resume)
    weights = {name: value.clone() for name, value in task.objective.state_dict().items()}
    rows = [
        dataclasses.replace(row, seconds=0.0) for row in read_metrics(directory / "metrics.jsonl")
    ]
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*.safetensors"))
    }
    return weights, dataclasses.replace(result, seconds=0.0), rows, files


def assert_same(resumed, uninterrupted):
    torch.testing.assert_close(resumed[0], uninterrupted[0], rtol=0, atol=0)
    assert resumed[1:3] == uninterrupted[1:3]
    assert resumed[3].keys() == uninterrupted[3].keys()
    assert all(resumed[3][name] == content for name, content in uninterrupted[3].items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("uninterrupted"), resume=False)


def test_a_run_consists_of_the_calls_that_are_killed_below(tmp_path):
    calls = []
    fit(tmp_path, resume=False, on_call=calls.append)
    assert len(calls) == CALLS_OF_A_RUN


def test_a_run_holds_model_average_optimizer_and_best_weights(uninterrupted):
    names = [
        f"checkpoints/step-{step:08d}/{group}.safetensors"
        for step in (9, 12)
        for group in ("averaged", "best", "model", "optimizer-main")
    ]
    assert sorted(uninterrupted[3]) == names


def test_another_seed_gives_another_run(tmp_path, uninterrupted):
    task = NetTask()
    trainer_for(task, small_config(), tmp_path, seed=1).fit(resume=False)
    assert not task.objective.head.weight.equal(uninterrupted[0]["head.weight"])


# In prepare; between the two batches of step 1; the first step after a checkpoint; in a validation;
# between log, validation and checkpoint; in the last step and the last validation.
@pytest.mark.parametrize("call", [1, 4, 11, 17, 22, 33, 39, CALLS_OF_A_RUN])
def test_resume_after_a_kill_at_any_call_equals_uninterrupted(tmp_path, uninterrupted, call):
    with pytest.raises(KilledError):
        fit(tmp_path, resume=False, on_call=kill_at(call))
    assert_same(fit(tmp_path, resume=True), uninterrupted)


def test_resume_after_many_kills_equals_uninterrupted(tmp_path, uninterrupted):
    for _ in range(3):  # each gets one checkpoint further
        with pytest.raises(KilledError):
            fit(tmp_path, resume=True, on_call=kill_at(14))
    assert_same(fit(tmp_path, resume=True), uninterrupted)


@pytest.mark.parametrize("flushes", range(0, 28, 7))
def test_resume_after_a_kill_while_saving_equals_uninterrupted(
    tmp_path, monkeypatch, uninterrupted, flushes
):
    flush, done = os.fsync, []

    def killing_flush(descriptor):
        if len(done) == flushes:
            raise KilledError
        done.append(descriptor)
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killing_flush)
        with pytest.raises(KilledError):
            fit(tmp_path, resume=False)
    assert_same(fit(tmp_path, resume=True), uninterrupted)


def test_resume_from_the_checkpoint_before_an_altered_one_equals_uninterrupted(
    tmp_path, uninterrupted
):
    fit(tmp_path, resume=False)
    path = tmp_path / "checkpoints" / "step-00000012" / "optimizer-main.safetensors"
    path.write_bytes(path.read_bytes().replace(b"\0", b"\1"))
    assert_same(fit(tmp_path, resume=True), uninterrupted)


def test_resume_of_a_finished_run_changes_nothing(tmp_path, uninterrupted):
    fit(tmp_path, resume=False)
    calls = []
    assert_same(fit(tmp_path, resume=True, on_call=calls.append), uninterrupted)
    assert calls == []


def test_resume_adds_up_the_seconds(tmp_path, monkeypatch):
    now = 0.0

    def advance(_):
        nonlocal now
        now += 1.0

    monkeypatch.setattr("pipelines.training.trainer.time.perf_counter", lambda: now)
    config = small_config()
    with pytest.raises(KilledError):
        trainer_for(NetTask(kill_at(15)), config, tmp_path).fit(resume=False)
    now = 1e6  # the time between stop and resume does not count
    task = NetTask(advance)
    result = trainer_for(task, config, tmp_path).fit(resume=True)
    # The first session stood still; the second made 9 steps of 3 calls and 3 validations.
    assert result.seconds == 9 * 3 + 3


SLOW_RUN = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import torch
from toy_tasks import NetTask, small_config, trainer_for
calls = []
def on_call(name):
    calls.append(name)
    if len(calls) == 24:
        print("now", flush=True)
        sys.stdin.read()
trainer_for(NetTask(on_call), small_config(), Path(sys.argv[1])).fit(resume=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_resume_after_sigkill_equals_uninterrupted(tmp_path, uninterrupted):
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(tmp_path), here],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    with process:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert_same(fit(tmp_path, resume=True), uninterrupted)


def other_origin():
    task = NetTask()
    task.origin = "another net"
    return task


@pytest.mark.parametrize(
    ("task", "changes", "seed", "setting"),
    [
        (NetTask(), {"learning_rate": 0.01}, 0, r"learning_rate was 0.05 .* 0.01"),
        (NetTask(), {}, 1, r"seed was 0 .* 1"),
        (QuadraticTask(torch.ones(20)), {}, 0, r"monitor was mse .* distance"),
        (other_origin(), {}, 0, r"origin was a net .* another net"),
    ],
)
def test_resume_of_another_training_is_refused(tmp_path, task, changes, seed, setting):
    trainer_for(NetTask(), small_config(), tmp_path).fit(resume=False)
    with pytest.raises(ValueError, match=setting):
        trainer_for(task, small_config(**changes), tmp_path, seed=seed).fit(resume=True)


def test_resume_of_another_model_is_refused(tmp_path):
    trainer_for(NetTask(), small_config(), tmp_path).fit(resume=False)
    task = NetTask()
    task.objective.conv = torch.nn.Conv2d(2, 4, 5)
    with pytest.raises(ValueError, match=r"'conv.weight' .*5, 5\)"):
        trainer_for(task, small_config(), tmp_path).fit(resume=True)


def test_resume_may_save_and_log_at_other_intervals(tmp_path, uninterrupted):
    with pytest.raises(KilledError):
        fit(tmp_path, resume=False, on_call=kill_at(20))
    task = NetTask()
    config = small_config(checkpoint_every=100, log_every=1)
    trainer_for(task, config, tmp_path).fit(resume=True)
    torch.testing.assert_close(task.objective.state_dict(), uninterrupted[0], rtol=0, atol=0)


def test_resume_with_another_number_of_threads_is_announced(tmp_path, caplog, monkeypatch):
    trainer_for(NetTask(), small_config(), tmp_path).fit(resume=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with caplog.at_level(logging.WARNING):
        trainer_for(NetTask(), small_config(), tmp_path).fit(resume=True)
    assert "threads 77" in caplog.text
