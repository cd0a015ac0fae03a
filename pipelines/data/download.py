"""Atomic download of the files of public image sets, with torchvision."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.files.names import one_line

TIMEOUT = 30.0  # Seconds without an answer after which a server counts as unreachable.


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limits every wait for the network; torchvision's downloads have no limit of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download(urls: Sequence[str], md5: str, target: Path) -> None:
    """Downloads one file, verifies it, and then moves it to `target`.

    Args:
        urls: Mirrors, in the order to try.
        md5: Checksum of the whole file, hexadecimal.
        target: Path of the file; its folder is created.

    Raises:
        RuntimeError: No mirror has the file.
    """
    # Importing torchvision takes seconds, and only a download needs it.
    from torchvision.datasets.utils import download_url

    target.parent.mkdir(parents=True, exist_ok=True)
    reason = "no address is known"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        for url in urls:
            try:
                with _socket_timeout(TIMEOUT):
                    download_url(url, folder, target.name, md5)
            except (RuntimeError, OSError) as error:  # URLError and timeouts are OSErrors.
                reason = one_line(error)
                continue
            (Path(folder) / target.name).replace(target)
            return
    raise RuntimeError(
        f"{target.name} could not be downloaded ({reason}): put it into {target.parent} yourself, "
        "or use --data.source fashion-mnist-mini, which needs no network"
    )


def require_download(allowed: bool, source: str, files: str, folders: Sequence[Path]) -> None:
    """Checks that the user allows a download; the message names set, files and searched folders.

    Raises:
        FileNotFoundError: The download is not allowed.
    """
    if not allowed:
        raise FileNotFoundError(
            f"{source} needs {files} in one of {', '.join(map(str, folders))}, which lack them: "
            "put them there, allow --data.download, or use --data.source fashion-mnist-mini"
        )
