"""The directory of one training run: where everything lies, and which run is the latest.

config.json           every setting, resolved, with the data's shape and fingerprint
vqvae/  prior/        the models
codes/                the code dump
checkpoints/          what --resume goes on from
metrics.jsonl         all figures
reconstructions.png  samples.png
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.atomic_files import write_text
from pipelines.config import RunConfig, differences

FORMAT_VERSION = 1
RUNS = Path("runs")
LATEST = RUNS / "latest"


class RunDirectory:
    """Paths of a run and its config file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """`config.json`."""
        return self.path / "config.json"

    @property
    def vqvae(self) -> Path:
        """Stage one's model."""
        return self.path / "vqvae"

    @property
    def codes(self) -> Path:
        """The code dump."""
        return self.path / "codes"

    @property
    def prior(self) -> Path:
        """Stage two's model."""
        return self.path / "prior"

    @property
    def checkpoints(self) -> Path:
        """One sub-directory per stage."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """All figures, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's files, where that package is installed."""
        return self.path / "tensorboard"

    @property
    def reconstructions(self) -> Path:
        """Test images above their reconstructions."""
        return self.path / "reconstructions.png"

    @property
    def samples(self) -> Path:
        """Images drawn from the prior."""
        return self.path / "samples.png"

    def begin(self, config: RunConfig, data: Mapping[str, Any], *, resume: bool) -> None:
        """Makes the directory and its config, or checks that an earlier one is the same.

        Args:
            config: The run's settings.
            data: What was found in the data: shape, classes, sizes, fingerprint (JSON-ready).
            resume: Whether to go on with a run that is there; without one, a new run begins.

        Raises:
            FileExistsError: There is a run (or anything else) and `resume` is False.
            ValueError: The run that is there has other settings or data.
        """
        record = {"format_version": FORMAT_VERSION, "run": config.to_dict(), "data": dict(data)}
        if self.config_file.exists() and resume:
            # The device may change between stop and resume; everything else makes another run.
            old, new = self._read(), record
            changed = differences(
                {**old["run"], "device": None}, {**new["run"], "device": None}
            ) + differences(old["data"], new["data"], "data ")
            if changed:
                raise ValueError(
                    f"to resume {self.path} the settings must be those it was started with, but "
                    f"{'; '.join(changed)}: repeat the original options or choose another --out"
                )
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(
                f"a new run needs a new directory, but {self.path} exists: add --resume to go on "
                "with it, or name another with --out"
            )
        write_text(self.config_file, json.dumps(record, indent=2) + "\n")

    def config(self) -> RunConfig:
        """The settings the run was started with.

        Raises:
            FileNotFoundError: This is no run directory.
            ValueError: Its config is damaged or of another version.
        """
        return RunConfig.from_dict(self._read()["run"])

    def data(self) -> dict[str, Any]:
        """What was found in the data; see `begin`."""
        return dict(self._read()["data"])

    def mark_latest(self) -> None:
        """Makes `latest` in the folder of runs name this run, if the folder is called `runs`."""
        if self.path.resolve().parent.name != RUNS.name:
            return
        link = self.path.resolve().parent / LATEST.name
        if link.exists() and not link.is_symlink():
            return  # a user's own directory of that name stays
        partial = link.with_name(f".latest.partial-{os.getpid()}")
        partial.symlink_to(self.path.resolve().name, target_is_directory=True)
        partial.replace(link)

    def _read(self) -> dict[str, Any]:
        if not self.config_file.exists():
            raise FileNotFoundError(
                f"a run directory is required, but {self.config_file} does not exist: name a run "
                "with --run, or train one with `python -m pipelines.train_all`"
            )
        try:
            record = json.loads(self.config_file.read_text(encoding="utf-8"))
            version = record["format_version"]
            if not isinstance(record["run"], dict) or not isinstance(record["data"], dict):
                raise TypeError("`run` and `data` must be objects")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.config_file} is damaged ({error}): restore it") from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{self.config_file} has format version {version}, but this version of the "
                f"software reads {FORMAT_VERSION}: use the version that wrote it"
            )
        return dict(record)
