"""`--help` of every command: whole, and quick because nothing heavy is imported."""

import ast
import inspect
import itertools
import json
import textwrap
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
from tiny_runs import python

from pipelines.dump_codes import DumpOptions
from pipelines.evaluate import EvaluateOptions
from pipelines.generation.options import InpaintOptions, SampleOptions
from pipelines.inspect_codebook import InspectCodebookOptions
from pipelines.reconstruct import ReconstructOptions
from pipelines.runs.options import TrainOptions
from pipelines.runs.recipes import fashion_mnist_mini
from pipelines.sweeps.options import SweepOptions
from pipelines.train_prior import TrainPriorOptions
from pipelines.tuning.options import TuneSamplingOptions

TRAIN = TrainOptions(run=fashion_mnist_mini())
PRIOR = TrainPriorOptions(prior=TRAIN.run.prior, prior_training=TRAIN.run.prior_training)
OPTIONS = {
    "train_all": TRAIN,
    "train_vqvae": TRAIN,
    "dump_codes": DumpOptions(),
    "train_prior": PRIOR,
    "sample": SampleOptions(),
    "inpaint": InpaintOptions(),
    "reconstruct": ReconstructOptions(),
    "inspect_codebook": InspectCodebookOptions(),
    "sweep": SweepOptions(run=fashion_mnist_mini()),
    "evaluate": EvaluateOptions(),
    "tune_sampling": TuneSamplingOptions(),
}
WITHOUT_PREFIX = ("run", "settings", "sampling", "evaluation")
HEAVY = ("torch", "torchvision", "numpy", "PIL", "matplotlib", "tqdm", "safetensors", "einops")

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


@pytest.fixture(scope="module", params=OPTIONS)
def shown(request, tmp_path_factory):
    """A command with its exit status, its help text and the heavy modules it imported."""
    ended = python("-c", SCRIPT, request.param, *HEAVY, cwd=tmp_path_factory.mktemp("no-runs"))
    assert ended.stderr == ""
    status, text, imported = json.loads(ended.stdout)
    return request.param, status, text, imported


def leaves(options, prefix=""):
    """Every option as (name on the command line, description in the source)."""
    for field in fields(options):
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
            found[name] = argument.help or found[name]
    return found


def letters(text):
    """`text` without the line breaks and frames that the help puts anywhere."""
    return "".join(text.replace("│", "").split())


def test_help_exits_with_0(shown):
    _, status, _, _ = shown
    assert status == 0


def test_help_imports_nothing_heavy(shown):
    *_, imported = shown
    assert imported == []


def test_help_names_every_option(shown):
    command, _, text, _ = shown
    missing = [name for name, _ in leaves(OPTIONS[command]) if f"{name} " not in text]
    # A switch is named with its opposite: `--resume, --no-resume`.
    assert [name for name in missing if f"{name}, --" not in text] == []


def test_help_explains_every_option(shown):
    command, _, text, _ = shown
    text = letters(text)
    unexplained = [name for name, what in leaves(OPTIONS[command]) if letters(what) not in text]
    assert unexplained == []
