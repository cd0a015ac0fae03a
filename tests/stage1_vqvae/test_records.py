from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from stage1_vqvae.records import convert, decode_record, encode_record


@dataclass(frozen=True, kw_only=True, slots=True)
class Square:
    kind: Literal["square"] = "square"
    side: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"radius must be above 0, got {self.radius}")
        int(self.radius / 1e-200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    count: int
    shape: Square | Circle
    size: tuple[int, int] | None = None
    levels: Literal[2, 4] = 2
    path: Path = Path("a")


VALUES = {
    "count": 3,
    "shape": {"kind": "circle", "radius": 2.5},
    "size": [8, 9],
    "levels": 4,
    "path": "a/b",
}
PICTURE = Picture(count=3, shape=Circle(radius=2.5), size=(8, 9), levels=4, path=Path("a/b"))


def changed(**values):
    return VALUES | values


def nested(depth):
    """A list in a list, and so on."""
    values = []
    for _ in range(depth):
        values = [values]
    return values


def test_convert_builds_nested_dataclasses():
    assert convert(VALUES, Picture) == PICTURE


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (changed(extra=1), "extra"),
        (changed(count=True), "count: must be of type int, got True"),
        (changed(count=3.0), "count"),
        (changed(count="3"), "count"),
        (changed(levels=4.0), "levels"),
        (changed(levels=3), "levels"),
        (changed(size=[8]), "size"),
        (changed(size=8), "size"),
        (changed(path=5), "path"),
        (changed(shape={"kind": "circle", "radius": "x"}), r"shape\.radius"),
        (changed(shape={"kind": "circle", "radius": -1.0}), "radius must be above 0"),
        (changed(shape={"kind": "circle", "radius": float("nan")}), r"shape\.radius"),
        (changed(shape={"kind": "circle", "radius": 1e200}), "a number is too large"),
        (changed(shape={"kind": "circle", "radius": 1.0, "side": 1.0}), r"shape\.side"),
        (changed(shape={"kind": "triangle"}), "shape.*'square', 'circle'.*'triangle'"),
        (changed(shape={"radius": 1.0}), r"shape"),
        (changed(kind="picture"), "kind: Unexpected"),
        (changed(size=nested(250)), "size"),
        (changed(size=nested(10_000)), "size"),
        (changed(path="./a"), "path: 'a' is required, got './a'"),
        ({k: v for k, v in VALUES.items() if k != "levels"}, "levels"),
    ],
)
def test_convert_refuses_what_does_not_fit(values, name):
    with pytest.raises(ValueError, match=name) as error:
        convert(values, Picture)
    assert "\n" not in str(error.value)


def test_name_that_is_not_utf8_comes_back():
    path = "caf\udce9"  # as Python names a file whose bytes are not UTF-8
    content = encode_record("picture", 2, changed(path=path))
    assert decode_record(content, "picture", 2, Picture).path == Path(path)


def test_kind_of_the_record_itself_is_a_field_like_others():
    with pytest.raises(ValueError, match=r"^kind: must be 'circle', got 'square'$"):
        convert({"kind": "square", "radius": 1.0}, Circle)


@pytest.mark.parametrize("sealed", [False, True])
def test_decode_record_inverts_encode_record(sealed):
    content = encode_record("picture", 2, VALUES, sealed=sealed)
    assert decode_record(content, "picture", 2, Picture, sealed=sealed) == PICTURE


def test_seal_is_the_hash_of_all_other_bytes():
    content = encode_record("picture", 2, VALUES, sealed=True)
    seal = json.loads(content)["sha256"]
    assert hashlib.sha256(content.replace(seal.encode(), b"")).hexdigest() == seal


def test_change_of_any_byte_of_a_sealed_record_is_refused():
    content = encode_record("picture", 2, VALUES, sealed=True)
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1
        with pytest.raises(ValueError, match=r"."):
            decode_record(bytes(altered), "picture", 2, Picture, sealed=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "deep"),
        (b"\xff", "JSON"),
        (b"9" * 10_000, "JSON"),
        (b"[]", "object"),
        (b"{}", "format_version"),
        (encode_record("picture", 1, VALUES), "version 2.*got 1"),
        (encode_record("drawing", 2, VALUES), "picture.*'drawing'"),
        (encode_record("picture", 2, VALUES) + b"x", "JSON"),
    ],
)
def test_decode_record_refuses_what_is_no_such_record(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode_record(content, "picture", 2, Picture)


def test_record_without_a_seal_is_refused_where_one_is_required():
    with pytest.raises(ValueError, match="sha256"):
        decode_record(encode_record("picture", 2, VALUES), "picture", 2, Picture, sealed=True)
