"""Checkpoints, written atomically: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipelines.files.atomic import atomic_path, remove_directory, remove_partial
from pipelines.files.names import one_line
from pipelines.files.records import decode_record, read_bytes, record_bytes
from pipelines.training.run_state import TrainingState

FORMAT_VERSION = 4
_KIND = "checkpoint"
_NAME = re.compile(r"step-(\d{8,})")

logger = logging.getLogger(__name__)

TensorGroups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The content of one checkpoint."""

    tensors: dict[str, dict[str, Tensor]]
    """Tensors by group (the file's stem) and name, on the CPU."""
    state: TrainingState
    """Everything but the tensors."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.run.step


@dataclass(frozen=True, kw_only=True, slots=True)
class _StateFile:
    """The content of state.json."""

    hashes: dict[str, str]
    """SHA-256 of each file of tensors, by group."""
    state: TrainingState


class CheckpointStore:
    """The newest checkpoints of one training run, each a directory `step-00000120`.

    A checkpoint is written under another name, flushed to the disk, and then renamed: whatever
    interrupts the writing, the previous one stays valid. `state.json` records the SHA-256
    of every tensor file and is sealed itself, so that no changed byte is trained on.

    Args:
        directory: Created when the first checkpoint is written.
        keep: How many checkpoints stay; at least 2, so that a damaged one has a substitute.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        assert keep >= 2, "a damaged checkpoint needs a substitute"
        self.directory = directory
        self.keep = keep

    def steps(self) -> list[int]:
        """Returns the steps of the existing checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Returns the directory of the checkpoint of `step`."""
        return self.directory / f"step-{step:08d}"

    def save(self, tensors: TensorGroups, state: TrainingState) -> None:
        """Writes a checkpoint, then removes those that are older than the newest `keep`.

        Raises:
            RuntimeError: If the files cannot be written; older checkpoints are intact.
        """
        step = state.run.step
        remove_partial(self.directory)
        try:
            # It may exist: a damaged checkpoint is skipped and its steps are repeated.
            with atomic_path(self.path(step), replace_directory=True) as partial:
                partial.mkdir()
                _write_files(partial, tensors, state)
        except OSError as error:
            left = self.steps()
            intact = "no checkpoint has been written before"
            if left:
                intact = f"the checkpoint of step {left[-1]} is intact"
            raise RuntimeError(f"{error}; {intact}") from error
        for old in self.steps()[: -self.keep]:
            with suppress(OSError):
                remove_directory(self.path(old))

    def load_newest(self) -> Checkpoint | None:
        """Returns the newest readable checkpoint, or None without any.

        A damaged one is skipped with a warning: it costs some steps, not the run. If there are some
        and none can be read, that is a ValueError.
        """
        damage = []
        for step in reversed(self.steps()):
            try:
                return _read_files(self.path(step), step)
            except (ValueError, OSError) as error:
                logger.warning("skipping the checkpoint of step %d: %s", step, error)
                damage.append(str(error))
        if damage:
            raise ValueError(
                f"no checkpoint in {self.directory} can be read ({damage[0]}): delete the "
                "directory to start again"
            )
        return None


def _write_files(directory: Path, tensors: TensorGroups, state: TrainingState) -> None:
    hashes = {}
    for group, members in tensors.items():
        content = safetensors.torch.save({n: _plain(tensor) for n, tensor in members.items()})
        (directory / f"{group}.safetensors").write_bytes(content)
        hashes[group] = hashlib.sha256(content).hexdigest()
    record = record_bytes(
        _KIND, FORMAT_VERSION, _StateFile(hashes=hashes, state=state), sealed=True
    )
    (directory / "state.json").write_bytes(record)


def _plain(tensor: Tensor) -> Tensor:
    """Copies a tensor, since safetensors refuses shared memory and other memory formats."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _read_files(directory: Path, step: int) -> Checkpoint:
    """Reads the checkpoint of `step`."""
    path = directory / "state.json"
    try:
        record = decode_record(read_bytes(path), _KIND, FORMAT_VERSION, _StateFile, sealed=True)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)})") from error
    if record.state.run.step != step:
        raise ValueError(f"{path} must be that of step {step}, got {record.state.run.step}")
    tensors = {
        group: _read_tensors(directory / f"{group}.safetensors", expected)
        for group, expected in record.hashes.items()
    }
    return Checkpoint(tensors=tensors, state=record.state)


def _read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{path} was altered after it was written")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file") from error
