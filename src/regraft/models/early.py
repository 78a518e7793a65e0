"""What a command can do while torch is still being imported, and how that import is kept short. Imports no torch."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regraft.data.preprocess import Preprocessing
from regraft.errors import RegraftError
from regraft.run.folder import fold_runs

__all__ = ["short_turns", "stored_preprocessing", "without_compiler"]

_COMPILER = "torch._dynamo"


def stored_preprocessing(path: str | Path) -> Preprocessing | None:
    """The preprocessing of the model at `path` (a model folder, a run, a cross-validation), unchecked otherwise.

    None where there is none that can be read: loading the model says what is wrong with it.
    """
    try:
        path = next(iter(fold_runs(path)), Path(path))
        files = [folder / "config.json" for folder in (path / "model", path)]
        file = next(file for file in files if file.is_file())
        config = json.loads(file.read_text(encoding="utf-8"))
        return Preprocessing.from_dict(config["regraft"]["preprocessing"])
    except (StopIteration, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RegraftError):
        return None


@contextmanager
def short_turns() -> Iterator[None]:
    """Let other threads have their turn at once: an import would make each wait 5 ms, several times for each image."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import timm and run networks without torch's compiler, whose import is most of a short command's time.

    `torchvision.ops.roi_align` imports it for one function that is seldom called, `timm.models.naflexvit` and torch's
    shape functions to mark functions as not to be compiled. Meanwhile stand-ins do that. For a process that compiles
    nothing: functions that are marked meanwhile could be compiled later. Where the compiler is imported already,
    nothing is done.

    Raises:
        ImportError, AttributeError: Another version of these packages needs more of the compiler; try again without.
    """
    if any(name in sys.modules for name in _STAND_INS):
        yield
        return
    import torch

    stand_ins = {name: _stand_in(name, contents) for name, contents in _STAND_INS.items()}
    before: Any = torch.compiler.disable
    sys.modules.update(stand_ins)
    torch.__dict__["_dynamo"] = stand_ins[_COMPILER]
    torch.compiler.__dict__["disable"] = _unmarked
    try:
        yield
    finally:
        torch.compiler.__dict__["disable"] = before
        torch.__dict__.pop("_dynamo", None)
        for name in stand_ins:
            sys.modules.pop(name, None)


def _stand_in(name: str, contents: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(contents, __path__=[])
    return module


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return _unmarked if function is None else function


def _is_compile_supported(*args: Any) -> Any:
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(*args)


_STAND_INS: dict[str, dict[str, Any]] = {
    _COMPILER: {"disable": _unmarked},
    f"{_COMPILER}.utils": {"is_compile_supported": _is_compile_supported},
    "torch.fx.experimental.symbolic_shapes": {"expect_true": bool},  # imports sympy, for sizes that are no numbers
}
