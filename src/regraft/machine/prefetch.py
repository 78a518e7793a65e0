"""Work that begins a little before it is asked for, in order, in threads that never outlive it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, TypeVar

__all__ = ["Prefetch", "in_order", "thread_pool"]

Task = TypeVar("Task")
Begun = TypeVar("Begun")
Result = TypeVar("Result")


class Prefetch(Generic[Task, Begun]):
    """Begin tasks some ahead of the one that is taken, and give what was begun in the order of the tasks.

    The first begin when this is made. While the caller works on one, `most - 1` others wait.

    Args:
        begin: Begins a task, as by `pool.submit`.
        tasks: Read as far as they are begun.
        most: How many are begun and not yet taken; may be changed on the way.
    """

    def __init__(self, begin: Callable[[Task], Begun], tasks: Iterable[Task], most: int) -> None:
        self.most = most
        self._begin, self._coming = begin, iter(tasks)
        self._waiting: deque[Begun] = deque()
        self._fill()

    def __iter__(self) -> Iterator[Begun]:
        while self._waiting:
            yield self._waiting.popleft()
            self._fill()

    def clear(self) -> None:
        """Forget what was begun and not taken."""
        self._waiting.clear()

    def _fill(self) -> None:
        self._waiting.extend(map(self._begin, islice(self._coming, max(0, self.most - len(self._waiting)))))


@contextmanager
def thread_pool(
    threads: int, name: str, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of threads; after an error, or when the caller stops asking, nothing is left running.

    Args:
        threads: How many.
        name: What their names begin with, behind `regraft-`.
        begin: Called by each thread first, with the arguments.
        arguments: For `begin`.
    """
    pool = ThreadPoolExecutor(threads, f"regraft-{name}", begin, arguments)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """Do tasks in threads, a few ahead of the one that is waited for, and give the results in their order."""
    with thread_pool(threads, "decode") as pool:
        for result in Prefetch(lambda task: pool.submit(work, task), tasks, 4 * threads + 1):
            yield result.result()
