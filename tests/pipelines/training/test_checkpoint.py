import errno
import json
import logging
import math
import os
import shutil
import signal

import pytest
import torch
from faulty_disks import PowerCut, on_linux
from tiny_runs import KilledError
from toy_tasks import state_at

from pipelines.training.checkpoint import CheckpointStore
from pipelines.training.run_state import RunState
from stage1_vqvae.records import encode_record


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def save(store, step):
    store.save({"model": {"w": torch.full((3,), float(step))}}, state_at(step))


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def damage(store, step, content=b"\0"):
    """Overwrites the last bytes of the tensors of one checkpoint."""
    path = store.path(step) / "model.safetensors"
    path.write_bytes(path.read_bytes()[: -len(content)] + content)


def test_store_gives_back_what_was_saved(store):
    assert store.load_newest() is None
    tensors = {
        "model": {"w": torch.randn(2, 3), "ids": torch.tensor([3]), "half": torch.ones(2).half()},
        "optimizer": {"exp_avg/w": torch.randn(2, 3)},
    }
    run = RunState(step=7, best_step=5, best_metrics={"mse": 0.1 + 0.2, "psnr": math.inf})
    state = state_at(7, run=run, sums={"loss": -math.inf}, counts={"loss": 3})
    store.save(tensors, state)
    assert {path.suffix for path in store.path(7).iterdir()} == {".safetensors", ".json"}
    loaded = store.load_newest()
    assert loaded.step == 7
    assert loaded.state == state
    assert loaded.tensors.keys() == tensors.keys()
    for group, members in tensors.items():
        for name, tensor in members.items():
            torch.testing.assert_close(loaded.tensors[group][name], tensor, rtol=0, atol=0)


def test_store_keeps_the_newest_two(store):
    for step in (5, 10, 15):
        save(store, step)
    assert names(store) == ["step-00000010", "step-00000015"]


def test_store_takes_tied_weights_and_any_memory_format(store):
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    store.save({"model": {"in": weight, "out": weight}}, state_at(1))
    loaded = store.load_newest().tensors["model"]
    assert loaded["in"].equal(weight)
    assert loaded["out"].equal(weight)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "76 bytes, got 75"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.with_name("state.json").unlink(), "No such file"),
        (lambda path: path.with_name("state.json").write_text("{"), "state.json"),
    ],
)
def test_store_falls_back_from_a_damaged_checkpoint_and_says_why(store, caplog, spoil, message):
    save(store, 5)
    save(store, 10)
    spoil(store.path(10) / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        assert store.load_newest().step == 5
    assert "step 10" in caplog.text
    assert message in caplog.text


def test_store_refuses_when_every_checkpoint_is_damaged(store):
    for step in (5, 10):
        save(store, step)
        damage(store, step)
    with pytest.raises(ValueError, match="step-00000010"):
        store.load_newest()


def test_store_replaces_a_damaged_checkpoint_of_the_same_step(store):
    save(store, 5)
    save(store, 10)
    damage(store, 10)
    save(store, 10)
    assert store.load_newest().tensors["model"]["w"].tolist() == [10.0] * 3
    save(store, 15)
    assert names(store) == ["step-00000010", "step-00000015"]


@pytest.mark.parametrize("name", ["state.json", "model.safetensors"])
def test_store_falls_back_whatever_byte_was_changed(store, name):
    save(store, 5)
    save(store, 10)
    path = store.path(10) / name
    content = path.read_bytes()
    for position in range(0, len(content), 11):
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        assert store.load_newest().step == 5, position


def test_store_falls_back_from_a_checkpoint_under_the_name_of_another(store, caplog):
    save(store, 5)
    shutil.copytree(store.path(5), store.path(10))
    with caplog.at_level(logging.WARNING):
        assert store.load_newest().tensors["model"]["w"].tolist() == [5.0] * 3
    assert "step 10, got 5" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_store_falls_back_from_a_pipe_in_place_of_a_file(store, caplog):
    name = "model.safetensors"
    save(store, 1)
    save(store, 2)
    (store.path(2) / name).unlink()
    os.mkfifo(store.path(2) / name)
    signal.alarm(20)  # a reader of the pipe would wait for ever
    try:
        assert store.load_newest().step == 1
    finally:
        signal.alarm(0)
    assert name in caplog.text


def sealed_again(path, change):
    """Changes a state on purpose: its seal is that of the new content."""
    record = json.loads(path.read_text())
    change(record)
    kind, version = record.pop("kind"), record.pop("format_version")
    del record["sha256"]
    path.write_bytes(encode_record(kind, version, record, sealed=True))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record["state"]["run"].update(step="10"), r"state.run.step"),
        (lambda record: record["state"]["run"].update(step=10**9), "step must be at most 250"),
        (lambda record: record["state"].update(counts={"loss": 0}), "count"),
        (
            lambda record: record["state"]["run"].update(best_step=5, best_metrics={"mse": "nan"}),
            "finite mse",
        ),
        (lambda record: record.update(files=5), "files"),
    ],
)
def test_store_falls_back_from_a_state_that_no_training_has(store, caplog, change, reason):
    save(store, 5)
    save(store, 10)
    sealed_again(store.path(10) / "state.json", change)
    with caplog.at_level(logging.WARNING):
        assert store.load_newest().step == 5
    assert reason in caplog.text


def test_store_refuses_to_write_a_state_that_could_not_be_read(store):
    run = RunState(step=5, best_step=5, best_metrics={"mse": 1.0}, seconds=math.nan)
    with pytest.raises(ValueError, match=r"state\.run\.seconds"):
        store.save({}, state_at(5, run=run))


@pytest.mark.parametrize(
    ("saved_before", "advice"),
    [(True, "step 5"), (False, "no checkpoint")],
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
