"""The process that reads newer HDF5 layouts: what it cannot do, and that what it is for still works."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.hdf5 import hdf5_sandbox

h5py: Any = pytest.importorskip("h5py")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux's Landlock and seccomp")

# Runs with the rights of the child, and tells what it could do.
PAYLOAD = """
import importlib.util, json, os, signal, socket, subprocess, sys
spec = importlib.util.spec_from_file_location("hdf5_sandbox", sys.argv[1])
sandbox = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
folder, port, kept = sys.argv[2], int(sys.argv[3]), open(sys.argv[4], "r+b", buffering=0)
sandbox.leave_network()
sandbox.limit(memory=2**31, seconds=60, file_bytes=1000)
done = sandbox.drop_rights()

def attempt(act):
    try:
        act()
    except (OSError, subprocess.SubprocessError, MemoryError):
        return False
    return True

def connect():
    socket.create_connection(("127.0.0.1", port), timeout=2)

could = {
    "read a file": attempt(lambda: open("/etc/passwd").read()),
    "read a file beside it": attempt(lambda: open(folder + "/secret").read()),
    "list a folder": attempt(lambda: os.listdir(folder)),
    "write a file": attempt(lambda: open(folder + "/written", "w").write("x")),
    "make a folder": attempt(lambda: os.mkdir(folder + "/made")),
    "remove a file": attempt(lambda: os.unlink(folder + "/secret")),
    "rename a file": attempt(lambda: os.rename(folder + "/secret", folder + "/other")),
    "shorten a file": attempt(lambda: os.truncate(folder + "/secret", 0)),
    "connect": attempt(connect),
    "make a pair of sockets": attempt(socket.socketpair),
    "run a program": attempt(lambda: subprocess.run(["/bin/true"])),
    "fork": attempt(lambda: os.fork() or os._exit(0)),
    "send a signal": attempt(lambda: os.kill(os.getppid(), 0)),
}
kept.seek(0)
said = {"done": done, "could": could, "reads what is open": kept.read(4) == b"open", "writes it": attempt(lambda: kept.write(b"x"))}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kept.seek(999)
said["writes without end"] = attempt(lambda: [kept.write(b"x" * 1000), kept.write(b"x" * 1000)])
print(json.dumps(said))
"""  # noqa: E501


@linux
def test_what_the_child_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "kept").write_bytes(b"open")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-I", "-c", PAYLOAD, hdf5_sandbox.__file__, str(tmp_path)]
        command += [str(server.getsockname()[1]), str(tmp_path / "kept")]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError, match="timed out"):
            server.accept()
    said = json.loads(ran.stdout)
    if not {"landlock", "seccomp"} & set(said["done"]):
        pytest.skip("the sandbox is made of Landlock and seccomp, and this kernel allows neither")
    able = {what for what, could in said["could"].items() if could}
    if "seccomp" not in said["done"]:
        able -= {"make a pair of sockets", "fork", "send a signal", "shorten a file", "connect"}
    assert not able
    assert said["reads what is open"]
    assert said["writes it"]
    assert not said["writes without end"]
    assert sorted(os.listdir(tmp_path)) == ["kept", "secret"]
    assert (tmp_path / "secret").read_text() == "secret"


def newer(path: Path, fill: Any) -> Path:
    """A Keras file in the newer layout, with one layer, and what `fill` adds to it."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0"]
        fill(group)
    return path


def test_the_newer_layout_is_still_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype="f4").reshape(3, 4)
    path = newer(tmp_path / "w.h5", lambda group: group.create_dataset("kernel:0", data=values, compression="gzip"))
    assert np.array_equal(read_weights(path).tensors["dense/kernel:0"].load(), values)


def external_link(group: Any) -> None:
    group["kernel:0"] = h5py.ExternalLink("other.h5", "/values")


def external_storage(group: Any) -> None:
    group.create_dataset("kernel:0", (4,), "f4", external=[("secret", 0, 16)])


def virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "values", (4,))
    group.create_virtual_dataset("kernel:0", layout)


def soft_link(group: Any) -> None:
    group["kernel:0"] = h5py.SoftLink("/elsewhere")


def bomb(group: Any) -> None:
    group.create_dataset(
        "kernel:0", (1 << 14, 1 << 14), "f4", chunks=(1 << 11, 1 << 11), compression="gzip", fillvalue=0
    )[0, 0] = 1


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (external_link, "is a link"),
        (external_storage, "takes its values from another file"),
        (virtual, "takes its values from another file"),
        (soft_link, "is a link"),
        (bomb, "a decompression bomb"),
    ],
)
def test_what_leads_out_of_a_newer_file_is_refused(
    tmp_path: Path, fill: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"s" * 16)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["values"] = np.ones(4, "f4")
    with pytest.raises(WeightsError, match=said):
        read_weights(newer(tmp_path / "w.h5", fill))
