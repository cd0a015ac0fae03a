"""Records as files: what is written is read, and what is damaged is refused by its name."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.files.records import AnyFloat, convert, read_record, to_json, write_record


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    size: tuple[int, int] = (2, 3)
    root: Path = Path("a/b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    part: Part = Part()
    seconds: float = 1.5
    psnr: AnyFloat | None = math.inf
    means: dict[str, AnyFloat]


WHOLE = Whole(means={"low": -math.inf, "high": 2.0})


def read(path, version=3, **options):
    return read_record(path, "whole", version, Whole, cure="write it again", **options)


def write(path, value=WHOLE, **options):
    write_record(path, "whole", 3, value, **options)


@pytest.mark.parametrize("sealed", [False, True])
def test_record_comes_back_as_it_was(tmp_path, sealed):
    write(tmp_path / "runs" / "whole.json", sealed=sealed)
    assert read(tmp_path / "runs" / "whole.json", sealed=sealed) == WHOLE
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["whole.json"]


def test_what_is_read_is_written_in_the_same_bytes(tmp_path):
    write(tmp_path / "first.json", Whole(seconds=1, means={"a": 2}))
    write(tmp_path / "second.json", read(tmp_path / "first.json"))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_older_record_is_replaced(tmp_path):
    (tmp_path / "whole.json").write_text("old")
    write(tmp_path / "whole.json")
    assert read(tmp_path / "whole.json") == WHOLE


def test_tuples_paths_and_infinities_are_json():
    assert json.loads(json.dumps(to_json(WHOLE), allow_nan=False)) == {
        "part": {"size": [2, 3], "root": "a/b"},
        "seconds": 1.5,
        "psnr": "inf",
        "means": {"low": "-inf", "high": 2.0},
    }


def test_nan_comes_back():
    assert math.isnan(convert(to_json(Whole(means={"a": math.nan})), Whole).means["a"])


@pytest.mark.parametrize("value", ["infinity", "1.0", True, None, [], 10**400, math.nan])
def test_other_words_and_types_are_no_number(value):
    with pytest.raises(ValueError, match=r"means\.a.*(inf, -inf, nan|type)"):
        convert(to_json(WHOLE) | {"means": {"a": value}}, Whole)


def test_what_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"seconds.*'nan'"):
        write(tmp_path / "whole.json", Whole(seconds=math.nan, means={}))
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_refused_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"whole\.json is required.*: write it again$"):
        read(tmp_path / "whole.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_no_record(tmp_path):
    os.mkfifo(tmp_path / "whole.json")  # opened, it would wait for a writer for ever
    with pytest.raises(FileNotFoundError, match=r"whole\.json is required"):
        read(tmp_path / "whole.json")


def test_damaged_file_is_refused_in_one_line_with_the_cure(tmp_path):
    path = tmp_path / "whole.json"
    write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more\nlines": 1}))
    with pytest.raises(ValueError, match=r"whole\.json cannot .*more lines.*: write it again$"):
        read(path)


def test_record_of_another_version_is_refused(tmp_path):
    write(tmp_path / "whole.json")
    with pytest.raises(ValueError, match=r"whole\.json.*version 4 is required, got 3.*write it"):
        read(tmp_path / "whole.json", version=4)
