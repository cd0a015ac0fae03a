"""JSON records as files: dataclasses that are written whole and read strictly.

Records themselves are stage one's; training and data, which know neither stage, have them from
here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from pipelines.files.atomic import atomic_path
from pipelines.files.names import one_line, printable
from stage1_vqvae.records import convert, decode_record, encode_record, parse_object

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import CoreSchema

__all__ = [
    "AnyFloat",
    "convert",
    "decode_record",
    "encode_record",
    "parse_object",
    "read_bytes",
    "read_record",
    "record_bytes",
    "require_file",
    "to_json",
    "write_record",
]

T = TypeVar("T")

_WORDS = ("inf", "-inf", "nan")


def write_record(
    path: Path, kind: str, version: int, value: DataclassInstance, *, sealed: bool = False
) -> None:
    """Writes a record atomically, replacing an older one; `sealed` ends it with its hash."""
    content = record_bytes(kind, version, value, sealed=sealed)
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def record_bytes(
    kind: str, version: int, value: DataclassInstance, *, sealed: bool = False
) -> bytes:
    """Returns the content of the file that `write_record` writes."""
    as_read = convert(to_json(value), type(value))  # where an int stands for a float, a float
    return encode_record(kind, version, to_json(as_read), sealed=sealed)


def read_record(
    path: Path, kind: str, version: int, cls: type[T], *, cure: str, sealed: bool = False
) -> T:
    """Reads what `write_record` wrote; an error ends with `cure`, what the user can do."""
    if not path.is_file():
        raise FileNotFoundError(f"the file {path} is required, but does not exist: {cure}")
    try:
        return decode_record(path.read_bytes(), kind, version, cls, sealed=sealed)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}): {cure}") from error


def read_bytes(path: Path) -> bytes:
    """Reads a regular file."""
    require_file(path)
    return path.read_bytes()


def require_file(path: Path) -> None:
    """Checks that a path is a regular file: reading a pipe or a device may never end."""
    if path.is_file():
        return
    name = printable(path)
    if not path.exists():
        raise FileNotFoundError(f"{name} does not exist: check the path")
    if path.is_dir():
        raise IsADirectoryError(
            f"{name} must be a regular file, but is a folder: name a file in it"
        )
    raise OSError(f"{name} must be a regular file, but is none: replace it by a copy")


def to_json(value: DataclassInstance) -> dict[str, Any]:
    """Converts a dataclass to JSON values, which `convert` turns back into it.

    Tuples become lists, paths text, and numbers that are not finite the words inf, -inf and nan.
    """
    values: dict[str, Any] = _to_json(asdict(value))
    return values


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_json(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


class _OrWord:
    """How pydantic reads and writes `AnyFloat`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            _to_float, serialization=core_schema.plain_serializer_function_ser_schema(_to_json)
        )


def _to_float(value: Any) -> float:
    if value in _WORDS or (type(value) in (int, float) and abs(value) <= sys.float_info.max):
        return float(value)
    raise ValueError(f"a number or one of the words {', '.join(_WORDS)} is required")


AnyFloat: TypeAlias = Annotated[float, _OrWord()]
"""A float that need not be finite: a record holds inf, -inf and nan as words, since JSON has no
such numbers. A plain `float` of a record must be finite."""
