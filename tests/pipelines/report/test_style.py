"""The page's style: enough contrast in light, dark and print."""

import re
from importlib.resources import files

import pytest

STYLE = files("pipelines.report").joinpath("style.css").read_text(encoding="utf-8")


def schemes():
    """The colours of every `:root` block, by name of its media query."""
    found = {}
    for name, start in {
        "light": STYLE.index(":root"),
        "dark": STYLE.index("prefers-color-scheme: dark"),
        "print": STYLE.index("@media print"),
    }.items():
        block = STYLE[STYLE.index("{", STYLE.index(":root", start)) :]
        colours = re.findall(r"--(\w+): (#[0-9a-f]{6})", block[: block.index("}")])
        found[name] = dict(colours)
    return found


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_and_curves_have_the_contrast_of_wcag(scheme):
    colours = schemes()[scheme]
    for background in ("page", "panel"):
        for colour in ("ink", "muted", "accent", "second"):
            dark, light = sorted([luminance(colours[background]), luminance(colours[colour])])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (background, colour)


def test_every_scheme_sets_every_colour():
    names = [set(colours) for colours in schemes().values()]
    assert names[0] == names[1] == names[2]
    used = set(re.findall(r"var\(--(\w+)\)", STYLE)) - {"w", "s", "m", "l", "sans", "mono"}
    assert used <= names[0]


def test_style_is_valid_within_xml():
    assert not set(STYLE) & {"<", "&"}
