"""JSON records: typed, closed, and sealed where nobody may change them.

A record is a JSON object that begins with `format_version` and `kind`. It is read into a
dataclass, strictly: exactly the fields of the class, of exactly their types, finite numbers, and
whatever the `__post_init__` of the class demands. A sealed record ends with `sha256`, the hash of
all its other bytes, so that a change of any byte is noticed.

Both stages have a copy of this file, kept identical by a test. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n}\n\Z')


def encode_record(
    kind: str, version: int, fields: Mapping[str, Any], *, sealed: bool = False
) -> bytes:
    """Encodes JSON-ready values of every field of a record's class as the bytes of its file.

    Raises:
        ValueError: A number is not finite.
    """
    record = {"format_version": version, "kind": kind, **fields}
    if not sealed:
        return f"{json.dumps(record, indent=2, allow_nan=False)}\n".encode()
    empty = f"{json.dumps({**record, 'sha256': ''}, indent=2, allow_nan=False)}\n".encode()
    seal = hashlib.sha256(empty).hexdigest().encode()
    return empty.removesuffix(b'"\n}\n') + seal + b'"\n}\n'


def decode_record(
    content: bytes, kind: str, version: int, cls: type[T], *, sealed: bool = False
) -> T:
    """Decodes what `encode_record` returned, with the same arguments, to the dataclass `cls`.

    Raises:
        ValueError: The content is no record of this kind and version, was changed after it was
            sealed, or does not fit `cls`. The message names what is wrong, not the file.
    """
    record = parse_object(content)
    found_version, found_kind = record.pop("format_version", None), record.pop("kind", None)
    if type(found_version) is not int or not isinstance(found_kind, str):
        raise ValueError("format_version and kind are required")
    if found_kind != kind:
        raise ValueError(f"the kind {kind} is required, got {found_kind!r}")
    if found_version != version:
        raise ValueError(
            f"format version {version} is required, got {found_version}: it was written by another "
            "version of the software"
        )
    if sealed:
        record.pop("sha256", None)
        _require_seal(content)
    return convert(record, cls)


def convert(values: Mapping[str, Any], cls: type[T]) -> T:
    """Builds the dataclass `cls` from values of `json.loads`, strictly.

    Its fields may be nested dataclasses, tuples, literals and unions of dataclasses with a `kind`.

    Raises:
        ValueError: A field is missing, unknown, of another type, not finite or out of range.
    """
    from pydantic import ValidationError

    adapter = _adapter(cls)  # type: ignore[arg-type]  # type[T] is hashable; mypy denies it
    value: T
    try:
        (value,) = adapter.validate_python([values])
    except ValidationError as error:
        raise ValueError(_first_error(error)) from None
    except OverflowError as error:  # in a `__post_init__`
        raise ValueError(f"a number is too large ({error})") from None
    # Pydantic is lenient towards Python values, where a tuple is no list, and its own JSON parser
    # refuses names that are not UTF-8. What it makes of them, written again, has to be the same.
    (written,) = adapter.dump_python([value], mode="json")
    _require_same(written, values, "")
    return value


def parse_object(content: bytes) -> dict[str, Any]:
    """Parses a JSON object of unknown fields.

    Raises:
        ValueError: The content is something else.
    """
    try:
        record = json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:  # malformed, not UTF-8, or a number with thousands of digits
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is required, got {type(record).__name__}")
    return record


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # A list around it: pydantic takes no config for a dataclass itself, and passes that of the
    # surrounding type on.
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(list[cls], config=config)


def _require_seal(content: bytes) -> None:
    seal = _SEAL.search(content)
    if seal is None:
        raise ValueError("it does not end with its sha256")
    empty = content[: seal.start(1)] + content[seal.end(1) :]
    if hashlib.sha256(empty).hexdigest().encode() != seal[1]:
        raise ValueError("it was changed after it was written (its sha256 differs)")


def _first_error(error: ValidationError) -> str:
    """Returns the first error as a sentence; of a union, that of the member of the named kind."""
    errors = error.errors(include_url=False)
    # Of the members of unions that are not of the kind that was named.
    others = [e["loc"] for e in errors if e["type"] == "literal_error" and e["loc"][-1] == "kind"]
    reached = [e for e in errors if not any(_is_beside(e["loc"], kind) for kind in others)]
    of_named_kind = [e for e in reached if e["loc"] not in others]
    if of_named_kind:
        first = of_named_kind[0]
        reason = first["msg"].removeprefix("Value error, ")
    else:
        first = max(reached, key=lambda e: len(e["loc"]))
        union = first["loc"][:-2]
        known = [e["ctx"]["expected"] for e in reached if e["loc"][:-2] == union]
        reason = f"must be {', '.join(known)}"
    # The list around the record and the names of a union's classes are no part of the path.
    path = ".".join(str(p) for p in first["loc"][1:] if not str(p)[:1].isupper())
    given = first["input"]
    shown = f", got {given!r}" if isinstance(given, bool | int | float | str | None) else ""
    return f"{path}: {reason}{_shortened(shown)}" if path else reason


def _is_beside(path: tuple[int | str, ...], kind: tuple[int | str, ...]) -> bool:
    """Returns whether an error lies in the member of a union whose wrong kind is at `kind`."""
    return path != kind and path[: len(kind) - 1] == kind[:-1]


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _require_same(read: Any, given: Any, path: str) -> None:
    """Refuses what validation let through: another type, a missing field, another spelling."""
    if isinstance(read, dict) and isinstance(given, dict):
        different = sorted(read.keys() ^ given.keys())
        if different:
            raise ValueError(f"{path}{different[0]}: the field is missing or unknown")
        for name in read:
            _require_same(read[name], given[name], f"{path}{name}.")
    elif isinstance(read, list) and isinstance(given, list) and len(read) == len(given):
        for i, (mine, theirs) in enumerate(zip(read, given, strict=True)):
            _require_same(mine, theirs, f"{path}{i}.")
    elif type(read) is not type(given) and not (type(read) is float and type(given) is int):
        required = f"must be of type {type(read).__name__}"
        raise ValueError(f"{path.rstrip('.')}: {required}{_shortened(f', got {given!r}')}")
    elif read != given:
        raise ValueError(f"{path.rstrip('.')}: {read!r} is required, got {given!r}")
