import io

import pytest

from pipelines.training import progress
from pipelines.training.progress import (
    BarProgress,
    LineProgress,
    Progress,
    format_metrics,
    progress_for,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set: `clock.now = 5.0`."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_metrics_are_shown_with_four_digits():
    assert format_metrics({"loss": 0.0231498, "steps": 12.0}) == "loss 0.02315, steps 12"


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere():
    assert isinstance(progress_for(Terminal()), BarProgress)
    assert isinstance(progress_for(io.StringIO()), LineProgress)


def test_progress_is_nothing_without_standard_error(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert isinstance(progress_for(), Progress)


def test_lines_have_rate_and_time_left_of_this_session(clock):
    stream = io.StringIO()
    lines = LineProgress(stream, interval=30.0)
    lines.start("vqvae", total_images=10_000, images_seen=4_000)
    lines.show({"loss": 0.5})
    clock.now = 40.0
    lines.advance(2_000)
    # 2,000 images in 40 s leave 4,000 images, or 80 s.
    assert stream.getvalue() == (
        "vqvae: 6,000 of 10,000 images, 50 images/s, 01:20 left, loss 0.5\n"
    )


def test_lines_keep_their_distance(clock):
    stream = io.StringIO()
    lines = LineProgress(stream, interval=30.0)
    lines.start("vqvae", total_images=1_000, images_seen=0)
    for second in range(1, 100):
        clock.now = float(second)
        lines.advance(1)
    assert stream.getvalue().count("\n") == 3


def test_bar_shows_phase_images_and_all_metrics():
    stream = Terminal()
    bar = BarProgress(stream)
    bar.start("prior", total_images=1_000, images_seen=250)
    bar.show({"loss": 0.5})
    bar.show({"bits_per_code": 5.79})
    bar.advance(250)
    bar.close()
    last = stream.getvalue().rsplit("\r", 1)[-1]
    assert last.startswith("prior:  50%")
    assert "500/1.00k" in last
    assert "loss 0.5, bits_per_code 5.79" in last


def test_bar_starts_without_the_metrics_of_the_phase_before():
    stream = Terminal()
    bar = BarProgress(stream)
    bar.start("vqvae", total_images=10, images_seen=0)
    bar.show({"mse": 0.5})
    bar.close()
    stream.truncate(0)
    bar.start("prior", total_images=10, images_seen=0)
    bar.show({"loss": 0.25})
    bar.close()
    assert "mse" not in stream.getvalue()
