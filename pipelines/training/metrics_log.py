"""The run's metrics: one JSON object per line, and TensorBoard if it is installed."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.files.atomic import (
    atomic_path,
    flush_directory,
    flush_to_disk,
    make_directories,
    writing,
)
from pipelines.files.names import one_line
from pipelines.files.records import convert, parse_object, read_bytes, to_json

if TYPE_CHECKING:
    from pipelines.training.event_file import EventFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsRow:
    """One line of `metrics.jsonl`."""

    phase: str
    """The training it belongs to, e.g. `vqvae`."""
    kind: Literal["train", "validation", "test"]
    """Means over the steps since the last line, or one measurement on the validation split or, of
    the finished model, on the test split."""
    step: int
    """Optimizer steps done."""
    images_seen: int
    """Training images seen, repetitions included."""
    seconds: float
    """Training time of the phase so far, without the time between a stop and its resume."""
    values: Mapping[str, float | None]
    """Metrics by name; None, or null in the file, for a value that is not finite."""

    def __post_init__(self) -> None:
        if not (0 <= self.step < 1 << 63 and 0 <= self.images_seen < 1 << 63 and self.seconds >= 0):
            raise ValueError(
                f"steps, images and seconds must be at least 0, and the first two below 2^63, got "
                f"{self.step}, {self.images_seen} and {self.seconds}"
            )


class MetricsLog:
    """Log of metrics in a JSON-lines file and, optionally, in TensorBoard.

    A row that cannot be written to the file is an error. If TensorBoard's files cannot be written,
    a warning is logged and the training goes on without them.

    Args:
        path: The file, created at the first row; several phases may share it.
        tensorboard_directory: Directory of TensorBoard's event files, one sub-directory per phase.
            None writes none. The `tensorboard` package is required, else none are written either.
    """

    def __init__(self, path: Path, tensorboard_directory: Path | None = None) -> None:
        self.path = path
        self._tensorboard_directory = tensorboard_directory
        self._writers: dict[str, EventFile] = {}
        self._purge_after: dict[str, int] = {}

    def write(self, row: MetricsRow) -> None:
        """Appends `row`; it is in the file when this returns."""
        with writing(self.path):
            make_directories(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_to_line(row))
        self._show(row)

    def trim(self, phase: str, last_step: int) -> None:
        """Drops the rows of `phase` beyond `last_step`, and damaged lines.

        After this a training resumed at `last_step` can append, and the log has each step once.
        Rows of the test split are dropped too: the finished model will be measured again.
        """
        self._purge_after[phase] = last_step
        if not self.path.exists():
            return
        kept = "".join(
            _to_line(row)
            for row in read_metrics(self.path)
            if row.phase != phase or (row.step <= last_step and row.kind != "test")
        ).encode()
        if kept != self.path.read_bytes():
            with atomic_path(self.path) as partial:
                partial.write_bytes(kept)

    def flush(self) -> None:
        """Flushes the rows to the disk, so that a checkpoint is never ahead of its log."""
        if self.path.exists():
            with writing(self.path):
                flush_to_disk(self.path)
                flush_directory(self.path.parent)

    def _show(self, row: MetricsRow) -> None:
        """Writes `row` for TensorBoard, which is disabled once that fails."""
        try:
            writer = self._writer(row.phase)
            if writer is not None:
                values = {
                    f"{row.kind}/{name}": math.nan if value is None else value
                    for name, value in row.values.items()
                }
                writer.add_scalars(values, row.step)
        except Exception as error:  # noqa: BLE001 - of any library below TensorBoard
            logger.warning(
                "TensorBoard is switched off, since its files could not be written to %s (%s)",
                self._tensorboard_directory,
                error,
            )
            self._tensorboard_directory = None

    def _writer(self, phase: str) -> EventFile | None:
        if self._tensorboard_directory is None or not importlib.util.find_spec("tensorboard"):
            return None
        if phase not in self._writers:
            from pipelines.training.event_file import EventFile

            self._writers[phase] = EventFile(
                self._tensorboard_directory / phase, self._purge_after.get(phase, -1) + 1
            )
        return self._writers[phase]


def read_metrics(path: Path) -> list[MetricsRow]:
    """Reads the rows of a metrics file, in the order of writing.

    Damaged lines are skipped with a warning. Of several rows of one phase, kind and step, which two
    processes may have written, the newest counts.
    """
    rows: dict[tuple[str, str, int], MetricsRow] = {}
    damage = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line:
            continue
        try:
            row = convert(parse_object(line), MetricsRow)
        except ValueError as error:
            damage.append(f"line {number}: {one_line(error)}")
        else:
            rows[row.phase, row.kind, row.step] = row
    if damage:
        logger.warning(
            "damaged lines of %s are left out: %d, first %s", path, len(damage), damage[0]
        )
    return list(rows.values())


def _to_line(row: MetricsRow) -> str:
    values = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in row.values.items()
    }
    return json.dumps(to_json(row) | {"values": values}, allow_nan=False) + "\n"
