"""Commands: options from typed dataclasses, errors as one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from pipelines.cli.standard_streams import protect_standard_streams
from pipelines.training.launch import HAS_JOINED, num_processes

T = TypeVar("T")

# Kinds of errors that a user's input or machine can cause; anything else is a bug and shows itself.
_USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)


def parse(options: type[T], *, default: T | None = None, description: str | None = None) -> T:
    """Reads the command line into `options`, a dataclass whose docstrings are the help.

    Leaves the process with a message and a non-zero status where an option is unknown (naming the
    nearest) or a value impossible. `~` in a path is the home directory, also where no shell sees
    it, as in `--out=~/run`. Without `description` the docstring of the class heads the help.
    """
    module = sys.modules["__main__"].__spec__
    given: T = expand_user(
        tyro.cli(
            options,
            prog=f"python -m {module.name}" if module else None,
            description=description or options.__doc__,
            default=tyro.MISSING_NONPROP if default is None else default,
            config=(tyro.conf.AvoidSubcommands,),
        )
    )
    return given


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


def _sentence(error: Exception) -> str:
    """Returns an error's message on one line; of a system error, the file and the reason."""
    if isinstance(error, OSError) and error.strerror is not None:
        file = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{file}{error.strerror}"
    return str(error).replace("\n", " ")


def expand_user(value: Any) -> Any:
    """Replaces `~` by the home directory in every path of (nested) options."""
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # noqa: PTH111 - keeps the ~ of an unknown user
    if isinstance(value, tuple):
        return tuple(map(expand_user, value))
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: expand_user(getattr(value, name)) for name in names})
    return value
