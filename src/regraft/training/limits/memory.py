"""A step that does not fit into memory: the same step from smaller batches, and the memory given back first."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from regraft.settings.stage import Stage

__all__ = ["BatchTooLargeError", "give_back", "in_smaller_batches", "is_out_of_memory"]


class BatchTooLargeError(Exception):
    """A training step met the end of the memory; the cause says which. It never leaves the loop."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def in_smaller_batches(stage: Stage, batch_size: int) -> Stage | None:
    """Return the stage with at most half as many images at a time and as many images a step; None when it is one
    already.

    Args:
        stage: The stage.
        batch_size: Images at a time now.
    """
    images = batch_size * stage.accumulate
    sizes = [size for size in range(1, batch_size // 2 + 1) if images % size == 0]
    return replace(stage, batch_size=sizes[-1], accumulate=images // sizes[-1]) if sizes else None


def give_back() -> None:
    """Hand memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
