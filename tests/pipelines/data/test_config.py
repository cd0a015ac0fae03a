import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.data.config import DataConfig, parse_source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fashion-mnist-mini", ("fashion-mnist-mini", None)),
        ("folder:photos", ("folder", Path("photos"))),
        ("npz:a:b.npz", ("npz", Path("a:b.npz"))),
        ("folder:~/photos", ("folder", Path.home() / "photos")),
    ],
)
def test_parse_source_gives_kind_and_path(source, expected):
    assert parse_source(source) == expected


@pytest.mark.parametrize("source", ["folder", "folder:", "npz:"])
def test_config_refuses_a_path_source_without_path(source):
    with pytest.raises(ValueError, match=r"data\.source \w+ needs a path, got .*: write \w+:PATH"):
        DataConfig(source=source)


def test_config_suggests_the_nearest_source():
    with pytest.raises(ValueError, match=r"got 'cifar': did you mean cifar10\?"):
        DataConfig(source="cifar")


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("FOLDER:x", "folder:x"),
        ("Folder:a:B", "folder:a:B"),
        ("floder:x", "folder:x"),
        ("NPZ:x.npz", "npz:x.npz"),
        ("MNIST", "mnist"),
        ("CIFAR-10", "cifar10"),
    ],
)
def test_config_suggests_the_right_spelling(source, meant):
    with pytest.raises(ValueError, match=rf"got '{source}': did you mean {meant}\?"):
        DataConfig(source=source)


def test_config_refuses_no_megapixels():
    with pytest.raises(ValueError, match=r"data\.max_image_megapixels must be at least 1, got 0"):
        DataConfig(max_image_megapixels=0)


def test_config_suggests_folder_for_a_bare_path():
    with pytest.raises(ValueError, match=r"got '\./pics': for a folder write folder:\./pics"):
        DataConfig(source="./pics")


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_config_refuses_an_empty_image_size(size):
    with pytest.raises(ValueError, match=r"data\.image_size must be .* at least 1 pixel, got \("):
        DataConfig(image_size=size)


def test_config_refuses_other_channels():
    with pytest.raises(ValueError, match=r"data\.channels must be 1 \(gray\) or 3 \(RGB\), got 4"):
        DataConfig(channels=4)


@pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_config_refuses_a_fraction_outside_0_to_1(name, value):
    with pytest.raises(ValueError, match=rf"data\.{name} must lie strictly between 0 and 1, got"):
        DataConfig(**{name: value})


def test_config_refuses_a_limit_of_no_images():
    with pytest.raises(ValueError, match=r"data\.limit must be at least 1 image, got 0"):
        DataConfig(limit=0)


def test_config_refuses_negative_memory():
    with pytest.raises(ValueError, match=r"data\.max_memory_mib must be at least 0 MiB, got -1"):
        DataConfig(max_memory_mib=-1)


def test_config_describes_every_field():
    source = Path(sys.modules[DataConfig.__module__].__file__).read_text()
    body = source[source.index("class DataConfig") :]
    for field in dataclasses.fields(DataConfig):
        declaration = body[body.index(f"\n    {field.name}: ") + 1 :]
        assert declaration.split("\n")[1].startswith('    """'), field.name


def test_config_imports_nothing_heavy():
    code = (
        "import sys, pipelines.data.config;"
        "print([m for m in ('numpy', 'PIL', 'torch', 'torchvision') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
