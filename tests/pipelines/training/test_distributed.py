"""Two gloo processes train as one process does on the same batches."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from processes import errors_of, start
from toy_tasks import QuadraticTask, small_config, trainer_for

from pipelines.training import train_step
from pipelines.training.distributed import is_main, mean_metrics, mean_over_ranks, on_main
from pipelines.training.metrics_log import read_metrics

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(directory, size, mode="fresh", directories=None):
    """Starts `two_processes.py` and returns each process's report, or its error output."""
    directory.mkdir(exist_ok=True)
    places = directories or [directory] * size
    processes = start([[SCRIPT, place, mode] for place in places])
    errors = errors_of(processes)
    if any(process.returncode for process in processes):
        return errors
    return [json.loads((directory / f"report-{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")
    return directory, run(directory, 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    return directory, run(directory, 2)


def test_two_processes_end_with_the_weights_of_one(one, two):
    expected = one[1][0]["weight"]
    # The same sums in another order, in float32.
    assert [report["weight"] for report in two[1]] == pytest.approx([expected] * 2, rel=1e-5)


def test_two_processes_share_each_batch_of_one(one, two):
    (whole,), shares = [report["seen"] for report in one[1]], [r["seen"] for r in two[1]]
    for first, second, batch in zip(*shares, whole, strict=True):
        assert len(first) == len(second)
        assert sorted(first + second) == sorted(batch)


def test_two_processes_average_their_metrics(one, two):
    expected = one[1][0]["metrics"]["distance"] + (0.0 + 2.0) / 2
    assert [report["metrics"]["distance"] for report in two[1]] == pytest.approx([expected] * 2)


def test_two_processes_write_one_log_with_the_metrics_of_one(one, two):
    logs = [read_metrics(directory / "metrics.jsonl") for directory, _ in (one, two)]
    steps = [[(row.kind, row.step) for row in log] for log in logs]
    assert steps[0] == steps[1]
    for metric in ("loss", "gradient_norm", "mean_x"):
        alone, together = ([r.values[metric] for r in log if r.kind == "train"] for log in logs)
        assert together == pytest.approx(alone, rel=1e-4)


def test_two_processes_train_two_optimizers_as_one_does(tmp_path):
    (alone,), together = run(tmp_path / "one", 1, "players"), run(tmp_path / "two", 2, "players")
    for report in together:
        assert report == pytest.approx(alone, rel=1e-5)  # the same sums in another order


def test_two_processes_resume_as_they_would_have_gone_on(two, tmp_path):
    shutil.copytree(two[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000012")
    resumed = run(tmp_path / "run", 2, "resume")
    assert [report["weight"] for report in resumed] == [report["weight"] for report in two[1]]
    assert [len(report["seen"]) for report in resumed] == [3 * 2, 3 * 2]  # 3 steps of 2 parts


def test_processes_that_do_not_share_their_checkpoints_are_refused(two, tmp_path):
    errors = run(tmp_path, 2, "resume", directories=[two[0], tmp_path])
    message = r"same step of the newest checkpoint, which is 0 on rank 1 \(.*\) and 12 on rank 0"
    assert all(re.search(message, error) for error in errors)


def test_a_batch_that_processes_cannot_share_equally_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(train_step, "world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"multiple of accumulation times .* got 8, 2 and 3"):
        trainer_for(QuadraticTask(torch.ones(20)), small_config(), tmp_path).fit(resume=False)


def test_collectives_do_nothing_on_one_process():
    cpu = torch.device("cpu")
    assert is_main()
    assert mean_over_ranks(torch.tensor([3.0])).tolist() == [3.0]
    assert mean_metrics({"mse": 0.1}, cpu) == {"mse": 0.1}
    assert on_main(lambda: 7) == 7


def test_processes_exchange_gradients_and_buffers(tmp_path):
    for report in run(tmp_path, 2, "exchange"):
        assert report["kernel"] == [1.5 * number for number in range(16)]
        assert report["sometimes"] == [2.0, 3.0]  # a missing gradient counts as zero
        assert report["buffers"] == {"float": [0.0] * 8, "int": [0], "bool": [True]}
