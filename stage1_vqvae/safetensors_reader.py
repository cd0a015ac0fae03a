"""Reading a safetensors file: what it holds, before any of it is read, and its tensors.

Both stages have a copy of this file, kept identical by a test.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

Layout: TypeAlias = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Type, in the words of safetensors, and shape of each tensor by its name; None is any size."""

_MAX_SHOWN = 200


def require_layout(path: Path, wanted: Layout, *, cure: str) -> dict[str, tuple[int, ...]]:
    """Checks that a file holds the tensors that its `config.json` announces; returns their shapes.

    Raises:
        ValueError: The file is damaged, or a tensor is missing, left over, or of another type or
            shape. The sentence ends with `cure`, what to do about it.
    """
    try:
        with _utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, but it is damaged ({one_line(error)}): "
            f"{cure}"
        ) from error
    for name in sorted(wanted.keys() | found.keys()):
        if not _fits(found.get(name), wanted.get(name)):
            raise ValueError(
                f"{path} does not fit config.json: {one_line(name)} must be "
                f"{_described(wanted.get(name))}, got {_described(found.get(name))}: {cure}"
            )
    return {name: shape for name, (_, shape) in found.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file that `require_layout` accepts, on the CPU."""
    with _utf8_path(path) as opened:
        tensors: dict[str, Tensor] = load_file(opened)
        return tensors


def header_hash(file: BinaryIO) -> str:
    """Computes the SHA-256 of a safetensors file up to its first tensor: a length and its JSON."""
    length = file.read(8)
    return hashlib.sha256(length + file.read(int.from_bytes(length, "little"))).hexdigest()


def one_line(text: object) -> str:
    """Returns `text` as one line of reasonable length, whatever a damaged file made of it."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}..."


@contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """Yields a UTF-8 path to the file, as safetensors requires: a temporary link to other names."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as directory:
            link = Path(directory) / "link"
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path


def _fits(
    found: tuple[str, tuple[int, ...]] | None, wanted: tuple[str, tuple[int | None, ...]] | None
) -> bool:
    if found is None or wanted is None:
        return False
    sizes = zip(found[1], wanted[1], strict=False)
    same_axes = len(found[1]) == len(wanted[1])
    return found[0] == wanted[0] and same_axes and all(w in (None, f) for f, w in sizes)


def _described(tensor: tuple[str, tuple[int | None, ...]] | None) -> str:
    if tensor is None:
        return "no tensor"
    dtype, shape = tensor
    return one_line(f"{dtype} ({', '.join('any' if n is None else str(n) for n in shape)})")
