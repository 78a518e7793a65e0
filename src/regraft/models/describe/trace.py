"""Which modules of a network run, in which order, and what shape each one gives: found by running it without computing.

The run happens on torch's meta device (shapes only, no numbers), in eval mode, with the model's parameters and buffers
left where they are. A network that cannot run there (numbers decide its path) runs for real, on a blank image. A small
one tries that first, with the same result: the meta device brings torch's compiler, whose import takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from regraft.compute.graph import trace_calls
from regraft.errors import SettingsError
from regraft.models.keras.layer import KerasLayer
from regraft.wording import quantity

__all__ = [
    "Call",
    "called",
    "image_channels",
    "in_channels",
    "is_convolution",
    "own_tensors",
    "plain",
    "smallest_size",
    "trace",
    "trace_sizes",
]

_SMALL = 30_000_000  # parameters: an image takes tenths of a second
_SIZES = (224, 256, 288, 299, 384, 512, 128, 96, 64, 32)


@dataclass(frozen=True)
class Call:
    """One module's first call in a forward pass.

    `start` and `end` are ticks of one clock for all calls (`end` is that of the last call, if there are several);
    `shape` is that of the first tensor it gave, without the batch axis, or None if it gave none.
    """

    name: str
    start: int
    end: int
    shape: tuple[int, ...] | None


def plain(model: nn.Module) -> nn.Module:
    """Return the user's own module inside DistributedDataParallel, DataParallel and `torch.compile` wrappers."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def own_tensors(module: nn.Module) -> bool:
    """Return whether the module itself, not a module inside it, owns a parameter or a buffer."""
    return any(t is not None for t in (*module._parameters.values(), *module._buffers.values()))


def in_channels(model: nn.Module) -> list[int]:
    """Return the numbers of channels that its images may have, likeliest first: that of the convolution registered
    first.
    """
    convs = [module for module in model.modules() if is_convolution(module)]
    taken = [int(conv.in_channels) for conv in convs]  # type: ignore[arg-type]
    return list(dict.fromkeys([*taken[:1], 3, *taken]))[:4]


def is_convolution(module: nn.Module) -> bool:
    """Return whether it is a two-dimensional convolution, torch's or one that Keras made."""
    return isinstance(module, nn.Conv2d) or (isinstance(module, KerasLayer) and module.in_channels is not None)


def image_channels(model: nn.Module) -> int | None:
    """Return the number of channels of the images that the network takes; None where no number is known to work."""
    model = plain(model)
    channels = in_channels(model)
    if channels[0] == 3:
        return 3
    return next((n for n in channels if any(_runs(model, n, size) for size in trace_sizes(model))), None)


def trace_sizes(model: nn.Module, image_size: int | tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Return the image sizes (height, width) to try, best first: the given one alone, else the model's and defaults."""
    if image_size is not None:
        return [(image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])]
    stored = getattr(getattr(model, "regraft_info", None), "preprocessing", None)
    config = getattr(model, "pretrained_cfg", None) or {}
    known = [
        stored.pixels.size if stored is not None else None,  # the size that a head that flattens was built for
        _stated_size(model),
        config.get("input_size", ())[-2:] if isinstance(config, dict) else None,
    ]
    sizes = [(int(size[0]), int(size[1])) for size in known if size]
    return list(dict.fromkeys([*sizes, *((size, size) for size in _SIZES)]))


def _stated_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the image size that a vision transformer's positions were made for, where a module keeps it."""
    for module in model.modules():
        size = getattr(module, "img_size", None) or getattr(module, "image_size", None)
        size = (size, size) if isinstance(size, int) else size
        if isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(side, int) for side in size):
            return size[0], size[1]
    return None


def trace(
    model: nn.Module,
    image_size: int | tuple[int, int] | None = None,
    *,
    method: str = "forward",
    noting: Sequence[str] = (),
) -> dict[str, Call]:
    """Run `model.<method>` on one blank image and tell what ran.

    Args:
        model: Any module that takes one batch of images; it is not changed.
        image_size: Side, or (height, width), in pixels; None takes the model's own size, or one that works.
        method: The method to run, as timm's `forward_features`.
        noting: Other methods of the model, of which the calls are told too, under their name with `()`.

    Returns:
        For each module that ran: its name and its first call, in order of start.

    Raises:
        SettingsError: The network does not run on an image of that size.
    """
    model = plain(model)
    failures: list[str] = []
    for run in (_run_for_real, _run_on_meta) if _is_quick(model) else (_run_on_meta, _run_for_real):
        for channels, size in product(in_channels(model), trace_sizes(model, image_size)):
            try:
                return _record(model, partial(run, model, method, (1, channels, *size)), noting)
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                failures.append(f"{size[0]}x{size[1]} with {quantity(channels, 'channel')}: {reason[:160]}")
    smallest = smallest_size(model) if image_size is not None else None
    raise SettingsError(
        f"The network {type(model).__name__} did not run on a blank image.",
        "regraft runs a network once, to see the order of its layers and their output shapes",
        "Give an image size that the network can take"
        + ("." if smallest is None else f"; the smallest is {smallest}x{smallest} pixels."),
        details=list(dict.fromkeys(failures))[:4],
    )


