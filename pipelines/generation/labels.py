"""Labels as a user writes them: names or numbers of classes."""

from __future__ import annotations

import difflib
import unicodedata

from pipelines.files.names import listed, printable, shortened


def parse_label(text: str | None, class_names: tuple[str, ...]) -> int | None:
    """Finds the class that a name or a number means.

    A name comes first: the classes of folders called 1, 2 and 10 are numbered 0, 2 and 1. Among
    names the exact one comes first, then the only one that differs in upper and lower case alone.
    """
    if text is None:
        return None
    wanted = unicodedata.normalize("NFC", text)
    names = [unicodedata.normalize("NFC", name) for name in class_names]
    folded = [name.casefold() for name in names]
    found = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(folded) if name == wanted.casefold()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"label must name one class, but {shortened(text)} may mean "
            f"{listed(names[i] for i in found)}: write it as the class is written, or give its "
            "number"
        )
    # Without names the prior knows how many classes there are; more digits would fit no tensor.
    if text.isdecimal() and len(text) < 10 and (not names or int(text) < len(names)):
        return int(text)
    known = listed(names) or "no names are known, use a number"
    nearest = difflib.get_close_matches(wanted.casefold(), folded, n=1)
    suggestion = f": did you mean {names[folded.index(nearest[0])]}?" if nearest else ""
    raise ValueError(
        f"label must be a class name or number ({known}), got {shortened(text)}"
        f"{printable(suggestion)}"
    )
