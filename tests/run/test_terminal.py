"""Output whose reader has gone is dropped; a command that was started without stdout and stderr has both."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.run.terminal import forgiving


class Gone(io.StringIO):
    """A stream whose reader has gone after some writes."""

    def __init__(self, number: int, after: int = 0) -> None:
        super().__init__()
        self.left, self.number = after, number

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def flush(self) -> None:
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_writes_that_fail_are_dropped(number: int) -> None:
    stream = Gone(number, after=1)
    kind = forgiving(stream)
    assert kind.write("read\n") == 5
    assert kind.write("lost\n") == 5
    print("lost too", file=kind, flush=True)
    assert stream.getvalue() == "read\n"
    assert not kind.isatty()


def test_a_closed_stream_and_none_drop_everything() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        print("nobody", file=forgiving(stream), flush=True)
        assert not forgiving(stream).isatty()


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_command_without_streams_does_not_write_into_its_files(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from regraft.run.terminal import open_missing_streams\n"
        "open_missing_streams()\n"
        "file = open(sys.argv[1], 'wb', buffering=0)\n"
        "print('to stdout', flush=True)\n"
        "print('to stderr', file=sys.stderr, flush=True)\n"
        "[os.write(number, b'from a library') for number in (1, 2)]\n"
        "file.write(b'own')\n"
    )
    command = f'"{sys.executable}" -c "$1" "$2" {closed}'
    file = tmp_path / "file"
    done = subprocess.run(["sh", "-c", command, "sh", code, str(file)], stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    assert file.read_bytes() == b"own"
