"""A model on disk: a directory with `config.json` and `model.safetensors` that belong together.

Each stage carries its own copy of this file, so that it can be used without the other; a test
keeps the copies identical.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of every tensor's name, dtype, shape and bytes, independent of the file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_artifact(
    directory: str | Path, kind: str, config: Mapping[str, Any], model: nn.Module
) -> None:
    """Writes `model` and what rebuilds it to `directory`, whole or not at all.

    Args:
        directory: Must not exist yet; its parents are made.
        kind: What the artifact is; `load_artifact` asks for it again.
        config: JSON-ready settings, stored beside the format version and the weights' hash.
        model: The weights are taken from its `state_dict()`.

    Raises:
        FileExistsError: `directory` exists; nothing is ever overwritten.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(
            f"a new directory is required to save to, but {directory} exists: "
            "choose another path or remove it first"
        )
    # Contiguous copies: safetensors stores neither strides (channels_last) nor shared memory.
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    header = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "weights_sha256": weights_hash(state),
        **config,
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
        # Not safetensors' own `save_file`: what it makes, only its owner can read.
        _write(partial / WEIGHTS_FILE, save(state, metadata={"format": "pt"}))
        _write(partial / CONFIG_FILE, (json.dumps(header, indent=2) + "\n").encode())
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_artifact(directory: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `save_artifact` wrote, refusing anything that is not whole and matching.

    Args:
        directory: The artifact's directory.
        kind: The kind it must be.

    Returns:
        The config as it was given to `save_artifact`, and the weights by name, on the CPU.

    Raises:
        FileNotFoundError: The directory or one of its two files is missing.
        ValueError: A file is damaged, of another kind or version, holds non-finite weights, or
            config and weights were not saved together.
    """
    directory = Path(directory)
    for path in (directory, directory / CONFIG_FILE, directory / WEIGHTS_FILE):
        if not path.exists():
            raise FileNotFoundError(
                f"a saved {kind} is required in {directory}, but {path} does not exist: "
                "check the path, or train the model first"
            )
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        version, found = config.pop("format_version"), config.pop("kind")
        expected_hash = config.pop("weights_sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{directory / CONFIG_FILE} must be the JSON config of a saved {kind}, but it is "
            f"damaged ({error}): save the model again"
        ) from error
    if found != kind:
        raise ValueError(
            f"{directory} must hold a {kind}, but it holds a {found}: name another path"
        )
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{directory} has format version {version}, but this version of the software reads "
            f"{FORMAT_VERSION}: use the version that wrote it"
        )
    try:
        with utf8_path(directory / WEIGHTS_FILE) as path:
            state = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{directory / WEIGHTS_FILE} must be a whole safetensors file, but it is damaged "
            f"({error}): restore or train it again"
        ) from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"weights must be finite, but {name} in {directory / WEIGHTS_FILE} has NaN or "
                "infinite entries: restore or train it again"
            )
    if weights_hash(state) != expected_hash:
        raise ValueError(
            f"{CONFIG_FILE} and {WEIGHTS_FILE} in {directory} do not belong together (the weights' "
            "hash differs from the config's): restore the pair that was saved together"
        )
    return config, state


def load_weights(model: nn.Module, state: Mapping[str, Tensor], directory: str | Path) -> None:
    """Copies `state` into `model`; names and shapes must agree exactly.

    Raises:
        ValueError: A tensor is missing, left over, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise ValueError(
                f"weights in {directory} do not fit its config: {name} must have shape "
                f"{expected.get(name, 'none (no such tensor)')}, got "
                f"{given.get(name, 'none (missing)')}: restore the pair that was saved together"
            )
    model.load_state_dict(state)


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Yields a path to the same file whose name is UTF-8, which safetensors requires.

    Linux allows other names. They are reached by a temporary link.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as directory:
            link = Path(directory) / "link"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def _write(path: Path, content: bytes) -> None:
    """Writes a file whose bytes are on the disk before its directory takes its final name."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
