import hashlib
import socket
from pathlib import Path
from urllib.error import URLError

import pytest

from pipelines.data.config import DataConfig
from pipelines.data.download import TIMEOUT, download
from pipelines.data.load import load_splits

CONTENT = b"the set"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Puts files by URL in place of the network, below torchvision's own check of the sum."""
    from torchvision.datasets import utils

    files, asked = {}, []

    def urlretrieve(url, filename):
        asked.append((url, socket.getdefaulttimeout()))
        if url not in files:
            raise URLError("Name or service not known")
        Path(filename).write_bytes(files[url])

    monkeypatch.setattr(utils, "_urlretrieve", urlretrieve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_is_remote_location_available", lambda: False)
    return files, asked


def test_download_puts_the_file_in_place(tmp_path, server):
    server[0]["http://a/set.gz"] = CONTENT
    download(["http://a/set.gz"], MD5, tmp_path / "new" / "set.gz")
    assert (tmp_path / "new" / "set.gz").read_bytes() == CONTENT


def test_download_tries_the_next_mirror(tmp_path, server):
    server[0]["http://b/set.gz"] = CONTENT
    download(["http://a/set.gz", "http://b/set.gz"], MD5, tmp_path / "set.gz")
    assert (tmp_path / "set.gz").read_bytes() == CONTENT


@pytest.mark.usefixtures("server")
def test_download_without_network_says_what_to_do(tmp_path):
    with pytest.raises(RuntimeError, match=r"set\.gz .*Name or service not known.*--data\.source"):
        download(["http://a/set.gz"], MD5, tmp_path / "set.gz")


def test_download_refuses_a_file_with_another_checksum_and_leaves_none(tmp_path, server):
    server[0]["http://a/set.gz"] = CONTENT[:-1]
    with pytest.raises(RuntimeError, match=r"set\.gz could not be downloaded"):
        download(["http://a/set.gz"], MD5, tmp_path / "set.gz")
    assert list(tmp_path.iterdir()) == []


def test_download_waits_for_a_silent_server_only_so_long(tmp_path, server):
    server[0]["http://a/set.gz"] = CONTENT
    download(["http://a/set.gz"], MD5, tmp_path / "set.gz")
    assert server[1] == [("http://a/set.gz", TIMEOUT)]
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("server")
def test_load_splits_without_network_is_one_sentence(tmp_path):
    with pytest.raises(RuntimeError, match="cifar-10-binary") as caught:
        load_splits(DataConfig(source="cifar10", root=tmp_path))
    assert "\n" not in str(caught.value)
