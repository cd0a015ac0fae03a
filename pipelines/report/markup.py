"""HTML as strings, well-formed as XML: escaped text, elements, tables.

Functions take and give fragments that are already HTML; only `text` turns what a user wrote into
HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# What XML and UTF-8 cannot hold; names of folders can.
_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_VOID = {"img", "meta", "circle", "line", "polyline"}


def text(value: object) -> str:
    """Any value as text that stands for itself, in an element as in an attribute."""
    return html.escape(_IMPOSSIBLE.sub("\ufffd", str(value)))


def element(name: str, /, *content: str, **attributes: object) -> str:
    """`<name key="value">content</name>`.

    Args:
        name: Of the element.
        content: Fragments; an element without an end tag takes none.
        attributes: Escaped here. `class_` and `for_` lose their underscore, others turn into
            hyphens; None leaves an attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not content:
        return f"<{name}{written} />"
    return f"<{name}{written}>{''.join(content)}</{name}>"


def paragraph(*content: str, class_: str | None = None) -> str:
    """A paragraph of fragments."""
    return element("p", *content, class_=class_)


def section(key: str, title: str, *content: str) -> str:
    """A part of the page with a heading; nothing where it has no content."""
    if not any(content):
        return ""
    heading = element("h2", text(title), id=f"{key}-title")
    return element("section", heading, *content, id=key, aria_labelledby=f"{key}-title")


def scrolling(label: str, *content: str) -> str:
    """A box that scrolls sideways, also from the keyboard, so that the page never does."""
    return element("div", *content, class_="scroll", role="region", aria_label=label, tabindex=0)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
) -> str:
    """A table in a box of its own that scrolls where the page is narrow.

    Args:
        caption: What it shows, plain text.
        header: A fragment per column.
        rows: A fragment per cell; the first cell names its row.
        numbers: Columns that hold numbers, set to the right.
    """

    def style(column: int) -> str | None:
        return "number" if column in numbers else None

    head = [element("th", cell, scope="col", class_=style(i)) for i, cell in enumerate(header)]
    body = []
    for first, *others in rows:
        cells = [element("td", cell, class_=style(i)) for i, cell in enumerate(others, 1)]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    whole = element(
        "table",
        element("caption", text(caption)),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return scrolling(caption, whole)


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Names and their values; both are fragments."""
    rows = [
        element("div", element("dt", name), element("dd", value)) for name, value in items if value
    ]
    return element("dl", *rows, class_="pairs") if rows else ""
