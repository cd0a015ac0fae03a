"""The README's Python code runs as it stands, on a tiny run."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[2] / "README.md"


def test_python_code_gives_what_its_comments_say(rgb_run, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(rgb_run.parents[1])  # where `runs/latest` is
    names = {}
    exec(code, names)
    assert names["images"].shape == (64, 3, 8, 10)
    assert names["images"].dtype == torch.uint8
    assert [grid.shape for grid in names["codes"]] == [(64, 2, 3)]
    assert names["codes"][0].dtype == torch.int64
    assert names["nats"].shape == (64,)
    assert (names["nats"] < 0).all()
