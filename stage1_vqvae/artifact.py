"""A model on disk: a directory with `config.json` and `model.safetensors` that belong together.

`config.json` is a sealed record (see `records`). Besides what rebuilds the model it holds the
hashes of the tensors and of the bytes before them: a change of any byte of either file is noticed.
Both stages have a copy of this file, kept identical by a test.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stage1_vqvae.atomic_directory import atomic_directory, write_file
from stage1_vqvae.records import decode_record, encode_record
from stage1_vqvae.safetensors_reader import header_hash, one_line, read_tensors, require_layout

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound="ArtifactRecord")
ModuleT = TypeVar("ModuleT", bound=nn.Module)

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# A network is float32; batch normalisation also counts its batches.
_TYPES = {torch.float32: "F32", torch.int64: "I64"}
_MAX_CONFIG_BYTES = 1 << 16  # some ten times what the longest config takes
_CONFIG_CURE = "name another path, restore it or train the model again"
_PAIR_CURE = "restore the pair that was saved together"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord:
    """The `config.json` of a saved model; each kind of model adds the fields that rebuild it."""

    weights_sha256: str
    """`weights_hash` of the weights."""
    header_sha256: str
    """SHA-256 of the bytes of `model.safetensors` before its tensors."""


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of every tensor's name, dtype, shape and bytes, independent of the file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_artifact(
    directory: str | Path,
    kind: str,
    fields: Mapping[str, Any],
    model: nn.Module,
    version: int = FORMAT_VERSION,
) -> None:
    """Writes `model`, and what rebuilds it, to a new `directory`, whole or not at all.

    `fields` are the JSON-ready values of its record besides the hashes.

    Raises:
        ValueError: Weights are not float32.
    """
    # Contiguous copies: safetensors stores neither strides (channels_last) nor shared memory.
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.dtype not in _TYPES:
            raise ValueError(
                f"weights must be float32 to be saved, but {name} is {tensor.dtype}: convert the "
                "model with .float()"
            )
    # Not safetensors' own `save_file`: what it makes, only its owner can read.
    weights = save(state, metadata={"format": "pt"})
    hashes = {
        "weights_sha256": weights_hash(state),
        "header_sha256": header_hash(io.BytesIO(weights)),
    }
    config = encode_record(kind, version, {**hashes, **fields}, sealed=True)
    with atomic_directory(Path(directory)) as partial:
        write_file(partial / WEIGHTS_FILE, weights)
        write_file(partial / CONFIG_FILE, config)


def load_artifact(
    directory: str | Path,
    kind: str,
    cls: type[RecordT],
    build: Callable[[RecordT], ModuleT],
    version: int = FORMAT_VERSION,
) -> ModuleT:
    """Loads what `save_artifact` wrote, on the CPU; `build` makes the model from its record.

    What the config asks for is compared with what the weights' file holds before any of it is
    allocated.

    Raises:
        FileNotFoundError: The directory or one of its two files is missing.
        ValueError: A file is damaged, of another kind or version, holds non-finite weights, or
            config and weights were not saved together.
    """
    directory = Path(directory)
    config, weights = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    for path in (directory, config, weights):
        if not (path.is_dir() if path == directory else path.is_file()):
            raise FileNotFoundError(
                f"a saved {kind} is required in {directory}, but {path} "
                f"{'is of another type' if path.exists() else 'does not exist'}: check the path, "
                "or train the model first"
            )
    record = read_config(config, kind, version, cls, cure=_CONFIG_CURE)
    with _float32_on_cpu():
        try:
            with torch.device("meta"), _NoRandomNumbers():
                expected = build(record).state_dict()
        except ValueError as error:
            raise ValueError(_unusable(config, kind, error, _CONFIG_CURE)) from error
        layout = {n: (_TYPES[t.dtype], tuple(t.shape)) for n, t in expected.items()}
        require_layout(weights, layout, cure=_PAIR_CURE)
        state = _read_weights(weights, record)
        model = build(record)
    model.load_state_dict(state)
    return model


def read_config(path: Path, kind: str, version: int, cls: type[T], *, cure: str) -> T:
    """Reads a sealed `config.json` into `cls`.

    Raises:
        ValueError: It is damaged, of another kind or version, or does not fit `cls`. The sentence
            ends with `cure`, what to do about it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
        if len(content) > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MAX_CONFIG_BYTES} bytes")
        return decode_record(content, kind, version, cls, sealed=True)
    except ValueError as error:
        raise ValueError(_unusable(path, kind, error, cure)) from error


def _read_weights(path: Path, record: ArtifactRecord) -> dict[str, Tensor]:
    """Reads the tensors that `record` was saved with, all finite."""
    state = read_tensors(path)
    with path.open("rb") as file:
        hashes = weights_hash(state), header_hash(file)
    if hashes != (record.weights_sha256, record.header_sha256):
        raise ValueError(
            f"{CONFIG_FILE} and {WEIGHTS_FILE} in {path.parent} do not belong together (the "
            f"weights' hash differs from the config's): {_PAIR_CURE}"
        )
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"weights must be finite, but {name} in {path} has NaN or infinite entries: "
                "restore or train it again"
            )
    return state


class _NoRandomNumbers(TorchFunctionMode):
    """Skips random numbers on the meta device, for which torch would import sympy for seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


@contextmanager
def _float32_on_cpu() -> Iterator[None]:
    """Makes new tensors float32 on the CPU, whatever defaults the program has chosen."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _unusable(config: Path, kind: str, error: ValueError, cure: str) -> str:
    return f"{config} must be the config of a saved {kind}, but {one_line(error)}: {cure}"
