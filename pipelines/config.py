"""Everything that decides what a training run does. Imports no torch."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from pipelines.augmentation import AugmentationConfig
from pipelines.data.config import DataConfig
from pipelines.training.config import TrainingConfig
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.records import convert
from stage2_prior.config import PriorConfig, TransformerConfig

_T = typing.TypeVar("_T")
RecipeName = Literal[
    "fashion-mnist-mini", "fashion-mnist", "mnist", "cifar10", "folder-64", "smoke"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run: data, both stages, seed."""

    recipe: RecipeName = "fashion-mnist-mini"
    """The settings to start from; every other option changes one of them."""
    seed: int = 0
    """Seed of initial weights, data order and dropout, in [0, 2^63). Not of the data's splits,
    which never change."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images."""
    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)
    """Stage one: the VQ-VAE."""
    vqvae_training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of stage one."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Other views of the training images that the prior learns from."""
    prior: PriorConfig = field(default_factory=TransformerConfig)
    """Stage two: the prior over the codes."""
    prior_training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of stage two."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: The seed is out of range.
        """
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        return {name: _jsonable(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a config from `to_dict()`; every field must be there and none left over.

        Raises:
            ValueError: A field is missing, unknown or out of range.
        """
        values = with_newer_settings(values)
        _require_fields(cls, values)
        return cls(
            recipe=values["recipe"],
            seed=values["seed"],
            device=values["device"],
            data=_flat_from_dict(DataConfig, values["data"]),
            vqvae=convert(values["vqvae"], VQVAEConfig),
            vqvae_training=_flat_from_dict(TrainingConfig, values["vqvae_training"]),
            augmentation=_flat_from_dict(AugmentationConfig, values["augmentation"]),
            prior=convert(values["prior"], PriorConfig),  # type: ignore[arg-type]  # a union
            prior_training=_flat_from_dict(TrainingConfig, values["prior_training"]),
        )


def with_newer_settings(values: Any) -> Any:
    """A saved `RunConfig.to_dict()`, or a part of it, with what older versions did not write.

    Before there was a choice, all were trained with AdamW, and priors on the images as they are.
    """
    if not isinstance(values, Mapping):
        return values
    as_they_are = {"flip": False, "shift": 0, "first_share": 0.75, "last_share": 0.25}
    filled = {"augmentation": as_they_are, **values}
    for name in ("vqvae_training", "prior_training"):
        if isinstance(values.get(name), Mapping):
            filled[name] = {"optimizer": "adamw", **values[name]}
    return filled


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested dictionaries, as `--vqvae.width was 96, is now 128`."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            option = f"{prefix}{name}".replace("_", "-")
            found.append(f"--{option} was {before}, is now {after}")
    return found


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _jsonable(v) for name, v in value.items()}
    if isinstance(value, tuple):
        return [_jsonable(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _flat_from_dict(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass without nested ones from JSON values: lists become tuples, paths Paths."""
    _require_fields(cls, values)
    hints = typing.get_type_hints(cls)
    converted = {
        name: tuple(value)
        if isinstance(value, list)
        else Path(value)
        if value is not None and hints[name] is Path
        else value
        for name, value in values.items()
    }
    return cls(**converted)


def _require_fields(cls: type[Any], values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"a saved {cls.__name__} must be an object, got {values!r}")
    expected = {f.name for f in fields(cls)}
    if expected != values.keys():
        raise ValueError(
            f"a saved {cls.__name__} must have exactly the fields of this version, but "
            f"{sorted(expected ^ values.keys())} are missing or unknown: "
            "use the version of the software that wrote it"
        )
