"""Who may import whom, and what no file may do, read from the source."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("stage1_vqvae", "stage2_prior")
PACKAGES = (*STAGES, "pipelines")
MAY_NOT_IMPORT = {
    "stage1_vqvae": {"stage2_prior", "pipelines"},
    "stage2_prior": {"stage1_vqvae", "pipelines"},
    "pipelines/training": set(STAGES),
    "pipelines/data": {*STAGES, "torch"},
}
# Loaders that run code from the file they read.
CODE_RUNNING_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal"}
CODE_RUNNING_MODULES |= {"shelve"}
CODE_RUNNING_CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.jit.save"}
COMMANDS = [path for path in sorted((ROOT / "pipelines").glob("*.py")) if path.stem[:2] != "__"]
# FID's published weights have no other form; `weights_only` makes `torch.load` refuse code.
READS_PUBLISHED_WEIGHTS = ROOT / "pipelines/evaluation/metrics/feature_networks.py"


def sources(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    return files


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imported_names(file):
    """Full names of everything that a file imports, wherever in the file: `torch.load`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used_names(file):
    """Dotted names in a file, as written: `torch.load`, `print`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)


def packages(file):
    return {name.partition(".")[0] for name in imported_names(file)}


def module_name(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_imports_go_one_way(folder):
    wrong = {str(f): packages(f) & MAY_NOT_IMPORT[folder] for f in sources(folder)}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_no_files_import_each_other_in_a_circle():
    # Wherever the import stands: in a function, or for type checkers only.
    files = {module_name(file): file for package in PACKAGES for file in sources(package)}
    imported = {
        name: {n if n in files else n.rpartition(".")[0] for n in imported_names(file)} & {*files}
        for name, file in files.items()
    }
    TopologicalSorter(imported).prepare()  # raises CycleError, which names a circle


def test_every_file_at_the_top_of_pipelines_is_a_command():
    assert COMMANDS
    for file in COMMANDS:
        command = tree(file)
        assert ast.get_docstring(command).startswith(f"`python -m {module_name(file)}`: "), file
        assert any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in command.body), file


def test_nothing_imports_a_command():
    commands = {module_name(file) for file in COMMANDS}
    for file in (f for package in PACKAGES for f in sources(package)):
        imported = {part for n in imported_names(file) for part in (n, n.rpartition(".")[0])}
        assert not imported & commands, file


@pytest.mark.parametrize("stage", STAGES)
def test_stage_neither_prints_nor_parses_arguments(stage):
    for file in sources(stage):
        assert not packages(file) & {"argparse", "tyro", "tqdm"}, file
        assert not set(used_names(file)) & {"print", "input", "sys.argv", "sys.stdout.write"}, file


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reads_no_images(stage):
    for file in sources(stage):
        assert not packages(file) & {"PIL", "torchvision"}, file


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_pickled(package):
    for file in sources(package):
        assert not packages(file) & CODE_RUNNING_MODULES, file
        names = {*imported_names(file), *used_names(file)}
        allowed = {"torch.load"} if file == READS_PUBLISHED_WEIGHTS else set()
        assert not names & CODE_RUNNING_CALLS - allowed, file


def test_the_one_file_that_is_no_safetensors_is_read_without_running_code():
    calls = [
        ast.unparse(node)
        for node in ast.walk(tree(READS_PUBLISHED_WEIGHTS))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert len(calls) == 1
    assert "weights_only=True" in calls[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_numpy_never_unpickles(package):
    for file in sources(package):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", file


@pytest.mark.parametrize(
    "name", ["artifact.py", "atomic_directory.py", "records.py", "safetensors_reader.py"]
)
def test_both_stages_carry_the_same_file(name):
    # A copy each, so that a stage can be used without the other.
    first, second = ((ROOT / stage / name).read_text("utf-8") for stage in STAGES)
    assert first.replace(*STAGES) == second


@pytest.mark.parametrize(
    ("source", "imports", "uses"),
    [
        ("import torch.nn as nn\nnn.load()", {"torch.nn"}, {"nn.load", "nn"}),
        ("def f():\n    from torch import load as x", {"torch.load"}, set()),
        ("torch.load(p)", set(), {"torch.load", "torch", "p"}),
    ],
)
def test_rules_see_every_form_of_import_and_use(tmp_path, source, imports, uses):
    # Otherwise the tests above could not fail.
    file = tmp_path / "source.py"
    file.write_text(source, encoding="utf-8")
    assert set(imported_names(file)) == imports
    assert set(used_names(file)) == uses
