"""Settings that a command line starts from: a run's, or a recipe's with other kinds of parts.

The kind of a part decides which options there are. So `argv` is searched for kinds before tyro
reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pipelines.cli.command import expand_user
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.runs.recipes import RECIPES
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    SINGLE_QUANTIZER_CONFIGS,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    kinds_with,
)
from stage2_prior.config import PRIOR_CONFIGS, PriorConfig

_QUANTIZER = "--vqvae.quantizer"


def option_value(argv: Sequence[str], name: str) -> str | None:
    """Returns the value of `--name value` or `--name=value`, the last of several."""
    value = None
    for i, argument in enumerate(argv):
        if argument == name and i + 1 < len(argv):
            value = argv[i + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def is_given(argv: Sequence[str], option: str) -> bool:
    """Returns whether `argv` has an option, in any of the forms that the parser takes."""
    part, _, name = option.replace("_", "-").rpartition(".")
    forms = (option, f"{part}.no-{name}")
    return any(argument.partition("=")[0].replace("_", "-") in forms for argument in argv)


def named_run(argv: Sequence[str]) -> tuple[RunDirectory, RunConfig]:
    """Returns the run that `--run` names, and its settings, the defaults of a command."""
    directory = RunDirectory(expand_user(Path(option_value(argv, "--run") or LATEST)))
    if {"--help", "-h"}.intersection(argv) and not directory.config_file.exists():
        return directory, RunConfig()
    return directory, directory.config()


def recipe_defaults(argv: Sequence[str]) -> RunConfig:
    """Returns the recipe that `argv` names, with the kinds that it names.

    The parser refuses a recipe that does not exist.
    """
    config = RECIPES.get(option_value(argv, "--recipe") or "", RECIPES["fashion-mnist-mini"])
    quantizer = _with_quantizer_kind(config.vqvae.quantizer, argv)
    _refuse_options_of_other_kinds(quantizer, argv)
    return replace(
        config,
        vqvae=replace(config.vqvae, quantizer=quantizer),
        prior=with_prior_kind(config.prior, argv),
    )


def with_prior_kind(config: PriorConfig, argv: Sequence[str]) -> PriorConfig:
    """Converts `config` to the kind of prior in `argv`; shared settings keep their values."""
    prior: PriorConfig = _of_kind(config, PRIOR_CONFIGS, argv, "--prior.kind")
    return prior


def _with_quantizer_kind(config: QuantizerConfig, argv: Sequence[str]) -> QuantizerConfig:
    quantizer: QuantizerConfig = _of_kind(config, QUANTIZER_CONFIGS, argv, f"{_QUANTIZER}.kind")
    if not isinstance(quantizer, ResidualConfig | ProductConfig):
        return quantizer
    option = f"{_QUANTIZER}.base.kind"
    base = _of_kind(quantizer.base, SINGLE_QUANTIZER_CONFIGS, argv, option)
    if isinstance(quantizer, ResidualConfig) and getattr(base, "cosine", False):
        base = replace(base, cosine=False)  # residuals have lengths, whatever the kind's default
    if isinstance(quantizer, ResidualConfig):
        return replace(quantizer, base=base)
    return replace(quantizer, base=base, codebook_dim=quantizer.groups * base.codebook_dim)


def _refuse_options_of_other_kinds(quantizer: QuantizerConfig, argv: Sequence[str]) -> None:
    """Says to which kinds an option of quantizers belongs where it does not go with this one."""
    parts: dict[str, Any] = {_QUANTIZER: quantizer}
    if isinstance(quantizer, ResidualConfig | ProductConfig):
        parts[f"{_QUANTIZER}.base"] = quantizer.base
    for prefix, config in parts.items():
        own = {f.name for f in fields(config)}
        for argument in argv:
            option = argument.partition("=")[0]
            if not option.startswith(f"{prefix}."):
                continue
            name = option.removeprefix(f"{prefix}.").replace("-", "_").removeprefix("no_")
            others = kinds_with(name)
            if name not in own and others:
                raise ValueError(
                    f"{option} does not go with {prefix}.kind {config.kind}: it is an option of "
                    f"{', '.join(others)}"
                )


def _of_kind(config: Any, kinds: Mapping[str, type[Any]], argv: Sequence[str], option: str) -> Any:
    """Converts `config` to the kind in `argv`; keeps shared settings that are no defaults."""
    kind = option_value(argv, option)
    if kind is None or kind == config.kind:
        return config
    if kind not in kinds:
        raise ValueError(f"{option} must be one of {', '.join(kinds)}, got {kind}")
    target, defaults = kinds[kind], type(config)()
    chosen = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if getattr(config, f.name) != getattr(defaults, f.name)
    }
    shared = {f.name for f in fields(target)} - {"kind"}
    return target(**{name: value for name, value in chosen.items() if name in shared})
