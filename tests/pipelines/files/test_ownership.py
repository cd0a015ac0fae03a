"""Who may write to a directory while another process does."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from tiny_runs import environment, tree

from pipelines.files import ownership
from pipelines.files.ownership import LOCK_FILE, owned

OWNER = """
import sys
from pathlib import Path
from pipelines.files.ownership import owned
with owned(Path(sys.argv[1]), "trained"):
    print("owned", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_owner(directory):
    """Another process that owns `directory` for the length of the block, or until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    with process:
        assert process.stdout.readline() == b"owned\n"
        yield process


@pytest.mark.parametrize(
    ("activity", "take_turns"), [("trained", False), ("measured", False), ("measured", True)]
)
def test_second_owner_is_refused_and_the_first_is_named(tmp_path, activity, take_turns):
    with another_owner(tmp_path) as process:
        message = f"{tmp_path} is being trained by process {process.pid} on {socket.gethostname()}"
        with (
            pytest.raises(RuntimeError, match=re.escape(f"{message}: wait for it, or end it")),
            owned(tmp_path, activity, take_turns=take_turns),
        ):
            pass
        assert tree(tmp_path) == [LOCK_FILE, f"{LOCK_FILE}.owner"]
    with owned(tmp_path, activity):
        pass


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_killed_owner_owns_nothing(tmp_path):
    with another_owner(tmp_path / "new") as process:
        process.send_signal(signal.SIGKILL)
    assert tree(tmp_path / "new") == [LOCK_FILE, f"{LOCK_FILE}.owner"]
    with owned(tmp_path / "new", "measured"):
        text = (tmp_path / "new" / f"{LOCK_FILE}.owner").read_text()
        assert text == f"measured by process {os.getpid()} on {socket.gethostname()}"
    assert tree(tmp_path / "new") == []


def test_owner_of_the_same_activity_is_waited_for(tmp_path, monkeypatch):
    said = []
    with another_owner(tmp_path) as process:

        def end_it(message, *values):
            said.append(message % values)
            process.communicate()

        monkeypatch.setattr(ownership.logger, "warning", end_it)
        with owned(tmp_path, "trained", take_turns=True):
            assert process.returncode == 0
    host = socket.gethostname()
    assert said == [
        f"{tmp_path} is being trained by process {process.pid} on {host}: waiting for it to end"
    ]


@pytest.mark.parametrize("content", [None, "result"])
def test_directory_that_was_made_stays_only_with_content(tmp_path, content):
    with owned(tmp_path / "runs" / "first", "trained"):
        if content is not None:
            (tmp_path / "runs" / "first" / content).touch()
    expected = [] if content is None else ["runs", "runs/first", f"runs/first/{content}"]
    assert tree(tmp_path) == expected


def test_directory_that_was_there_stays(tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(KeyboardInterrupt), owned(tmp_path / "first", "trained"):
        raise KeyboardInterrupt
    assert tree(tmp_path) == ["first"]


def test_several_artifacts_in_one_folder_have_locks_of_their_own(tmp_path):
    with (
        owned(tmp_path / "a", "trained", lock_file=tmp_path / ".a.lock"),
        owned(tmp_path / "b", "trained", lock_file=tmp_path / ".b.lock"),
    ):
        assert tree(tmp_path) == [".a.lock", ".a.lock.owner", ".b.lock", ".b.lock.owner"]


@pytest.mark.skipif(os.name != "posix", reason="flock is POSIX")
class TestFlock:
    def refuse(self, monkeypatch, number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    @pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
    def test_file_system_without_locks_is_written_with_a_warning(
        self, tmp_path, monkeypatch, caplog, name
    ):
        self.refuse(monkeypatch, getattr(errno, name))
        with owned(tmp_path, "trained"):
            (tmp_path / "result").touch()
        assert f"{tmp_path} is on a file system without locks" in caplog.text
        assert tree(tmp_path) == ["result"]

    def test_any_other_error_is_one(self, tmp_path, monkeypatch):
        self.refuse(monkeypatch, errno.EIO)
        with pytest.raises(OSError, match="Input/output error"), owned(tmp_path, "trained"):
            pass
