"""Where a run's images are: recorded so that they are found from anywhere, and named again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.data.config import DataConfig, parse_source

EMBEDDED_SOURCE = "fashion-mnist-mini"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataLocation:
    """Where a run's images are now; they must be those it was trained on."""

    source: str | None = None
    """The run's images, if they have moved since: as in training, for example folder:PATH. None
    looks where the run was trained on them."""
    root: Path | None = None
    """Data folder of a named set, if it has moved; None takes that of the training."""

    def of(self, config: DataConfig) -> DataConfig:
        """`config` with the location that is given, and absolute paths."""
        source, root = self.source or config.source, self.root or config.root
        return with_absolute_paths(replace(config, source=source, root=root))


def with_absolute_paths(config: DataConfig) -> DataConfig:
    """`config` as it can be read from any working directory.

    The data folder stays as it is where no images are looked for in it.
    """
    kind, path = parse_source(config.source)
    if path is not None:
        return replace(config, source=f"{kind}:{path.resolve()}")
    if kind == EMBEDDED_SOURCE:
        return config
    return replace(config, root=config.root.expanduser().resolve())
