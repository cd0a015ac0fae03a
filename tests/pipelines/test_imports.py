"""Imports go one way: from the pipelines to the stages, and the trainer knows neither stage."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "stage1_vqvae": ("stage2_prior", "pipelines"),
    "stage2_prior": ("stage1_vqvae", "pipelines"),
    "pipelines/training": ("stage1_vqvae", "stage2_prior"),
    "pipelines/data": ("stage1_vqvae", "stage2_prior", "torch"),
}


def imports(path):
    """The full name of everything that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_does_not_import_what_uses_it(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.partition(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", ["stage1_vqvae", "stage2_prior"])
@pytest.mark.parametrize("forbidden", ["argparse", "tyro", "tqdm", "torchvision", "PIL"])
def test_stage_parses_no_arguments_shows_no_progress_and_reads_no_files_of_images(stage, forbidden):
    for path in (ROOT / stage).rglob("*.py"):
        assert forbidden not in {name.partition(".")[0] for name in imports(path)}, path
