"""The plot of a sweep: every run a point, every kind a marker, and the front a line."""

import math

import pytest
from PIL import Image

from pipelines.sweeps.plot import save_sweep_plot, sweep_plot
from pipelines.sweeps.row import SweepRow


def row(kind, size, bits, psnr, under_prior=None):
    values = {"bits_per_image": bits, "psnr": psnr}
    if under_prior is not None:
        values |= {"prior_bits_per_image": under_prior, "bits_per_code": 1.0}
    return SweepRow(kind=kind, codebook_size=size, values=values)


ROWS = [
    row("ema", 64, 294.0, 22.0),
    row("ema", 256, 392.0, 24.0),
    row("finite_scalar", 64, 294.0, 21.0),
    row("finite_scalar", 256, 392.0, 23.0),
]
WITH_PRIORS = [
    row("ema", 64, 294.0, 22.0, 250.0),
    row("ema", 256, 392.0, 24.0, 310.0),
    row("finite_scalar", 64, 294.0, 21.0, 200.0),
    ROWS[3],
]


def lines(axes):
    """x and y of every line of a panel by its label."""
    return {
        line.get_label(): (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.get_lines()
    }


def test_every_kind_has_its_runs_as_points_and_the_front_is_a_line():
    (axes,) = sweep_plot(ROWS).axes
    assert lines(axes) == {
        "Pareto front": ([294.0, 392.0], [22.0, 24.0]),
        "ema": ([294.0, 392.0], [22.0, 24.0]),
        "finite_scalar": ([294.0, 392.0], [21.0, 23.0]),
    }


def test_priors_have_a_second_panel_with_a_front_of_its_own():
    first, second = sweep_plot(WITH_PRIORS).axes
    assert lines(first) == lines(sweep_plot(ROWS).axes[0])
    assert lines(second) == {
        "Pareto front": ([200.0, 250.0, 310.0], [21.0, 22.0, 24.0]),
        "ema": ([250.0, 310.0], [22.0, 24.0]),
        "finite_scalar": ([200.0], [21.0]),
    }


def test_axes_say_what_they_show():
    first, second = sweep_plot(WITH_PRIORS).axes
    assert first.get_xlabel() == "bits per image before entropy coding"
    assert second.get_xlabel() == "bits per image under the prior"
    assert first.get_ylabel() == second.get_ylabel() == "PSNR on the test split, dB"


def test_kinds_differ_in_marker_and_keep_it_in_both_panels():
    kinds = [f"kind{i}" for i in range(10)]
    rows = [row(kind, 64, 10.0, i, 5.0 + i) for i, kind in enumerate(kinds)]
    rows[0] = row(kinds[0], 64, 10.0, 0.0)  # has no point in the second panel
    first, second = (
        {line.get_label(): line.get_marker() for line in axes.get_lines()}
        for axes in sweep_plot(rows).axes
    )
    assert len({first[kind] for kind in kinds}) == 10
    assert {kind: second[kind] for kind in kinds[1:]} == {kind: first[kind] for kind in kinds[1:]}
    assert kinds[0] not in second


def test_one_legend_names_the_front_and_every_kind():
    (legend,) = sweep_plot(WITH_PRIORS).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["Pareto front", "ema", "finite_scalar"]


def test_points_are_labelled_with_sizes_where_these_differ():
    (axes,) = sweep_plot(ROWS).axes
    labels = [(text.get_text(), tuple(map(float, text.xy))) for text in axes.texts]
    assert labels == [
        ("64", (294.0, 22.0)),
        ("256", (392.0, 24.0)),
        ("64", (294.0, 21.0)),
        ("256", (392.0, 23.0)),
    ]


def test_points_of_one_size_are_not_labelled():
    (axes,) = sweep_plot([ROWS[0], ROWS[2]]).axes
    assert list(axes.texts) == []


def test_failed_and_exact_runs_have_no_point():
    failed = SweepRow(kind="gumbel", codebook_size=64, failure="no")
    exact = row("product", 64, 294.0, math.inf)
    assert lines(sweep_plot([*ROWS, failed, exact]).axes[0]) == lines(sweep_plot(ROWS).axes[0])


@pytest.mark.parametrize("rows", [[], [SweepRow(kind="ema", codebook_size=4, failure="no")]])
def test_plot_without_points_says_so(rows):
    (axes,) = sweep_plot(rows).axes
    assert [text.get_text() for text in axes.texts] == ["no finished run yet"]


def test_saved_plot_is_a_picture_that_replaces_the_last_one(tmp_path):
    path = tmp_path / "new" / "sweep.png"
    save_sweep_plot(path, [])
    with Image.open(path) as image:
        narrow = image.width
    save_sweep_plot(path, WITH_PRIORS)
    with Image.open(path) as image:
        assert (image.format, image.width > narrow) == ("PNG", True)
    assert [p.name for p in path.parent.iterdir()] == ["sweep.png"]
