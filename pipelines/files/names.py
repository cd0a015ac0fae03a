"""Names of classes and files, lists of them, numbers and errors, as text for one line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

MAX_SHOWN_LENGTH = 40  # characters of a name in a list
MAX_MESSAGE_LENGTH = 300  # characters of an error, which may quote a damaged file


def unicode_name(name: str) -> str:
    """Returns a file system's name as it is compared: UTF-8 whatever the locale, NFC.

    macOS writes é as two code points (NFD), other systems as one (NFC). Bytes that are not UTF-8
    become surrogates, as `os.fsdecode` makes them.
    """
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "surrogateescape"))


def printable(text: object) -> str:
    """Returns `str(text)` with everything escaped that breaks a line or cannot be printed."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def shortened(name: str, length: int = MAX_SHOWN_LENGTH) -> str:
    """Returns a name printable and of at most `length` characters."""
    name = printable(name)
    return name if len(name) <= length else name[: length - 3] + "..."


def tallied(name: str, count: int) -> str:
    """Returns `name 1,200`, short enough for `listed`."""
    return f"{shortened(name, MAX_SHOWN_LENGTH - 10)} {count:,}"


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Returns `a, b, c and 7 more`: the first `limit` names, each `shortened`."""
    names = tuple(names)
    shown = ", ".join(map(shortened, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


def counted(count: int, noun: str) -> str:
    """Returns `1 file` or `1,200 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Returns a time that is an estimate, as `about 40 s`, `about 12 min` or `about 2.5 hours`."""
    if seconds >= 7200:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def one_line(error: BaseException) -> str:
    """Returns an error's message on one line, to continue a sentence; its type without one."""
    text = printable(" ".join(str(error).split()))[:MAX_MESSAGE_LENGTH].rstrip(".")
    return text or type(error).__name__
