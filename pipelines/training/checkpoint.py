"""Checkpoints that are either whole or not there: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY_PREFIX = ".unfinished-"

logger = logging.getLogger(__name__)

TensorGroups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What one checkpoint holds."""

    step: int
    """Optimizer steps done."""

    tensors: dict[str, dict[str, Tensor]]
    """Tensors by group (the file's stem) and name, on the CPU."""

    state: dict[str, Any]
    """Everything else, as JSON gives it back."""


class CheckpointStore:
    """The newest checkpoints of one training run, each a directory `step-00000120`.

    A checkpoint is written under another name, flushed to the disk, and then renamed: whatever
    interrupts the writing, the one before stays valid. `state.json` records size and CRC-32 of
    every tensor file, so that a truncated or altered file is noticed and not trained on.

    Args:
        directory: Created when the first checkpoint is written.
        keep: How many checkpoints stay; at least 2, so that a damaged one has a substitute.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        assert keep >= 2, "a damaged checkpoint needs a substitute"
        self.directory = directory
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, ascending."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` is."""
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, tensors: TensorGroups, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, then removes those that are older than the newest `keep`.

        Raises:
            RuntimeError: If the disk is full or refuses; the checkpoints there before are intact.
        """
        temporary = self.directory / f"{_TEMPORARY_PREFIX}{self.path(step).name}"
        try:
            self.remove_unfinished()
            temporary.mkdir(parents=True)
            _write_files(temporary, step, tensors, state)
            self._replace(temporary, self.path(step))
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            left = self.steps()
            raise RuntimeError(
                f"the checkpoint of step {step} could not be written to {self.directory} "
                f"({error.strerror or error}): make room or fix the directory, then resume from "
                f"{f'step {left[-1]}, which is intact' if left else 'the start'}"
            ) from error
        self.remove_unfinished()
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def load_newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None if there is none at all.

        A damaged newest checkpoint costs some steps and not the run: the one before is taken, and
        a warning is logged.

        Raises:
            ValueError: If there are checkpoints and none can be read, or one is of another format.
        """
        damage = []
        for step in reversed(self.steps()):
            try:
                return _read_files(self.path(step), step)
            except (_DamagedError, OSError) as error:
                logger.warning("skipping the checkpoint of step %d: %s", step, error)
                damage.append(str(error))
        if damage:
            raise ValueError(
                f"no checkpoint in {self.directory} can be read ({damage[0]}): delete the "
                "directory to start again"
            )
        return None

    def remove_unfinished(self) -> None:
        """Removes what interrupted writing left behind."""
        for path in self.directory.glob(f"{_TEMPORARY_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _replace(self, temporary: Path, final: Path) -> None:
        if final.exists():  # only after a damaged checkpoint was skipped and its steps repeated
            final.rename(self.directory / f"{_TEMPORARY_PREFIX}old-{final.name}")
        temporary.rename(final)
        _flush_directory(self.directory)


class _DamagedError(ValueError):
    """A checkpoint whose files are missing, truncated or altered."""


def _write_files(
    directory: Path, step: int, tensors: TensorGroups, state: Mapping[str, Any]
) -> None:
    files = {}
    for group, members in tensors.items():
        content = safetensors.torch.save({n: _plain(tensor) for n, tensor in members.items()})
        _write_flushed(directory / f"{group}.safetensors", content)
        files[group] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    record = {"format_version": FORMAT_VERSION, "step": step, "files": files, "state": state}
    _write_flushed(directory / "state.json", json.dumps(record, indent=2).encode())
    _flush_directory(directory)


def _plain(tensor: Tensor) -> Tensor:
    """A copy that safetensors accepts: it refuses tied weights and all but one memory format."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _read_files(directory: Path, step: int) -> Checkpoint:
    try:
        record = json.loads((directory / "state.json").read_bytes())
        version, files, state = record["format_version"], record["files"], record["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{directory / 'state.json'} is not a checkpoint's state") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{directory} must be a checkpoint of format {FORMAT_VERSION}, got {version}: resume "
            "with the version of the code that wrote it"
        )
    tensors = {
        group: _read_tensors(directory / f"{group}.safetensors", expected)
        for group, expected in files.items()
    }
    return Checkpoint(step=step, tensors=tensors, state=state)


def _read_tensors(path: Path, expected: Mapping[str, int]) -> dict[str, Tensor]:
    content = path.read_bytes()
    if len(content) != expected["bytes"]:
        raise _DamagedError(f"{path} must have {expected['bytes']} bytes, got {len(content)}")
    if zlib.crc32(content) != expected["crc32"]:
        raise _DamagedError(f"{path} was altered after it was written")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise _DamagedError(f"{path} is not a safetensors file") from error


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    """Makes the names in `directory` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