def called(model: nn.Module, method: str) -> tuple[set[str], set[str]] | None:
    """Return the names of the modules that run, and of those of them that run within one of the model's methods.

    No image runs through the network. None where only that would tell: where numbers decide its path, or the parts of a
    module that is traced as one own tensors.
    """
    within: set[str] = set()
    names: set[str] = set()
    depth, is_clear = 0, True
    own = getattr(model, method)

    def noting(*args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1
        output = own(*args, **kwargs)
        depth -= 1
        return output

    def note(name: str, module: nn.Module, as_one: bool) -> None:
        nonlocal is_clear
        parts = [part for part in module.modules() if part is not module]
        is_clear = is_clear and not (as_one and any(map(own_tensors, parts)))
        if depth and name not in names:
            within.add(name)
        names.add(name)

    if method in vars(model):
        return None
    vars(model)[method] = noting
    try:
        with _eval_mode(model):
            traced = trace_calls(model, note)
    finally:
        del vars(model)[method]
    return (names, within) if traced and is_clear and within else None


def smallest_size(model: nn.Module) -> int | None:
    """Return the side in pixels of the smallest square image that the network takes; None where no size is known to
    work.
    """
    model = plain(model)
    channels = in_channels(model)[0]

    def works(side: int) -> bool:
        return _runs(model, channels, (side, side))

    high = next((max(size) for size in trace_sizes(model) if works(max(size))), None)
    low = 0
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _runs(model: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        _record(model, partial(_run_on_meta, model, "forward", (1, channels, *size)))
    except Exception:  # a network raises whatever its own code raises on an image that it does not take
        return False
    return True


class _Method(nn.Module):
    """One method of a module as a module of its own, because `functional_call` calls `forward` alone."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, images: torch.Tensor) -> Any:
        call: Callable[[torch.Tensor], Any] = (
            self.model if self.method == "forward" else getattr(self.model, self.method)
        )
        return call(images)


def _is_quick(model: nn.Module) -> bool:
    """Return whether an image takes less time than the meta device does: a millisecond and more for each layer, and
    once the import of what it needs.
    """
    if any(isinstance(module, KerasLayer) for module in model.modules()):
        return False
    parameters = list(model.parameters())
    kinds = {(parameter.device.type, parameter.dtype) for parameter in parameters}
    return kinds == {("cpu", torch.float32)} and sum(map(torch.Tensor.numel, parameters)) <= _SMALL


def _run_on_meta(model: nn.Module, method: str, shape: tuple[int, ...]) -> None:
    wrapped = _Method(model, method)
    named = [*wrapped.named_parameters(), *wrapped.named_buffers()]
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
    functional_call(wrapped, shapes, (_blank(model, shape, torch.device("meta")),))


def _run_for_real(model: nn.Module, method: str, shape: tuple[int, ...]) -> None:
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    wrapped = _Method(model, method)
    buffers = {name: buffer.clone() for name, buffer in wrapped.named_buffers()}  # a run must not move the user's own
    functional_call(wrapped, buffers, (_blank(model, shape, device),))


def _blank(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.zeros(shape, dtype=dtype, device=device)


def _record(model: nn.Module, run: Callable[[], None], noting: Sequence[str] = ()) -> dict[str, Call]:
    events: list[tuple[str, bool, tuple[int, ...] | None]] = []

    def noted(method: str) -> Callable[..., Any]:
        call = getattr(model, method)

        def noting_call(*args: Any, **kwargs: Any) -> Any:
            events.append((f"{method}()", True, None))
            output = call(*args, **kwargs)
            events.append((f"{method}()", False, _shape(output)))
            return output

        return noting_call

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(module: nn.Module, args: Any) -> None:
            events.append((name, True, None))

        def after(module: nn.Module, args: Any, output: Any) -> None:
            events.append((name, False, _turned(module, _shape(output))))

        return before, after

    with ExitStack() as stack, torch.no_grad(), _eval_mode(model):
        for name, module in model.named_modules():
            before, after = hooks(name)
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        for method in noting:
            if method not in vars(model):
                vars(model)[method] = noted(method)
                stack.callback(vars(model).pop, method)
        run()
    return _calls(events)


def _calls(events: Sequence[tuple[str, bool, tuple[int, ...] | None]]) -> dict[str, Call]:
    calls: dict[str, Call] = {}
    for tick, (name, starts, shape) in enumerate(events):
        seen = calls.get(name)
        if starts:
            calls[name] = seen or Call(name, tick, tick, None)
        elif seen is not None:
            calls[name] = Call(name, seen.start, tick, seen.shape or shape)
    return calls


def _shape(output: Any) -> tuple[int, ...] | None:
    if isinstance(output, torch.Tensor):
        return tuple(output.shape[1:])
    inner = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((shape for shape in map(_shape, inner) if shape is not None), None)


def _turned(module: nn.Module, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a Keras layer's (height, width, channels) as (channels, height, width)."""
    if shape is None or len(shape) != 3 or not isinstance(module, KerasLayer):
        return shape
    return (shape[2], *shape[:2])


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # the attribute, not `.eval()`: a frozen module keeps its own idea of `.train()`
        yield
    finally:
        for module, mode in modes:
            module.training = mode
