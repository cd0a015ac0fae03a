"""Checkpoints that are either whole or not there: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipelines.atomic_files import atomic_path, remove_directory, remove_partial

FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8,})")

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
        remove_partial(self.directory)
        try:
            # There is one already after a damaged one was skipped and its steps were repeated.
            with atomic_path(self.path(step), replace_directory=True) as partial:
                partial.mkdir()
                _write_files(partial, step, tensors, state)
        except OSError as error:
            left = self.steps()
            intact = f"the checkpoint of step {left[-1]} is intact" if left else "there is none yet"
            raise RuntimeError(f"{error}; {intact}") from error
        for old in self.steps()[: -self.keep]:
            with suppress(OSError):
                remove_directory(self.path(old))

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


class _DamagedError(ValueError):
    """A checkpoint whose files are missing, truncated or altered."""


def _write_files(
    directory: Path, step: int, tensors: TensorGroups, state: Mapping[str, Any]
) -> None:
    files = {}
    for group, members in tensors.items():
        content = safetensors.torch.save({n: _plain(tensor) for n, tensor in members.items()})
        (directory / f"{group}.safetensors").write_bytes(content)
        files[group] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    record = {"format_version": FORMAT_VERSION, "step": step, "files": files, "state": state}
    (directory / "state.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


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
