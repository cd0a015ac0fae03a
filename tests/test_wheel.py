"""The wheel holds whole packages, and its commands run without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("stage1_vqvae", "stage2_prior", "pipelines")

pytestmark = pytest.mark.slow


def run(*arguments, cwd, **environment):
    """The standard output of a new Python that sees no network and no checkout."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PIP_NO_INDEX": "1", "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources: setuptools leaves its build in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=no_caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_every_file_of_the_packages(wheel):
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGES} < expected
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected


def test_commands_of_the_wheel_run_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    where = run(
        *("-c", "import pipelines; print(pipelines.__file__)"), cwd=tmp_path, PYTHONPATH=str(site)
    )
    assert Path(where.strip()).is_relative_to(site)
    text = run("-m", "pipelines.sample", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "python -m pipelines.sample" in text
    assert "--temperature" in text
