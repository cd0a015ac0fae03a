"""What commands print. Imports neither torch nor tyro."""

from __future__ import annotations

from pipelines.training.launch import process_rank


def say(text: str) -> None:
    """Prints a line for the user, from one process of a run only."""
    if process_rank() == 0:
        print(text, flush=True)  # noqa: T201 - commands print here and nowhere else
