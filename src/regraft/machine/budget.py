"""What this process may take of the machine: its processors and its memory."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from regraft.machine.processes import num_local_processes

__all__ = ["memory_budget", "num_cpus"]

_MEMORY_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# Microseconds of processor time in each period, and the period: cgroup 2 in one file, cgroup 1 in two.
_CPU_FILES = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def memory_budget() -> int:
    """Return half of the memory that this process may still take, in bytes: the machine's or its container's, the
    less, divided by the processes that were launched together on this machine.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _MEMORY_FILES:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, free) // 2 // num_local_processes()


def num_cpus() -> int:
    """Count the processors that this process may use: its affinity, or its container's share, the less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _CPU_FILES:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = map(int, " ".join(Path(file).read_text() for file in files).split())
            if quota > 0 and period > 0:
                return max(1, min(allowed, math.ceil(quota / period)))
    return allowed
