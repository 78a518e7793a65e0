"""The late epochs of a stage, whose weights are kept to be averaged, and their average."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from safetensors import SafetensorError, safe_open
from torch import Tensor

from regraft.run.folder import RunFolder
from regraft.training.checkpoint.state import MODEL, Best, unreadable

__all__ = ["MOST_LATE", "average_of", "num_late", "with_late"]

MOST_LATE = 5  # epochs: each is weights on the disk, and a validation pass at the stage's end


def with_late(late: Sequence[Best], epoch: Best) -> list[Best]:
    """Return the late epochs after one more: those of the stage's second half so far, the last five of them."""
    return [other for other in (*late, epoch) if other.epoch > epoch.epoch // 2][-MOST_LATE:]


def num_late(num_epochs: int) -> int:
    """Return how many epochs are late in a stage of so many."""
    return min(num_epochs - num_epochs // 2, MOST_LATE)


def average_of(run: RunFolder, epochs: Sequence[Best], names: Collection[str]) -> dict[str, Tensor]:
    """Return the mean of the weights that some epochs ended with; where these are equal, their very bits.

    Args:
        run: The run folder, which has the weights.
        epochs: At least one.
        names: The tensors to average: of floating-point numbers.

    Raises:
        StorageError: They cannot be read.
    """
    with ExitStack() as opened:
        files = []
        for epoch in epochs:
            path = run.weights(epoch.step) / MODEL
            try:
                files.append(opened.enter_context(safe_open(path, framework="pt")))
            except (OSError, SafetensorError) as error:
                raise unreadable(path, error) from error
        return {name: _mean([file.get_tensor(name) for file in files]) for name in names}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0].double()
    beyond = sum((tensor.double() - first for tensor in tensors[1:]), first.new_zeros(()))
    return (first + beyond / len(tensors)).to(tensors[0].dtype)
