"""The directory of one training run: where everything lies, and which run is the latest.

config.json           every setting, resolved, with the data's shape and fingerprint
vqvae/  prior/        the models
codes/                the code dump
checkpoints/          what --resume goes on from
metrics.jsonl         all figures
reconstructions.png  samples.png
report.html           one page that shows the run
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.atomic_files import atomic_path, is_empty, remove_partial
from pipelines.config import RunConfig, differences
from pipelines.data.data_record import DataRecord
from pipelines.files.records import read_record, to_json, write_record

FORMAT_VERSION = 2
RUNS = Path("runs")
LATEST = RUNS / "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class _RunFile:
    """What config.json holds."""

    run: RunConfig
    data: DataRecord


class RunDirectory:
    """Paths of a run and its config file."""

    def __init__(self, path: str | Path) -> None:
        # `latest` may name another run before a long command ends: follow it once.
        path = Path(path)
        if path.is_symlink():
            path = path.parent / path.readlink()
        elif path.name == LATEST.name and path.is_file():
            path = path.parent / os.fsdecode(path.read_bytes().strip())
        self.path = path

    @property
    def option(self) -> str:
        """`--run PATH`, quoted as a shell takes it."""
        return f"--run {shlex.quote(self.path.as_posix())}"

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

    @property
    def report(self) -> Path:
        """One page that shows the run."""
        return self.path / "report.html"

    def begin(self, config: RunConfig, data: DataRecord, *, resume: bool) -> None:
        """Makes the directory and its config, or re-opens the run that is there.

        Args:
            config: The run's settings.
            data: What was found in the data.
            resume: Whether to go on with a run that is there; without one, a new run begins.

        Raises:
            FileExistsError: As `check`.
            ValueError: As `check`.
        """
        self.check(config, data, resume=resume)
        remove_partial(self.path)
        if not self.config_file.exists():
            self._write(config, data)

    def begin_codes(self, config: RunConfig) -> None:
        """Records the settings that codes are dumped with.

        Raises:
            FileExistsError: As `check_codes`.
        """
        self.check_codes(config)
        remove_partial(self.path)
        if config != self.config():
            self._write(config, self.data())

    def check_codes(self, config: RunConfig) -> None:
        """Refuses what `begin_codes` would refuse, and changes nothing.

        Raises:
            FileExistsError: There is a prior that was trained with other settings.
        """
        path = self._any_prior()
        if path and config != self.config():
            raise FileExistsError(
                f"{path} was trained with other --augmentation options: dump the codes with "
                "those, or remove it first"
            )

    def begin_prior(self, config: RunConfig, *, resume: bool) -> None:
        """Records the settings of a prior trained alone, or checks that they are those recorded.

        Args:
            config: The run's settings, with the prior's as they are now.
            resume: Whether to go on with a prior in training; without one, a new one begins.

        Raises:
            FileExistsError: As `check_prior`.
            ValueError: As `check_prior`.
        """
        self.check_prior(config, resume=resume)
        remove_partial(self.path)
        if not resume:
            self._write(config, self.data())

    def check_prior(self, config: RunConfig, *, resume: bool) -> None:
        """Refuses what `begin_prior` would refuse, and changes nothing.

        Raises:
            FileExistsError: There is a prior, finished or in training, and `resume` is False.
            ValueError: The prior in training has other settings.
        """
        if resume:
            self.check(config, resume=True)
        elif path := self._any_prior():
            raise FileExistsError(
                f"a new prior is to be trained, but {path} exists: add --resume to go on with "
                "it, or remove it to begin again"
            )

    def check(self, config: RunConfig, data: DataRecord | None = None, *, resume: bool) -> None:
        """Refuses what `begin` would refuse, and changes nothing.

        Args:
            config: The run's settings.
            data: As for `begin`, or None while the data have not been read.
            resume: Whether to go on with a run that is there.

        Raises:
            FileExistsError: There is a run and `resume` is False, or there is something else.
            ValueError: The run that is there has other settings or data, or a damaged config.
        """
        if self.config_file.exists() and resume:
            # The device may change between stop and resume; everything else makes another run.
            old = self.config().to_dict()
            changed = differences(old | {"device": None}, config.to_dict() | {"device": None})
            if data is not None:
                found = differences(to_json(self.data()), to_json(data), "data ")
                changed += [difference.removeprefix("--") for difference in found]
            if changed:
                raise ValueError(
                    f"to resume {self.path} the settings must be those it was started with, but "
                    f"{'; '.join(changed)}: repeat the original options or begin another run"
                )
        elif self.config_file.exists():
            raise FileExistsError(
                f"a new run needs a new directory, but {self.path} holds a run: add --resume to go "
                "on with it, or name another with --out"
            )
        elif self.path.exists() and not is_empty(self.path):
            raise FileExistsError(
                f"a run needs a new or empty directory, but {self.path} holds something else: name "
                "another with --out"
            )

    def config(self) -> RunConfig:
        """The settings the run was started with, or its last part where parts were run alone.

        Raises:
            FileNotFoundError: This is no run directory.
            ValueError: Its config is damaged or of another version.
        """
        return self._read().run

    def data(self) -> DataRecord:
        """What was found in the data.

        Raises:
            FileNotFoundError: This is no run directory.
            ValueError: Its config is damaged or of another version.
        """
        return self._read().data

    def mark_latest(self) -> None:
        """Makes `latest` in the folder of runs name this run, if the folder is called `runs`.

        Where symbolic links cannot be made, as by most users of Windows, it is a file that holds
        the run's name. Failing is no error.
        """
        if self.path.resolve().parent.name != RUNS.name:
            return
        link = self.path.resolve().parent / LATEST.name
        if link.is_dir() and not link.is_symlink():
            return  # a user's own directory of that name stays
        name = self.path.resolve().name
        with suppress(OSError), atomic_path(link) as partial:
            try:
                partial.symlink_to(name, target_is_directory=True)
            except (OSError, NotImplementedError):
                partial.write_bytes(os.fsencode(name))

    def _read(self) -> _RunFile:
        if not self.config_file.is_file():
            raise FileNotFoundError(
                f"a run directory is required, but {self.config_file} does not exist: name a run "
                "with --run, or train one with `python -m pipelines.train_all`"
            )
        cure = "restore it, or train another run"
        return read_record(self.config_file, "run", FORMAT_VERSION, _RunFile, cure=cure)

    def _write(self, config: RunConfig, data: DataRecord) -> None:
        write_record(self.config_file, "run", FORMAT_VERSION, _RunFile(run=config, data=data))

    def _any_prior(self) -> Path | None:
        """A prior, finished or in training."""
        paths = (self.prior, self.checkpoints / self.prior.name)
        return next((path for path in paths if path.exists()), None)
