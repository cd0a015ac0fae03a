"""Fetching the files of public image sets with torchvision, whole or not at all."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 30.0  # Seconds without an answer after which a server counts as unreachable.


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bounds every wait for the network; torchvision's downloads have no limit of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download(urls: Sequence[str], md5: str, target: Path) -> None:
    """Downloads one file, checks it, and only then puts it at `target`.

    Args:
        urls: where it is, mirrors in the order to try.
        md5: checksum of the whole file, hexadecimal.
        target: where to put it; its folder is made.

    Raises:
        RuntimeError: no mirror gave the file.
        OSError: `target` cannot be written.
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
                reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
                continue
            (Path(folder) / target.name).replace(target)
            return
    raise RuntimeError(
        f"{target.name} could not be downloaded ({reason}): put it into {target.parent} yourself, "
        "or use --data.source fashion-mnist-mini, which needs no network"
    )


def require_download(allowed: bool, source: str, files: str, folders: Sequence[Path]) -> None:
    """Refuses to go on to a download that the user did not allow.

    Args:
        allowed: `DataConfig.download`.
        source: name of the image set.
        files: the files it needs, for the message.
        folders: where they were looked for.

    Raises:
        FileNotFoundError: the download is not allowed.
    """
    if not allowed:
        raise FileNotFoundError(
            f"{source} needs {files} in one of {', '.join(map(str, folders))}, which lack them: "
            "put them there, allow --data.download, or use --data.source fashion-mnist-mini"
        )
