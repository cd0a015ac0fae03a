import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from pipelines.data import svhn
from pipelines.data.svhn import load_svhn


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(svhn, "download", refuse)


def test_load_svhn_without_scipy_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match="pip install scipy"):
        load_svhn(tmp_path, may_download=True)


@pytest.fixture
def matlab(monkeypatch, tmp_path):
    """Stands in for scipy.io, which is not a dependency: files hold what the dict says."""
    contents = {}

    def loadmat(path, variable_names):
        assert variable_names == ["X", "y"]
        if path.name not in contents:
            raise ValueError("Unknown mat file type")
        return contents[path.name]

    modules = {"scipy": types.ModuleType("scipy"), "scipy.io": types.ModuleType("scipy.io")}
    modules["scipy.io"].loadmat = loadmat
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    for name in svhn.SVHN_FILES:
        (tmp_path / name).touch()
    return contents


def test_load_svhn_puts_the_images_first_and_ten_is_zero(tmp_path, matlab):
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    labels = np.array([[1], [10], [9], [2]], np.uint8)
    for name in svhn.SVHN_FILES:
        matlab[name] = {"X": pixels, "y": labels}
    given = load_svhn(tmp_path, may_download=False)
    assert given.test.labels.tolist() == [1, 0, 9, 2]
    for index in range(4):
        expected = np.moveaxis(pixels[..., index], -1, 0)
        np.testing.assert_array_equal(given.train.images[index], expected)


@pytest.mark.usefixtures("matlab")
def test_load_svhn_names_a_damaged_file(tmp_path):
    with pytest.raises(ValueError, match=r"train_32x32\.mat .*Unknown mat "):
        load_svhn(tmp_path, may_download=False)


def test_load_svhn_without_download_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(FileNotFoundError, match=rf"test_32x32\.mat.*{tmp_path}"):
        load_svhn(tmp_path, may_download=False)
