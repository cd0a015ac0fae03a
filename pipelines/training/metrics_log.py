"""The run's figures: one JSON object per line, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.atomic_files import (
    atomic_path,
    flush_directory,
    flush_to_disk,
    make_directories,
    writing,
)

if TYPE_CHECKING:
    from pipelines.training.event_file import EventFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsRow:
    """One line of `metrics.jsonl`."""

    phase: str
    """Which training it belongs to, e.g. `vqvae`."""

    kind: Literal["train", "validation", "test"]
    """Means over the steps since the last line, or one measurement on the validation split or, of
    the finished model, on the test split."""

    step: int
    """Optimizer steps done."""

    images_seen: int
    """Training images seen, repetitions included."""

    seconds: float
    """Training time of the phase so far, without the time between a stop and its resume."""

    values: Mapping[str, float]
    """The figures by name; what is not finite is written as null, which JSON can hold."""


class MetricsLog:
    """Appends rows to a JSON-lines file and, if wanted, to TensorBoard.

    A row that cannot be written to the file is an error. If TensorBoard's files cannot be written,
    a warning is logged and the training goes on without them.

    Args:
        path: The file, created at the first row; several phases may share it.
        tensorboard_directory: Where TensorBoard's event files go, one sub-directory per phase. None
            writes none, and neither does a machine without the `tensorboard` package.
    """

    def __init__(self, path: Path, tensorboard_directory: Path | None = None) -> None:
        self.path = path
        self._tensorboard_directory = tensorboard_directory
        self._writers: dict[str, EventFile] = {}
        self._purge_after: dict[str, int] = {}

    def write(self, row: MetricsRow) -> None:
        """Appends `row`; it is in the file when this returns.

        Raises:
            OSError: The disk is full or refuses; `trim` removes what there is of the row.
        """
        with writing(self.path):
            make_directories(self.path.parent)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_as_json(row), allow_nan=False) + "\n")
        self._show(row)

    def trim(self, phase: str, last_step: int) -> None:
        """Drops the rows of `phase` beyond `last_step`, and a line that a kill cut short.

        After this a training resumed at `last_step` can append, and the log has each step once.
        Rows of the test split go too: whoever trains on will measure the finished model again.
        """
        self._purge_after[phase] = last_step
        if not self.path.exists():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _is_kept(line, phase, last_step)]
        if kept != lines:
            with atomic_path(self.path) as partial:
                partial.write_bytes(b"".join(kept))

    def flush(self) -> None:
        """Brings everything written to the disk, so that a checkpoint is never ahead of its log."""
        if self.path.exists():
            with writing(self.path):
                flush_to_disk(self.path)
                flush_directory(self.path.parent)

    def _show(self, row: MetricsRow) -> None:
        """Writes `row` for TensorBoard, which is switched off once that fails."""
        try:
            writer = self._writer(row.phase)
            if writer is not None:
                values = {f"{row.kind}/{name}": value for name, value in row.values.items()}
                writer.add_scalars(values, row.step)
        except Exception as error:  # noqa: BLE001 - of any library that TensorBoard stands on
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file as dictionaries, in the order of writing."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _as_json(row: MetricsRow) -> dict[str, Any]:
    record = asdict(row)
    record["values"] = {
        name: value if math.isfinite(value) else None for name, value in row.values.items()
    }
    return record


def _is_kept(line: bytes, phase: str, last_step: int) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        row = json.loads(line)
        is_later = row["step"] > last_step or row["kind"] == "test"
        return not (row["phase"] == phase and is_later)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
