import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from faulty_disks import PowerCut, on_linux

from pipelines.training.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def save(store, step):
    store.save(step, {"model": {"w": torch.full((3,), float(step))}}, {"note": step})


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def damage(store, step, content=b"\0"):
    """Overwrites the last bytes of the tensors of one checkpoint."""
    path = store.path(step) / "model.safetensors"
    path.write_bytes(path.read_bytes()[: -len(content)] + content)


def test_store_gives_back_what_was_saved(store):
    tensors = {
        "model": {"w": torch.randn(2, 3), "ids": torch.tensor([3]), "half": torch.ones(2).half()},
        "optimizer": {"exp_avg/w": torch.randn(2, 3)},
    }
    state = {"best": {"mse": 0.1 + 0.2, "psnr": float("inf")}, "name": None}
    store.save(7, tensors, state)
    loaded = store.load_newest()
    assert loaded.step == 7
    assert loaded.state == state
    assert loaded.tensors.keys() == tensors.keys()
    for group, members in tensors.items():
        for name, tensor in members.items():
            torch.testing.assert_close(loaded.tensors[group][name], tensor, rtol=0, atol=0)


def test_store_without_checkpoints_gives_none(store):
    assert store.load_newest() is None
    assert store.steps() == []


def test_store_keeps_the_newest_two(store):
    for step in (5, 10, 15):
        save(store, step)
    assert names(store) == ["step-00000010", "step-00000015"]


def test_store_takes_tied_weights_and_any_memory_format(store):
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    store.save(1, {"model": {"in": weight, "out": weight}}, {})
    loaded = store.load_newest().tensors["model"]
    assert loaded["in"].equal(weight)
    assert loaded["out"].equal(weight)


def test_store_pickles_nothing(store):
    save(store, 1)
    files = sorted(path.name for path in store.path(1).iterdir())
    assert files == ["model.safetensors", "state.json"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "must have 76 bytes, got 75"),
        (lambda path: path.write_bytes(b"x" * 76), "was altered after it was written"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.with_name("state.json").write_text("{"), "is not a checkpoint's state"),
        (lambda path: path.with_name("state.json").write_text("[]"), "is not a checkpoint's state"),
    ],
)
def test_store_falls_back_from_a_damaged_checkpoint_and_says_why(store, caplog, spoil, message):
    save(store, 5)
    save(store, 10)
    spoil(store.path(10) / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        assert store.load_newest().step == 5
    assert "skipping the checkpoint of step 10" in caplog.text
    assert message in caplog.text


def test_store_refuses_when_every_checkpoint_is_damaged(store):
    for step in (5, 10):
        save(store, step)
        damage(store, step)
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read .*step-00000010"):
        store.load_newest()


def test_store_replaces_a_damaged_checkpoint_of_the_same_step(store):
    save(store, 5)
    save(store, 10)
    damage(store, 10)
    save(store, 10)
    assert store.load_newest().tensors["model"]["w"].tolist() == [10.0] * 3
    save(store, 15)
    assert names(store) == ["step-00000010", "step-00000015"]


def test_store_refuses_another_format(store):
    save(store, 5)
    save(store, 10)
    path = store.path(10) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="must be a checkpoint of format 1, got 99"):
        store.load_newest()


@pytest.mark.parametrize(
    ("saved_before", "advice"),
    [(True, "the checkpoint of step 5 is intact"), (False, "there is none yet")],
)
def test_store_survives_a_full_disk(store, monkeypatch, saved_before, advice):
    if saved_before:
        save(store, 5)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeError, match=f"step-00000010 .*No space left on device.*{advice}"):
        save(store, 10)
    assert names(store) == (["step-00000005"] if saved_before else [])


class KilledError(BaseException):
    """Stands for a kill: nothing in the code under test catches it."""


@pytest.mark.parametrize("allowed_flushes", [0, 1, 2])
def test_store_interrupted_while_writing_keeps_the_checkpoint_before(
    store, monkeypatch, allowed_flushes
):
    save(store, 5)
    flush, flushes = os.fsync, []

    def killing_flush(descriptor):
        if len(flushes) == allowed_flushes:
            raise KilledError
        flushes.append(descriptor)
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killing_flush)
        with pytest.raises(KilledError):
            save(store, 10)
    assert store.load_newest().step == 5
    save(store, 10)  # cleans up what the kill left behind
    assert names(store) == ["step-00000005", "step-00000010"]


def test_store_killed_while_removing_an_old_checkpoint_has_no_half_of_it(store, monkeypatch):
    remove = shutil.rmtree

    def half_remove(path, **options):
        for file in path.rglob("*.safetensors"):
            file.unlink()
            raise KilledError
        remove(path, **options)

    save(store, 5)
    save(store, 10)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_remove)
        with pytest.raises(KilledError):
            save(store, 15)
    assert store.steps() == [10, 15]
    save(store, 20)  # cleans up what the kill left behind
    assert names(store) == ["step-00000015", "step-00000020"]


@on_linux
def test_checkpoint_survives_a_power_cut(store, monkeypatch):
    disk = PowerCut(monkeypatch)
    save(store, 5)
    assert disk.survives(store.directory)


KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
import torch
from pipelines.training.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]))
store.save(5, {"model": {"w": torch.full((3,), 5.0)}}, {})
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
store.save(10, {"model": {"w": torch.full((3,), 10.0)}}, {})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_store_of_a_process_killed_while_writing_is_whole(store):
    command = [sys.executable, "-c", KILL_ITSELF, str(store.directory)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert store.load_newest().tensors["model"]["w"].tolist() == [5.0] * 3
