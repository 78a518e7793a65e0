"""torch's compiler, imported when something needs it: to import it takes longer than torch itself.

timm and torchvision, which timm needs, name the compiler (`torch._dynamo`, with inductor and sympy) while they are
imported: they exempt functions from compilation (`torch.compiler.disable`), and take a function that says whether a
device can compile. No command calls any of these. While timm is imported, `torch._dynamo` is therefore a stand-in,
which gives both in a form that imports the compiler at its first call; anything else that is asked of it brings the
compiler at once. Afterwards the stand-in is gone: whoever imports the compiler later gets it, and torchvision is whole.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["defer_compiler"]

_COMPILER, _LIBRARY = "torch._dynamo", "timm"


def defer_compiler() -> None:
    """Leave torch's compiler out of timm's import, where timm is yet to be imported."""
    if _LIBRARY not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds timm as it would be found anyway, once, and has it executed beside the stand-in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Another loader, which the module keeps; the stand-in is there while it works."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        with _standing_in():
            self._own.exec_module(module)


@contextmanager
def _standing_in() -> Iterator[None]:
    importlib.import_module("torch")  # itself, before anything stands for its parts
    if _COMPILER not in sys.modules:
        utils = f"{_COMPILER}.utils"
        sys.modules[_COMPILER] = _StandIn(_COMPILER, {"disable": _disable})
        sys.modules[utils] = _StandIn(utils, {"is_compile_supported": _is_compile_supported})
    try:
        yield
    finally:
        _withdraw()


class _StandIn(ModuleType):
    """A module of the compiler that has a few names, and gives way to the real one when it is asked for others."""

    def __init__(self, name: str, names: Mapping[str, object]) -> None:
        super().__init__(name)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (self.__name__, name) != (_COMPILER, "__path__"):  # the way to its other parts
            raise AttributeError(name)  # what is asked of every module
        _withdraw()
        return getattr(importlib.import_module(self.__name__), name)


def _withdraw() -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]


def _disable(function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
    """Return a function that is exempt from compilation; it imports the compiler when it is first called."""
    if function is None:
        return functools.partial(_disable, *args, **kwargs)

    @functools.cache
    def exempt() -> Callable[..., Any]:
        compiler = importlib.import_module(_COMPILER)
        result: Callable[..., Any] = compiler.disable(function, *args, **kwargs)
        return result

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return exempt()(*given, **named)

    return call


def _is_compile_supported(device_type: str) -> bool:
    """Return whether torch can compile for a kind of device."""
    utils = importlib.import_module(f"{_COMPILER}.utils")
    return bool(utils.is_compile_supported(device_type))
