"""Location of a run's images, independent of the working directory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.data.config import DataConfig, parse_source

EMBEDDED_SOURCE = "fashion-mnist-mini"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataLocation:
    """Current location of a run's images, which must be those it was trained on."""

    source: str | None = None
    """The run's images, if they have moved since: as in training, for example folder:PATH. None
    looks where the run was trained on them."""
    root: Path | None = None
    """Data folder of a named set, if it has moved; None takes that of the training."""

    def of(self, config: DataConfig) -> DataConfig:
        """Returns `config` with this location and absolute paths."""
        source, root = self.source or config.source, self.root or config.root
        return with_absolute_paths(replace(config, source=source, root=root))


def with_absolute_paths(config: DataConfig) -> DataConfig:
    """Returns `config` with absolute paths, except for a data folder that no images come from."""
    kind, path = parse_source(config.source)
    if path is not None:
        return replace(config, source=f"{kind}:{path.resolve()}")
    if kind == EMBEDDED_SOURCE:
        return config
    return replace(config, root=config.root.expanduser().resolve())
