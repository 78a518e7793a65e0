"""Which layer of a network cannot be exported, once it is known that one cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regraft.errors import SettingsError

__all__ = ["unsupported_layer"]

Export = Callable[[nn.Module, tuple[Tensor, ...]], object]


def unsupported_layer(network: nn.Module, example: Tensor, error: Exception, export: Export) -> SettingsError:
    """Return the error that names the innermost layer that fails by itself.

    Args:
        network: What could not be exported.
        example: Its input.
        error: What was raised.
        export: Exports a module with its inputs, or raises.
    """
    given = _inputs(network, example)
    name, module = "", network
    while True:
        prefix = f"{name}." if name else ""
        failing = None
        for child, part in module.named_children():
            reason = _failure(part, given.get(prefix + child), export)
            if reason is not None:
                failing, error = (prefix + child, part), reason
                break
        if failing is None:
            break
        name, module = failing
    shown = name.removeprefix("network").removeprefix(".") or "the network as a whole"
    reasons = [line.strip() for line in _innermost(error).splitlines() if line.strip()]
    return SettingsError(
        f"The layer {shown} ({type(module).__name__}) cannot be exported to ONNX: {' '.join(reasons)[:300]}.",
        "layers whose operators ONNX has, computed in the same way for every image",
        "replace the layer with `rg.replace_layer`, or predict with `regraft predict RUN`",
    )


def _inputs(network: nn.Module, example: Tensor) -> dict[str, tuple[Any, ...]]:
    """Return what each module was given last, by its name."""
    given: dict[str, tuple[Any, ...]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: given.__setitem__(name, inputs)

    hooks = [module.register_forward_pre_hook(noting(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(example)
    except Exception:  # what ran before it is noted
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return given


def _failure(module: nn.Module, given: tuple[Any, ...] | None, export: Export) -> Exception | None:
    if not given or not all(isinstance(one, Tensor) for one in given):
        return None
    try:
        export(module, given)
    except Exception as error:  # torch raises whatever the module's code raises
        return error
    return None


def _innermost(error: BaseException) -> str:
    """Return the first line of the error that began it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).split("\n\n")[0]
