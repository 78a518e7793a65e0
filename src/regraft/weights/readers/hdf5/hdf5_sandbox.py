"""Takes away what a process does not need to turn one HDF5 file into another: files, sockets, programs, memory.

For the child of `hdf5_rewrite`, in this order, each step as far as the system knows it: limits of the process (bounded
memory, time and output, no core dump), a user and network namespace of its own, no new privileges, Landlock (Linux
5.13: no path may be opened any more), no new file numbers, a seccomp filter (no opening, no sockets, no programs, no
other processes). Nothing is needed but the standard library; on another system than Linux on x86-64 or AArch64 the
limits of the process, an empty environment and the two open files are what is left.
Source: the manual pages landlock(7), seccomp(2), prctl(2); linux/filter.h and linux/audit.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

__all__ = ["drop_rights", "leave_network", "limit"]

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ALLOW, _ERRNO, _EPERM = 0x7FFF0000, 0x00050000, 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_GREATER, _X32 = 0x35, 0x40000000
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
# What the numbers of the calls are, by machine: audit's name of it, then the calls that are refused.
_MACHINES: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        (
            2, 85, 257, 437, 304,  # open, creat, openat, openat2, open_by_handle_at
            41, 42, 43, 44, 46, 49, 50, 53, 288, 307,  # socket ... sendmmsg
            56, 57, 58, 59, 322, 435,  # clone, fork, vfork, execve, execveat, clone3
            62, 200, 234, 129, 297, 424, 434,  # kill, tkill, tgkill, rt_sigqueueinfo ..., pidfd
            76, 82, 83, 84, 86, 87, 88, 90, 91, 92, 94, 133,  # truncate, rename, mkdir, ... mknod, by path
            258, 259, 260, 263, 264, 265, 266, 268, 316, 452,  # the same from a folder
            101, 310, 311, 165, 166, 161, 155, 272, 308, 321, 425, 426, 427, 298, 323, 438,  # ptrace, mount, io_uring
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            56, 437, 265,  # openat, openat2, open_by_handle_at
            198, 199, 200, 201, 202, 203, 206, 211, 242, 269,  # socket ... sendmmsg
            220, 221, 281, 435,  # clone, execve, execveat, clone3
            129, 130, 131, 138, 240, 424, 434,  # kill ... pidfd
            45, 33, 34, 35, 36, 37, 38, 53, 54, 276, 452,  # truncate, mknodat, mkdirat, unlinkat, ... by path
            117, 270, 271, 40, 39, 51, 41, 97, 268, 280, 425, 426, 427, 241, 282, 438,  # ptrace, mount, io_uring
        ),
    ),
}  # fmt: skip


def limit(memory: int, seconds: int, file_bytes: int) -> None:
    """Bound the memory, the time and the size of the files of this process; no core dumps."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    bounds = {"RLIMIT_AS": memory, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": file_bytes, "RLIMIT_CORE": 0}
    for name, bound in bounds.items():
        _, most = resource.getrlimit(getattr(resource, name))
        bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
        resource.setrlimit(getattr(resource, name), (bound, bound))


def leave_network() -> bool:
    """Move into a network of its own, without a way out; only before there are threads."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK) == 0)


def drop_rights() -> list[str]:
    """Give up opening files, sockets and programs, for good; what is open stays open.

    Returns:
        What the system could take away: `landlock`, `no-new-files`, `seccomp`.
    """
    if sys.platform != "linux":
        return ["no-new-files"] if _no_new_files() else []
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return ["no-new-files"] if _no_new_files() else []
    steps = {"landlock": _landlock(library), "no-new-files": _no_new_files(), "seccomp": _seccomp(library)}
    return [name for name, done in steps.items() if done]


def _no_new_files() -> bool:
    """Forbid file descriptors beyond those that are open."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    except (ImportError, OSError, ValueError):
        return False
    return True


def _landlock(library: ctypes.CDLL) -> bool:
    """Forbid to open, make, rename or remove paths, to use TCP ports (from version 4) and to send signals (6)."""
    version = library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14}.get(version, 15 if version < 5 else 16)) - 1
    rules = struct.pack("<QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    number = library.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(size), 0)
    if number < 0:
        return False
    try:
        return bool(library.syscall(_RESTRICT_SELF, number, 0) == 0)
    finally:
        os.close(number)


def _seccomp(library: ctypes.CDLL) -> bool:
    """Forbid calls that open files, sockets, programs or other processes give an error of permission."""
    if platform.machine() not in _MACHINES or sys.byteorder != "little" or struct.calcsize("P") != 8:
        return False
    audit, refused = _MACHINES[platform.machine()]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _ERRNO | _EPERM), (_LOAD, 0, 0, 0)]
    for number in refused:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    # Calls of the x32 interface have the same numbers with a bit set: greater or equal is refused.
    steps += [(_GREATER, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(buffer)))
    return bool(library.prctl(_SET_SECCOMP, _FILTER, program, 0, 0) == 0)
