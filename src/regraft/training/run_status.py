"""How a run ended: in its status, in its folder, and as an error that a user can do something about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from regraft import commit
from regraft.errors import DataError, OutOfMemoryError, RegraftError, SettingsError, StoppedError
from regraft.run.folder import RunFolder
from regraft.training.engine import Engine
from regraft.training.limits.memory import is_out_of_memory
from regraft.training.loop.sinks import Sinks

__all__ = ["noted_in_status", "removed_if_refused"]


@contextmanager
def removed_if_refused(run: RunFolder) -> Iterator[None]:
    """Remove the folder of a new run that is refused before its first epoch: nothing can be resumed."""
    try:
        yield
    except (DataError, SettingsError):
        if not run.metrics.exists() and run.path.exists():
            with suppress(RegraftError):
                commit.remove(run.path)
        raise


@contextmanager
def noted_in_status(run: RunFolder, sinks: Sinks, engine: Engine) -> Iterator[None]:
    """Record in status.json how a run ended; turn errors of torch that a user can act on into regraft's."""
    try:
        yield
    except StoppedError as error:
        sinks.status("stopped", message=error.what)
        raise
    except (RuntimeError, MemoryError) as error:
        lost = engine.lost(error) if isinstance(error, RuntimeError) else None
        if lost is not None:
            _try_status(sinks, lost.what)
            raise lost from error
        if not is_out_of_memory(error):
            _try_status(sinks, f"{type(error).__name__}: {error}")
            raise
        _try_status(sinks, "out of memory")
        raise _out_of_memory(run) from error
    except (Exception, KeyboardInterrupt) as error:
        _try_status(sinks, str(error) or type(error).__name__)
        raise


def _try_status(sinks: Sinks, message: str) -> None:
    try:
        sinks.status("failed", message=message)
    except RegraftError:  # the disk is what failed: the first error tells
        logging.getLogger("regraft").debug("status.json could not be written")


def _out_of_memory(run: RunFolder) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"There is not enough memory for a step of the run {str(run.path)!r}.",
        "room for the activations of one batch",
        "`--set data.batch_size=8`, a smaller `--image-size`, or a smaller `--model`",
    )
