"""What this process may take of the machine, and work that is spread over its processors."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

__all__ = ["in_order", "memory_budget", "num_cpus"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_budget() -> int:
    """Half of the memory that this process may still take, in bytes: the machine's or its container's, the less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, free) // 2


def num_cpus() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """The results of the tasks in their order, from threads a few ahead of the one that is waited for.

    After an error, or when the caller stops asking, nothing is left running.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="regraft-decode")
    coming = iter(tasks)
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(work, task) for task in islice(coming, 4 * threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, task) for task in islice(coming, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
