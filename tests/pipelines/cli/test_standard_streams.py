"""Whatever becomes of standard output and error, a command does its work and says what it can."""

import os
import subprocess
import sys

import pytest
from faulty_disks import on_linux
from tiny_runs import environment

WORK = """
import sys
from pathlib import Path
from pipelines.cli.command import run_command
from pipelines.cli.echo import say

def main():
    say("hällo 日本 \\udce9" * 2000)
    print("more", file=sys.stderr)
    with Path(sys.argv[1]).open("w") as file:
        file.write(str(file.fileno()))

run_command(main)
"""


def work(tmp_path, redirection="", program=WORK, **variables):
    """The exit status, output and errors of a command that prints and then writes a file."""
    command = f'exec "$0" -c "$1" "$2" {redirection}'
    ended = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, program, tmp_path / "result"],
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("utf-8", "hällo 日本 \\udce9".encode()),
        ("ascii", rb"h\xe4llo \u65e5\u672c \udce9"),
        ("latin-1", b"h\xe4llo \\u65e5\\u672c \\udce9"),
    ],
)
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path, encoding, printed):
    status, output, errors = work(tmp_path, PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, b"more\n")
    assert output == printed * 2000 + b"\n"
    assert (tmp_path / "result").exists()


@pytest.mark.skipif(os.name != "posix", reason="closes streams by a POSIX shell")
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path, redirection):
    status, output, errors = work(tmp_path, redirection)
    assert status == 0
    assert (b"more" in errors) == ("2>&-" not in redirection)
    assert (b"llo" in output) == (" >&-" not in f" {redirection}")
    # What libraries print to descriptors 1 and 2 must not end up in the command's files.
    assert int((tmp_path / "result").read_text()) > 2


@on_linux
@pytest.mark.parametrize(
    ("redirection", "unbuffered"), [(">/dev/full", ""), (">/dev/full", "1"), ("2>/dev/full", "")]
)
def test_streams_to_a_full_disk_change_nothing(tmp_path, redirection, unbuffered):
    status, output, errors = work(tmp_path, redirection, PYTHONUNBUFFERED=unbuffered)
    assert status == 0
    assert b"Error" not in output + errors
    assert (tmp_path / "result").exists()


BROKEN_PIPE = f"""
import os
read, write = os.pipe()
os.dup2(write, 1)
os.close(read)
{WORK}"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_reader_that_leaves_early_changes_nothing(tmp_path):
    assert work(tmp_path, program=BROKEN_PIPE) == (0, b"", b"more\n")
    assert (tmp_path / "result").exists()


def test_help_for_a_reader_that_leaves_early_ends_quietly():
    command = [sys.executable, "-m", "pipelines.train_all", "--help"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
