import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.data.config import DataConfig, parse_source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fashion-mnist-mini", ("fashion-mnist-mini", None)),
        ("npz:a:b.npz", ("npz", Path("a:b.npz"))),
        ("folder:~/photos", ("folder", Path.home() / "photos")),
    ],
)
def test_parse_source_gives_kind_and_path(source, expected):
    assert parse_source(source) == expected


@pytest.mark.parametrize("background", ["white", "Teal", "#01aBcd"])
def test_background_is_a_name_or_six_digits(background):
    assert DataConfig(background=background).form.background == background


@pytest.mark.parametrize(
    ("background", "advice"),
    [("whit", r"did you mean white\?"), ("#fff", "#808080"), ("rgb(1,2,3)", ""), ("", "black")],
)
def test_background_of_no_colour_is_refused(background, advice):
    message = rf"data\.background .*#rrggbb, got {re.escape(background)}: .*{advice}"
    with pytest.raises(ValueError, match=message):
        DataConfig(background=background)


@pytest.mark.parametrize(
    ("source", "suggestion"),
    [
        ("folder", "folder:PATH"),
        ("npz:", "npz:PATH"),
        ("cifar", r"cifar10\?"),
        ("Folder:a:B", r"folder:a:B\?"),
        ("MNIST", r"mnist\?"),
        ("./pics", r"folder:\./pics"),
    ],
)
def test_config_refuses_another_source_with_a_suggestion(source, suggestion):
    with pytest.raises(ValueError, match=rf"data\.source .*'{source}': .*{suggestion}"):
        DataConfig(source=source)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", (4, 0)),
        ("image_size", (4, 4, 4)),
        ("channels", 4),
        ("validation_fraction", 0.0),
        ("validation_fraction", float("nan")),
        ("test_fraction", 1.0),
        ("limit", 0),
        ("max_memory_mib", -1),
        ("max_image_megapixels", 0),
    ],
)
def test_config_refuses_a_value_outside_its_range(name, value):
    with pytest.raises(ValueError, match=rf"data\.{name} must .*got {re.escape(str(value))}"):
        DataConfig(**{name: value})


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
