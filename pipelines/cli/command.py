"""What every command shares: options from typed dataclasses, errors as one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from pipelines.cli.standard_streams import protect_standard_streams
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.runs.recipes import RECIPES, fashion_mnist_mini
from pipelines.training.launch import HAS_JOINED, num_processes, process_rank
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    SINGLE_QUANTIZER_CONFIGS,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    kinds_with,
)
from stage2_prior.config import PRIOR_CONFIGS, PriorConfig

T = TypeVar("T")

_QUANTIZER = "--vqvae.quantizer"

# Kinds of errors that a user's input or machine can cause; anything else is a bug and shows itself.
_USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


def parse(options: type[T], *, default: T | None = None, description: str | None = None) -> T:
    """Reads the command line into `options`, a dataclass whose docstrings are the help.

    Args:
        options: The dataclass.
        default: Values of options that are not given; None takes those of the class.
        description: Head of the help; None takes the docstring of the class.

    Leaves the process with a message and a non-zero status where an option is unknown (naming the
    nearest) or a value impossible. `~` in a path is the home directory, also where no shell sees
    it, as in `--out=~/run`.
    """
    module = sys.modules["__main__"].__spec__
    given = tyro.cli(
        options,
        prog=f"python -m {module.name}" if module else None,
        description=description or options.__doc__,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.AvoidSubcommands,),
    )
    expanded: T = _expanded(given)
    return expanded


def run_command(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and leaves the process; what a user can cause is one sentence, no traceback.

    Nothing that is printed can fail the command. Set TRACEBACK=1 in the environment to see where an
    error comes from.
    """
    protect_standard_streams()
    try:
        if num_processes() > 1:  # torch would bury our error below the stack of a lost connection
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        main()
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    except _USER_ERRORS as error:
        if os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"error: {_sentence(error)}\n")
        _leave(1)
    _leave(0)


def _leave(status: int) -> NoReturn:
    if HAS_JOINED.is_set():
        # gloo's threads now and then abort an interpreter that is being torn down (torch 2.15),
        # and torchrun would call a finished run failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def say(text: str) -> None:
    """Prints a line for the user, from one process of a run only."""
    if process_rank() == 0:
        print(text, flush=True)  # noqa: T201 - the one place where commands talk


def _sentence(error: Exception) -> str:
    """The message of an error on one line; of a system error, the file and the reason."""
    if isinstance(error, OSError) and error.strerror is not None:
        file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{file}{error.strerror}"
    return str(error).replace("\n", " ")


def _expanded(value: Any) -> Any:
    """Replaces `~` by the home directory in every path of (nested) options."""
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # noqa: PTH111 - keeps the ~ of an unknown user
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _expanded(getattr(value, f.name)) for f in fields(value)})
    return value


def require_positive(options: Any, *names: str) -> None:
    """Makes sure that options which count something are at least 1.

    Raises:
        ValueError: One is not.
    """
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")


def option_value(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`, the last where it stands several times."""
    value = None
    for i, argument in enumerate(argv):
        if argument == name and i + 1 < len(argv):
            value = argv[i + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def named_run(argv: Sequence[str]) -> tuple[RunDirectory, RunConfig]:
    """The run that `--run` names, and its settings, which a command's options start from.

    Raises:
        FileNotFoundError: There is no such run; help needs none.
        ValueError: Its config is damaged or of another version.
    """
    directory = RunDirectory(_expanded(Path(option_value(argv, "--run") or LATEST)))
    if {"--help", "-h"}.intersection(argv) and not directory.config_file.exists():
        return directory, RunConfig()
    return directory, directory.config()


def recipe_defaults(argv: Sequence[str]) -> RunConfig:
    """The config that `argv` starts from: its recipe, with the kinds it names swapped in.

    The kind of a part decides which options there are, so it has to be known before the options
    can be read. A recipe that does not exist is left to the parser to refuse.

    Raises:
        ValueError: A kind does not exist, or an option belongs to other kinds of quantizers.
    """
    named = option_value(argv, "--recipe")
    config = next((make() for name, make in RECIPES.items() if name == named), fashion_mnist_mini())
    quantizer = _with_quantizer_kind(config.vqvae.quantizer, argv)
    _refuse_options_of_other_kinds(quantizer, argv)
    return replace(
        config,
        vqvae=replace(config.vqvae, quantizer=quantizer),
        prior=with_prior_kind(config.prior, argv),
    )


def with_prior_kind(config: PriorConfig, argv: Sequence[str]) -> PriorConfig:
    """`config` as the kind of prior that `argv` names; what was chosen for it keeps its value.

    Raises:
        ValueError: The kind does not exist.
    """
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
    """`config` as the kind that `argv` names, with what differs from its own kind's defaults."""
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
