import os

import pytest

from pipelines.files.names import (
    counted,
    duration,
    listed,
    one_line,
    printable,
    shortened,
    tallied,
    unicode_name,
)


def test_unicode_name_composes():
    assert unicode_name("cafe\u0301") == unicode_name("caf\u00e9") == "caf\u00e9"


def test_unicode_name_keeps_bytes_that_are_not_utf_8():
    assert os.fsencode(unicode_name(os.fsdecode(b"caf\xe9"))) == b"caf\xe9"


def test_printable_escapes_what_breaks_a_line():
    assert printable("café 日本 a\nb \x1b[1m \u2028") == r"café 日本 a\nb \x1b[1m \u2028"


def test_printable_escapes_what_cannot_be_encoded():
    assert printable(os.fsdecode(b"caf\xe9")).encode() == rb"caf\udce9"


def test_shortened_has_at_most_40_characters():
    assert shortened("x" * 40) == "x" * 40
    assert shortened("x" * 41) == "x" * 37 + "..."


def test_tallied_keeps_the_count_of_a_long_name():
    assert listed([tallied("x" * 99, 1234)]) == "x" * 27 + "... 1,234"


def test_listed_says_how_many_more():
    assert listed("abc", 3) == "a, b, c"
    assert listed((str(i) for i in range(1500)), 2) == "0, 1 and 1,498 more"


def test_counted_has_a_plural():
    assert [counted(n, "file") for n in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]


def test_one_line_is_the_message_or_the_type_of_an_error():
    assert one_line(ValueError("a\n  b \x1b.")) == r"a b \x1b"
    assert one_line(ValueError("x" * 999)) == "x" * 300
    assert one_line(EOFError()) == "EOFError"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(89, "about 89 s"), (90, "about 2 min"), (7199, "about 120 min"), (7200, "about 2.0 hours")],
)
def test_duration_is_rounded_to_what_an_estimate_knows(seconds, written):
    assert duration(seconds) == written
