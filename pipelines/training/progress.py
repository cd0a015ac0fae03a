"""Progress display: a bar on a terminal, lines at intervals in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Never, TextIO

from tqdm import tqdm


class Progress:
    """Progress display of a training; this one shows nothing."""

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Starts the display of `phase` at `images_seen` of `total_images`."""

    def advance(self, images: int) -> None:
        """Adds trained images."""

    def show(self, metrics: Mapping[str, float]) -> None:
        """Updates the displayed metrics; the others stay."""

    def close(self) -> None:
        """Ends the display, also after an interruption."""


class BarProgress(Progress):
    """tqdm bar of images, images per second, time left and metrics, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Never] | None = None
        self._metrics: dict[str, float] = {}

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Shows the bar."""
        self._metrics.clear()
        self._bar = tqdm(
            desc=phase,
            total=total_images,
            initial=images_seen,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            file=self._stream,
        )

    def advance(self, images: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(images)

    def show(self, metrics: Mapping[str, float]) -> None:
        """Writes the metrics after the bar."""
        self._metrics |= metrics
        if self._bar is not None:
            self._bar.set_postfix_str(format_metrics(self._metrics), refresh=False)

    def close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LineProgress(Progress):
    """Lines of the same content, one every `interval` seconds or later.

    For a file or a pipe, where a bar would write thousands of lines.
    """

    def __init__(self, stream: TextIO, interval: float = 30.0) -> None:
        self._stream = stream
        self._interval = interval
        self._metrics: dict[str, float] = {}

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Starts the clock."""
        self._phase, self._total = phase, total_images
        self._first = self._images = images_seen
        self._start = self._last_line = time.monotonic()
        self._metrics.clear()

    def advance(self, images: int) -> None:
        """Writes a line once the interval is over."""
        self._images += images
        now = time.monotonic()
        if now - self._last_line >= self._interval:
            self._last_line = now
            self._write(now - self._start)

    def show(self, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics for the next line."""
        self._metrics |= metrics

    def _write(self, seconds: float) -> None:
        rate = (self._images - self._first) / seconds
        left = tqdm.format_interval((self._total - self._images) / rate)
        self._stream.write(
            f"{self._phase}: {self._images:,} of {self._total:,} images, {rate:,.0f} images/s, "
            f"{left} left, {format_metrics(self._metrics)}\n"
        )
        self._stream.flush()


def progress_for(stream: TextIO | None = None) -> Progress:
    """Returns a bar if `stream` (None: standard error) is a terminal, else lines.

    Nothing is shown without standard error, as in a program without a console.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return Progress()
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Returns `loss 0.0231, bits_per_code 5.79`, with four significant digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
