"""What the README and the pages of docs/ point to exists."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
COMMAND = re.compile(r"python -m (pipelines\.[a-z_]+)")  # in capitals a placeholder

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """The fragments that a page's headings can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    """Relative links of a page whose file or heading does not exist."""
    text = CODE.sub("`code`", page.read_text(encoding="utf-8"))
    for link in (found[0] or found[1] for found in LINK.findall(text)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def test_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "architecture.md"} <= {page.name for page in PAGES}


@each_page
def test_links_and_pictures_exist(page):
    assert list(broken_links(page)) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Some, heading\n[a](page.md#some-heading) [`b`](no.md) ![c](no.png)\n"
        "[d](#none) `[e](no)` [f](https://example.org/no)\n\n[g]: no.svg\n"
    )
    assert list(broken_links(page)) == ["no.md", "no.png", "#none", "no.svg"]


@each_page
def test_commands_exist(page):
    named = set(COMMAND.findall(page.read_text(encoding="utf-8")))
    assert {name for name in named if importlib.util.find_spec(name) is None} == set()


@each_page
def test_lines_are_at_most_120_characters(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120] == []


def test_readme_is_short():
    content = (ROOT / "README.md").read_bytes()
    assert len(content.splitlines()) <= 150
    assert len(content) <= 9 * 1024


def test_every_command_is_in_the_readme():
    table = re.findall(r"^\| (`\w+`.*?) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    listed = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    guard = 'if __name__ == "__main__":'
    commands = {
        path.stem
        for path in (ROOT / "pipelines").glob("*.py")
        if guard in path.read_text(encoding="utf-8")
    }
    assert commands - {"__main__"} <= listed


def test_citation_has_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation
