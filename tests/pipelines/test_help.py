"""`--help` of every command: whole, and quick because nothing heavy is imported."""

import ast
import inspect
import itertools
import json
import textwrap
from dataclasses import fields, is_dataclass
from typing import Annotated, get_type_hints

import pytest
import tyro
from tiny_runs import python

from pipelines.benchmark import BenchmarkOptions
from pipelines.dump_codes import DumpOptions
from pipelines.evaluate import EvaluateOptions
from pipelines.generation.options import InpaintOptions, ReconstructOptions, SampleOptions
from pipelines.inspect_codebook import InspectCodebookOptions
from pipelines.runs.options import TrainAllOptions, TrainOptions
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig
from pipelines.sweeps.options import SweepOptions
from pipelines.train_prior import TrainPriorOptions
from pipelines.tuning.options import TuneSamplingOptions

TRAIN = TrainOptions(run=RECIPES["fashion-mnist-mini"])
PRIOR = TrainPriorOptions(prior=TRAIN.run.prior, prior_training=TRAIN.run.prior_training)
OPTIONS = {
    "train_all": TrainAllOptions(run=TRAIN.run),
    "train_vqvae": TRAIN,
    "dump_codes": DumpOptions(),
    "train_prior": PRIOR,
    "sample": SampleOptions(),
    "inpaint": InpaintOptions(),
    "reconstruct": ReconstructOptions(),
    "inspect_codebook": InspectCodebookOptions(),
    "sweep": SweepOptions(sweep=SweepConfig(run=RECIPES["fashion-mnist-mini"])),
    "evaluate": EvaluateOptions(),
    "tune_sampling": TuneSamplingOptions(),
    "benchmark": BenchmarkOptions(run=TRAIN.run),
}
WITHOUT_PREFIX = ("run", "sweep", "settings", "sampling", "evaluation")
HEAVY = ("torch", "torchvision", "numpy", "PIL", "matplotlib", "tqdm", "safetensors", "einops")

(Suppressed,) = Annotated[int, tyro.conf.Suppress].__metadata__

SCRIPT = """
import contextlib, importlib, io, json, sys
name, *heavy = sys.argv[1:]
module = importlib.import_module(f"pipelines.{name}")
sys.argv = [name, "--help"]
text = io.StringIO()
try:
    with contextlib.redirect_stdout(text):
        module.run_command(module.main)
except SystemExit as leaving:
    status = leaving.code
print(json.dumps([status, text.getvalue(), [m for m in heavy if m in sys.modules]]))
"""


def leaves(options, prefix=""):
    """Every option as (name on the command line, description in the source)."""
    hints = get_type_hints(type(options), include_extras=True)
    for field in fields(options):
        if Suppressed in getattr(hints[field.name], "__metadata__", ()):
            continue
        value = getattr(options, field.name)
        name = f"{prefix}{field.name}".replace("_", "-")
        if is_dataclass(value):
            yield from leaves(value, "" if name in WITHOUT_PREFIX else f"{name}.")
        else:
            yield f"--{name}", descriptions(type(options))[field.name]


def descriptions(cls):
    """The help of each field, from its type or from the docstring below it."""
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for statement, after in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                found[statement.target.id] = after.value.value
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for argument in getattr(hint, "__metadata__", ()):
            found[name] = getattr(argument, "help", None) or found[name]
    return found


def letters(text):
    """`text` without the line breaks and frames that the help puts anywhere."""
    return "".join(text.replace("│", "").split())


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_and_explains_every_option_and_imports_nothing_heavy(command, tmp_path):
    ended = python("-c", SCRIPT, command, *HEAVY, cwd=tmp_path)
    assert ended.stderr == ""
    status, text, imported = json.loads(ended.stdout)
    assert (status, imported) == (0, [])
    options = list(leaves(OPTIONS[command]))
    # A switch is named with its opposite: `--resume, --no-resume`.
    unnamed = [n for n, _ in options if f"{n} " not in text and f"{n}, --" not in text]
    unexplained = [name for name, what in options if letters(what) not in letters(text)]
    assert (unnamed, unexplained) == ([], [])
