"""Recognition of folders that this software wrote, which are never data."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipelines.data.config import DataConfig, parse_source

RUNS, LATEST = "runs", "latest"
COMPARISON = ("comparison.md", "comparison.csv", "comparison.png")
MAX_RECORD_BYTES = 64 * 2**20


def is_output(folder: Path) -> bool:
    """Returns whether a folder is a run, a sweep, a comparison, or a folder `runs` of runs.

    Its images (samples, reconstructions, plots) would become training data, and a run inside of its
    image folder would change its own data.
    """
    if folder.name == RUNS:
        inner = (Path(where, name) for where, names, _ in os.walk(folder) for name in names)
        if (folder / LATEST).is_symlink() or any(map(_is_run, inner)):
            return True
    return (
        _is_run(folder)
        or _is_record(folder / "sweep.json", {"format_version", "sweep"})
        or all((folder / name).is_file() for name in COMPARISON)
    )


def refuse_in_data(out: Path | None, config: DataConfig) -> None:
    """Checks that a new file or directory of images would not be read as an image of the data.

    Raises:
        ValueError: It would.
    """
    kind, folder = parse_source(config.source)
    if out is None or kind != "folder" or out.suffix == ".npz":
        return
    assert folder is not None
    place, images = out.resolve(), folder.resolve()
    if images not in place.parents:
        return
    within = [path for path in place.parents if images in path.parents]
    if not any(path.name.startswith(".") or is_output(path) for path in within):
        raise ValueError(
            f"{out} lies in {folder}, the images of the run, and would be taken for one of them: "
            "choose another place"
        )


def _is_run(folder: Path) -> bool:
    return _is_record(folder / "config.json", {"format_version", "run", "data"})


def _is_record(path: Path, keys: set[str]) -> bool:
    """Returns whether a file is a JSON object with `keys`; others may have the same name."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_RECORD_BYTES:
            return False
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and keys <= record.keys()
