"""Settings that a recipe leaves to the images and the machine. Imports no torch.

`rules` decides them; here is what a choice is, and how choices are put into a run's settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from pipelines.runs.config import RunConfig

T = TypeVar("T")
Value: TypeAlias = int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Training images per second of each stage, over all processes."""

    vqvae: float
    prior: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What choices are made from."""

    num_train: int
    """Training images."""
    num_validation: int
    """Images of the validation split."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    device: str = "cpu"
    """Type of the device: cpu, cuda or mps."""
    num_processes: int = 1
    """Processes that train together."""
    hours: float = 1.0
    """Time that both trainings may take."""
    given: tuple[str, ...] = ()
    """Options that are not chosen, such as `--prior-training.epochs`."""
    speed: Speed | None = None
    """Of the chosen networks on this machine; None where it is not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A value for an option, and why."""

    option: str
    """As on the command line, e.g. `--vqvae.downsampling`."""
    value: Value
    reason: str
    """Part of a sentence, in the plan's brackets."""


Rule: TypeAlias = Callable[[Facts, RunConfig], Iterator[Choice]]


def choose(
    rules: Sequence[Rule], facts: Facts, config: RunConfig, left_open: Sequence[str]
) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Applies each rule to the settings that those before it have left.

    Only the options `left_open` are chosen, and only those that the kinds of quantizer and prior
    have. So a rule that reads `config` follows what the user gave.

    Returns:
        The settings, and the choices in them.
    """
    made: list[Choice] = []
    for rule in rules:
        fitting = [
            choice
            for choice in rule(facts, config)
            if choice.option in left_open and has_option(config, choice.option)
        ]
        config = with_values(config, {choice.option: choice.value for choice in fitting})
        made += fitting
    return config, tuple(made)


def has_option(config: RunConfig, option: str) -> bool:
    """Returns whether the settings have an option, with their kinds of quantizer and prior."""
    part: Any = config
    for name in _path(option):
        if not hasattr(part, name):
            return False
        part = getattr(part, name)
    return True


def value_of(config: RunConfig, option: str) -> Any:
    """Returns the value of an option."""
    part: Any = config
    for name in _path(option):
        part = getattr(part, name)
    return part


def with_values(config: RunConfig, values: Mapping[str, Value]) -> RunConfig:
    """Returns the settings with other values of some options, all changed at once."""
    return _replaced(config, {_path(option): value for option, value in values.items()})


def taken_from(run: RunConfig, config: RunConfig, options: Iterable[str]) -> dict[str, Value]:
    """Returns the values in `run` of those `options` that both settings have."""
    return {o: value_of(run, o) for o in options if has_option(run, o) and has_option(config, o)}


def describe_choices(choices: Sequence[Choice]) -> str:
    """Describes each choice with its reason in a line, one below the other."""
    rows = [(choice.option.removeprefix("--"), _text(choice.value)) for choice in choices]
    names, values = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"chosen: {name:{names}} {value:{values}} ({choice.reason})"
        for (name, value), choice in zip(rows, choices, strict=True)
    )


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _path(option: str) -> tuple[str, ...]:
    return tuple(option.removeprefix("--").replace("-", "_").split("."))


def _replaced(part: T, values: Mapping[tuple[str, ...], Value]) -> T:
    changed: dict[str, Any] = {}
    for name in dict.fromkeys(path[0] for path in values):
        inner = {path[1:]: value for path, value in values.items() if path[0] == name}
        changed[name] = inner[()] if () in inner else _replaced(getattr(part, name), inner)
    return replace(part, **changed)  # type: ignore[type-var]
