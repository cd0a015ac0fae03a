"""HTML as strings, well-formed as XML; only `text` and attributes are escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

# Not allowed in XML or UTF-8, but in names of folders.
_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_VOID = {"img", "meta", "circle", "line", "polyline"}


def text(value: object) -> str:
    """Escapes a value for an element or an attribute."""
    return html.escape(_IMPOSSIBLE.sub("\ufffd", str(value)))


def element(name: str, /, *content: str, **attributes: object) -> str:
    """Returns `<name key="value">content</name>`.

    Attributes are escaped; a trailing underscore is dropped, others become hyphens, and None leaves
    an attribute out.
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
    """Returns a paragraph."""
    return element("p", *content, class_=class_)


def section(key: str, title: str, *content: str) -> str:
    """Returns a section with a heading; "" without content."""
    if not any(content):
        return ""
    heading = element("h2", text(title), id=f"{key}-title")
    return element("section", heading, *content, id=key, aria_labelledby=f"{key}-title")


def scrolling(label: str, *content: str) -> str:
    """Returns a box that scrolls horizontally, also from the keyboard."""
    return element("div", *content, class_="scroll", role="region", aria_label=label, tabindex=0)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
) -> str:
    """Returns a table in a box that scrolls on narrow pages.

    Header and cells are fragments, and the first cell of a row is its header. Columns in `numbers`
    are aligned to the right.
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
    """Returns a list of names and values, both fragments; empty values are left out."""
    rows = [
        element("div", element("dt", name), element("dd", value)) for name, value in items if value
    ]
    return element("dl", *rows, class_="pairs") if rows else ""
