import importlib.util
import json
import logging
import os
import re
import signal

import pytest
from faulty_disks import PowerCut, full_disk, on_linux

from pipelines.training.metrics_log import MetricsLog, MetricsRow, read_metrics


def row(phase, step, kind="train", **values):
    return MetricsRow(
        phase=phase, kind=kind, step=step, images_seen=step * 8, seconds=1.5, values=values
    )


def written(path):
    return [(entry.phase, entry.step) for entry in read_metrics(path)]


def test_log_writes_one_json_object_per_line(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.write(row("vqvae", 5, loss=0.5))
    log.write(row("vqvae", 10, kind="validation", mse=0.25))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "phase": "vqvae",
        "kind": "train",
        "step": 5,
        "images_seen": 40,
        "seconds": 1.5,
        "values": {"loss": 0.5},
    }
    assert json.loads(lines[1])["kind"] == "validation"


def test_log_writes_null_for_what_is_not_finite(tmp_path):
    MetricsLog(tmp_path / "m").write(row("vqvae", 5, psnr=float("inf"), mse=float("nan")))
    assert read_metrics(tmp_path / "m")[0].values == {"psnr": None, "mse": None}


def test_trim_drops_later_rows_of_the_phase_only(tmp_path):
    log = MetricsLog(tmp_path / "m")
    for phase, step in [("vqvae", 5), ("vqvae", 10), ("prior", 5), ("prior", 10), ("prior", 15)]:
        log.write(row(phase, step))
    log.trim("prior", 5)
    assert written(tmp_path / "m") == [("vqvae", 5), ("vqvae", 10), ("prior", 5)]


def test_trim_drops_the_test_metrics_of_the_phase(tmp_path):
    log = MetricsLog(tmp_path / "m")
    for phase in ("vqvae", "prior"):
        log.write(row(phase, 10, kind="validation"))
        log.write(row(phase, 10, kind="test"))
    log.trim("prior", 10)
    kept = [(entry.phase, entry.kind) for entry in read_metrics(tmp_path / "m")]
    assert kept == [("vqvae", "validation"), ("vqvae", "test"), ("prior", "validation")]


ROW = (
    '{"phase": "vqvae", "kind": "train", "step": 10, "images_seen": 80, "seconds": 1.5, '
    '"values": {"loss": 0.5}}'
)
DAMAGED = [
    *(b"\0\0\0", b"[]", b"[" * 100_000, ROW.encode()[:-5]),
    *(
        ROW.replace(written, altered).encode("latin-1")
        for written, altered in [
            *(("loss", "\xff"), ("train", "training"), ("0.5", "NaN"), ("10", "-10")),
            *(("10", "9" * 400), ('"phase"', '"epoch": 1, "phase"')),
        ]
    ),
]


def test_row_of_the_damaged_lines_is_a_row(tmp_path):
    (tmp_path / "m").write_text(ROW)
    assert read_metrics(tmp_path / "m") == [row("vqvae", 10, loss=0.5)]


@pytest.mark.parametrize("line", DAMAGED)
def test_damaged_line_is_left_out_with_a_warning(tmp_path, line, caplog):
    log = MetricsLog(tmp_path / "m")
    log.write(row("vqvae", 5))
    with (tmp_path / "m").open("ab") as file:
        file.write(line + b"\n")
    log.write(row("prior", 5))
    assert written(tmp_path / "m") == [("vqvae", 5), ("prior", 5)]
    (message,) = caplog.messages
    assert re.search(rf"{tmp_path}/m .*: 1, .*line 2: ", message)


def test_trim_removes_damaged_lines_and_says_how_many(tmp_path, caplog):
    log = MetricsLog(tmp_path / "m")
    log.write(row("prior", 5))
    with (tmp_path / "m").open("ab") as file:
        file.write(b"\xff\n".join(DAMAGED))
    log.trim("vqvae", 5)
    (message,) = caplog.messages
    assert re.search(rf"{tmp_path}/m .*: {len(DAMAGED)}, .*line 2: ", message)
    caplog.clear()
    log.write(row("vqvae", 10))
    assert written(tmp_path / "m") == [("prior", 5), ("vqvae", 10)]
    assert caplog.messages == []


def test_trim_keeps_a_row_of_which_only_the_end_of_its_line_is_missing(tmp_path):
    (tmp_path / "m").write_text(ROW)
    log = MetricsLog(tmp_path / "m")
    log.trim("vqvae", 10)
    log.write(row("vqvae", 15))
    assert written(tmp_path / "m") == [("vqvae", 10), ("vqvae", 15)]


