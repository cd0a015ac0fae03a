"""How a training shows that it lives: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Never, Protocol, TextIO

from tqdm import tqdm


class Progress(Protocol):
    """What the trainer tells while it runs."""

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """A training called `phase` begins, or goes on at `images_seen` of `total_images`."""
        ...

    def advance(self, images: int) -> None:
        """Another `images` have been trained on."""
        ...

    def show(self, figures: Mapping[str, float]) -> None:
        """The newest values of the figures that matter; those not named stay as they were."""
        ...

    def close(self) -> None:
        """The training is over, or was interrupted."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Does nothing."""

    def advance(self, images: int) -> None:
        """Does nothing."""

    def show(self, figures: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class BarProgress:
    """A tqdm bar: images done, images per second, time left, and the figures.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Never] | None = None
        self._figures: dict[str, float] = {}

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Draws the bar."""
        self._figures.clear()
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

    def show(self, figures: Mapping[str, float]) -> None:
        """Writes the figures behind the bar."""
        self._figures |= figures
        if self._bar is not None:
            self._bar.set_postfix_str(format_figures(self._figures), refresh=False)

    def close(self) -> None:
        """Leaves the bar as it is and ends its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LineProgress:
    """A line of the same content at most every `interval` seconds.

    Args:
        stream: A file or a pipe, where a bar would leave thousands of lines.
        interval: Seconds between two lines.
    """

    def __init__(self, stream: TextIO, interval: float = 30.0) -> None:
        self._stream = stream
        self._interval = interval
        self._figures: dict[str, float] = {}

    def start(self, phase: str, total_images: int, images_seen: int) -> None:
        """Writes nothing yet."""
        self._phase, self._total = phase, total_images
        self._first = self._images = images_seen
        self._start = self._last_line = time.monotonic()
        self._figures.clear()

    def advance(self, images: int) -> None:
        """Writes a line if the last one is long enough ago."""
        self._images += images
        now = time.monotonic()
        if now - self._last_line >= self._interval:
            self._last_line = now
            self._write(now - self._start)

    def show(self, figures: Mapping[str, float]) -> None:
        """Keeps the figures for the next line."""
        self._figures |= figures

    def close(self) -> None:
        """Writes nothing: the last line stands."""

    def _write(self, seconds: float) -> None:
        rate = (self._images - self._first) / seconds
        left = tqdm.format_interval((self._total - self._images) / rate)
        self._stream.write(
            f"{self._phase}: {self._images:,} of {self._total:,} images, {rate:,.0f} images/s, "
            f"{left} left, {format_figures(self._figures)}\n"
        )
        self._stream.flush()


def progress_for(stream: TextIO | None = None) -> Progress:
    """A bar where `stream` (None: standard error) is a terminal, lines where it is not.

    Nothing where there is no standard error, as in a program without a console.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return NoProgress()
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def format_figures(figures: Mapping[str, float]) -> str:
    """`loss 0.0231, bits_per_code 5.79`: four significant digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
