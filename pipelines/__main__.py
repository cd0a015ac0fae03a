"""`python -m pipelines`: list of the commands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def commands() -> Iterator[tuple[str, str]]:
    """Yields name and description of every command.

    The docstring of a command begins with its call and a colon, as this file's does. Modules are
    parsed and not imported, which would take seconds.
    """
    for path in sorted(Path(__file__).parent.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        command, _, description = docstring.partition("\n")[0].partition(": ")
        if command == f"`python -m pipelines.{path.stem}`":
            yield path.stem, description


def main() -> None:
    """Prints the list."""
    listed = list(commands())
    width = max(len(name) for name, _ in listed)
    lines = [f"  {name:{width}}  {description}" for name, description in listed]
    print("python -m pipelines.COMMAND [--help]\n", *lines, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