def test_rows_that_two_processes_wrote_count_once(tmp_path):
    log = MetricsLog(tmp_path / "m")
    for step in (5, 5, 10, 10, 15):
        log.write(row("vqvae", step, loss=float(step)))
        log.write(row("vqvae", step, kind="validation", loss=float(step)))
    assert [entry.step for entry in read_metrics(tmp_path / "m")] == [5, 5, 10, 10, 15, 15]
    log.trim("vqvae", 15)
    assert len((tmp_path / "m").read_text().splitlines()) == 6


def test_trim_leaves_a_sound_file_alone(tmp_path):
    log = MetricsLog(tmp_path / "m")
    log.write(row("vqvae", 5, loss=0.1 + 0.2, psnr=None))
    before = (tmp_path / "m").stat()
    log.trim("vqvae", 5)
    after = (tmp_path / "m").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_trim_leaves_nothing_but_the_log(tmp_path):
    log = MetricsLog(tmp_path / "m")
    log.write(row("vqvae", 5))
    log.trim("vqvae", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert written(tmp_path / "m") == []


def test_trim_and_flush_do_nothing_without_a_file(tmp_path):
    log = MetricsLog(tmp_path / "m")
    log.trim("vqvae", 5)
    log.flush()
    assert not (tmp_path / "m").exists()


def test_log_works_where_tensorboard_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    log = MetricsLog(tmp_path / "m", tensorboard_directory=tmp_path / "tensorboard")
    log.write(row("vqvae", 5))
    assert written(tmp_path / "m") == [("vqvae", 5)]
    assert not (tmp_path / "tensorboard").exists()


needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard"
)


@needs_tensorboard
def test_log_gives_tensorboard_each_step_once_after_a_resume(tmp_path):
    for steps, last_step in [((5, 10, 15), 0), ((10, 15), 5)]:
        log = MetricsLog(tmp_path / "m", tensorboard_directory=tmp_path / "tensorboard")
        log.trim("vqvae", last_step)
        for step in steps:
            log.write(row("vqvae", step, loss=1.0 / step))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "vqvae"))
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [scalar.step for scalar in scalars] == [5, 10, 15]
    assert [scalar.value for scalar in scalars] == pytest.approx([1 / 5, 1 / 10, 1 / 15])


@on_linux
def test_full_disk_is_a_sentence_and_the_next_start_repairs_the_log(tmp_path):
    log = MetricsLog(tmp_path / "m")
    log.write(row("vqvae", 5))
    message = rf"^{tmp_path}/m .*File too large"
    with (
        full_disk(free=(tmp_path / "m").stat().st_size + 10),
        pytest.raises(OSError, match=message),
    ):
        log.write(row("vqvae", 10))
    log.trim("vqvae", 5)
    log.write(row("vqvae", 10))
    assert written(tmp_path / "m") == [("vqvae", 5), ("vqvae", 10)]


@on_linux
def test_flushed_log_survives_a_power_cut(tmp_path, monkeypatch):
    disk = PowerCut(monkeypatch)
    log = MetricsLog(tmp_path / "run" / "m")
    log.write(row("vqvae", 5))
    log.flush()
    assert disk.survives(tmp_path / "run")


@needs_tensorboard
@on_linux
def test_tensorboard_that_cannot_write_is_switched_off_with_one_warning(tmp_path, caplog):
    log = MetricsLog(tmp_path / "m", tensorboard_directory=tmp_path / "tensorboard")
    log.write(row("vqvae", 5, loss=0.5))
    (tmp_path / "m").unlink()
    with full_disk(free=200), caplog.at_level(logging.WARNING):  # as long as a row
        log.write(row("vqvae", 10, **{f"curve_{i}": 0.5 for i in range(5)}))
    log.write(row("vqvae", 15, loss=0.5))
    log.write(row("prior", 5, loss=0.5))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path}/tensorboard" in caplog.text
    assert written(tmp_path / "m") == [("vqvae", 10), ("vqvae", 15), ("prior", 5)]


@needs_tensorboard
def test_tensorboard_in_a_file_is_switched_off_with_one_warning(tmp_path, caplog):
    (tmp_path / "tensorboard").touch()
    log = MetricsLog(tmp_path / "m", tensorboard_directory=tmp_path / "tensorboard")
    with caplog.at_level(logging.WARNING):
        log.write(row("vqvae", 5, loss=0.5))
        log.write(row("vqvae", 10, loss=0.5))
    assert len(caplog.records) == 1
    assert "Not a directory" in caplog.text
    assert written(tmp_path / "m") == [("vqvae", 5), ("vqvae", 10)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_trim_refuses_a_pipe_in_place_of_the_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    signal.alarm(20)  # a reader of the pipe would wait for ever
    try:
        with pytest.raises(OSError, match=r"metrics\.jsonl .* regular file"):
            MetricsLog(path).trim("vqvae", 1)
    finally:
        signal.alarm(0)
