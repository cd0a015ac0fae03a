"""`python -m pipelines.benchmark`: every part is reported, and nothing is written."""

import re

import pytest
from tiny_runs import command

from pipelines.benchmarks import quantizer, run_all

pytestmark = pytest.mark.slow


def test_benchmark_reports_every_part_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quantizer, "_SIZES", ((8, 4, 2),))
    monkeypatch.setattr(quantizer, "_MEMORY_SIZE", (16, 4, 2))
    command("benchmark", "--recipe", "smoke", "--repetitions", "1")
    printed = capsys.readouterr().out
    parts = ("vqvae training", "prior training", "sampling codes", "decoding", "N=8 K=4 D=2")
    for part in (*parts, "N=16 K=4 D=2"):
        assert part in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "shown", "left_out"),
    [("quantizer", "EMA quantizer", "training:"), ("stages", "training:", "EMA quantizer")],
)
def test_benchmark_of_one_part_leaves_the_other_out(part, shown, left_out, monkeypatch, capsys):
    monkeypatch.setattr(quantizer, "_SIZES", ((8, 4, 2),))
    monkeypatch.setattr(run_all, "benchmark_quantizer_memory", lambda: None)
    command("benchmark", "--recipe", "smoke", "--repetitions", "1", "--part", part)
    printed = capsys.readouterr().out
    assert shown in printed
    assert left_out not in printed


def test_memory_of_a_forward_is_that_of_one_block_and_not_of_all_distances(monkeypatch, capsys):
    # All distances: 512 MB. A block of scores: 4 MB; the rest is what libraries come to hold.
    monkeypatch.setattr(quantizer, "_MEMORY_SIZE", (32768, 4096, 2))
    quantizer.benchmark_quantizer_memory()
    printed = capsys.readouterr().out
    assert float(re.search(r"D=2: ([\d,]+) MB", printed)[1].replace(",", "")) < 128
    assert "all distances at once would take 537 MB" in printed


def test_benchmark_refuses_no_repetitions():
    with pytest.raises(ValueError, match="repetitions must be at least 1, got 0"):
        command("benchmark", "--repetitions", "0")
