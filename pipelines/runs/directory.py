"""The directory of one training run, and `latest`, which names the newest one.

config.json           every setting, resolved, with the data's shape and fingerprint
vqvae/  prior/        the models
codes/                the code dump
checkpoints/          what --resume goes on from
metrics.jsonl         all metrics, one JSON object per line
tensorboard/          the same for TensorBoard, if it is installed
reconstructions.png   test images above their reconstructions
samples.png           samples of the prior
sampling_tuning.json  sampling settings chosen on the validation split
report.html           the report
evaluation.json  evaluation.md  codebook/   of other commands
.lock  .lock.owner    while it is written
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.data_record import DataRecord
from pipelines.files.atomic import atomic_path, is_empty, remove_partial
from pipelines.files.ownership import LOCK_FILES, owned
from pipelines.files.records import read_record, write_record
from pipelines.runs.changes import changed_data, changed_settings
from pipelines.runs.config import RunConfig

FORMAT_VERSION = 3
RUNS = Path("runs")
LATEST = RUNS / "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class _RunFile:
    """The content of config.json."""

    run: RunConfig
    data: DataRecord


class RunDirectory:
    """Paths of a run and its config file."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        # It may name another run before a long command ends: follow it once.
        if path.name == LATEST.name and path.is_symlink():
            path = path.parent / path.readlink()
        elif path.name == LATEST.name and path.is_file():
            path = path.parent / os.fsdecode(path.read_bytes().strip())
        self.path = path
        self.config_file = path / "config.json"
        self.vqvae = path / "vqvae"
        self.codes = path / "codes"
        self.prior = path / "prior"
        self.checkpoints = path / "checkpoints"  # one sub-directory per stage
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.reconstructions = path / "reconstructions.png"
        self.samples = path / "samples.png"
        self.tuning = path / "sampling_tuning.json"
        self.report = path / "report.html"

    @property
    def option(self) -> str:
        """The option `--run PATH`, quoted as a shell takes it."""
        return f"--run {shlex.quote(self.path.as_posix())}"

    @property
    def results(self) -> tuple[Path, ...]:
        """All final outputs of `train_all`."""
        models = (self.vqvae, self.codes, self.prior)
        return (*models, self.reconstructions, self.samples, self.report)

    def has_results(self) -> bool:
        """Checks if anything was trained."""
        return any(path.exists() for path in self.results) or self._is_in_training("*")

    def owned(self, activity: str, *, take_turns: bool = False) -> AbstractContextManager[None]:
        """Keeps other processes from writing into the run; see `owned`."""
        return owned(self.path, activity, take_turns=take_turns)

    def begin(self, config: RunConfig, data: DataRecord | None = None) -> None:
        """Makes the directory, or re-opens the run in it, and records the settings of this start.

        Call the matching check first. Without `data` the recorded ones are kept.
        """
        content = _RunFile(run=config, data=self.data() if data is None else data)
        remove_partial(self.path)
        if not self.config_file.exists() or content != self._read():
            write_record(self.config_file, "run", FORMAT_VERSION, content)

    def check_prior(self, config: RunConfig, *, resume: bool) -> None:
        """Refuses to train a prior over another one, and changes nothing.

        With `resume` a prior in training goes on; without one, a new one begins.
        """
        if resume:
            self.check(config, resume=True)
        elif path := self.any_prior():
            raise FileExistsError(
                f"a new prior is to be trained, but {path} exists: add --resume to go on with "
                "it, or remove it to begin again"
            )

    def check(self, config: RunConfig, data: DataRecord | None = None, *, resume: bool) -> None:
        """Refuses a directory that cannot take the run, and changes nothing.

        A directory in which nothing was trained yet takes any run. `data` is None while unread.

        Raises:
            FileExistsError: There is a run and `resume` is False, or there is something else.
            ValueError: The run that is there has other settings or data, or a damaged config.
        """
        if not self.config_file.exists():
            if os.path.lexists(self.path) and not is_empty(self.path, LOCK_FILES):
                raise FileExistsError(
                    f"a run needs a new or empty directory, but {self.path} holds something else: "
                    "name another with --out"
                )
        elif not self.has_results():
            self._read()  # refuses a config of something else
        elif not resume:
            raise FileExistsError(
                f"a new run needs a new directory, but {self.path} holds a run: add --resume to go "
                "on with it, or name another with --out"
            )
        elif changed := self._changes(config, data):
            raise ValueError(
                f"to resume {self.path} the settings must be those it was started with, but "
                f"{'; '.join(changed)}: repeat the original options or begin another run"
                + self._training_further(changed)
            )

    def config(self) -> RunConfig:
        """Reads the settings of the last start, of the run or of a part that was run alone."""
        return self._read().run

    def data(self) -> DataRecord:
        """Reads the record of the run's data."""
        return self._read().data

    def any_prior(self) -> Path | None:
        """A prior, finished or in training."""
        if self.prior.exists():
            return self.prior
        in_training = self._is_in_training(self.prior.name)
        return self.checkpoints / self.prior.name if in_training else None

    def mark_latest(self) -> None:
        """Makes `latest` in the folder of runs name this run, if the folder is called `runs`.

        Names are taken as given: the folder, or the run in it, may be a link to another disk. Where
        symbolic links cannot be made, as by most users of Windows, `latest` is a file that holds
        the run's name. Failing is no error.
        """
        path = self.path.absolute()
        if path.parent.name != RUNS.name:
            return
        link = path.with_name(LATEST.name)
        if link.is_dir() and not link.is_symlink():
            return  # a user's own directory of that name stays
        with suppress(OSError), atomic_path(link) as partial:
            try:
                partial.symlink_to(path.name, target_is_directory=True)
            except (OSError, NotImplementedError):
                partial.write_bytes(os.fsencode(path.name))

    def _read(self) -> _RunFile:
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"a run directory is required, but {self.config_file} does not exist: name a run "
                "with --run, or train one with `python -m pipelines.train_all`"
            )
        cure = "restore it, or train another run"
        return read_record(self.config_file, "run", FORMAT_VERSION, _RunFile, cure=cure)

    def _is_in_training(self, stage: str) -> bool:
        return any(self.checkpoints.glob(f"{stage}/step-*"))

    def _changes(self, config: RunConfig, data: DataRecord | None) -> list[str]:
        old = self.config()
        changed = changed_settings(old, config, with_prior=self.any_prior() is not None)
        if data is not None:
            changed += changed_data(self.data(), data, old, config)
        return changed

    def _training_further(self, changed: Sequence[str]) -> str:
        """Explains how to train a finished run for longer, if the number of epochs has changed."""
        wants_more = any(".epochs was" in difference for difference in changed)
        if not wants_more or not self.prior.exists():
            return ""
        return (
            "; to train this one further, begin one that starts from its weights, with "
            f"--start-from {shlex.quote(str(self.path))} and another --out"
        )
