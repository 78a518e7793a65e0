"""Other channels for a network, with its pretrained stem kept: grey, more bands, BGR as RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from regraft.compute.graph import trace_graph
from regraft.data.decode.preprocess import Channels, Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo
from regraft.models.describe.trace import is_convolution, trace
from regraft.models.keras.layer import KerasLayer
from regraft.models.keras_forms.mobile import Normalization
from regraft.wording import quantity

__all__ = ["Mix", "change_stem", "choose_mix", "mixed_preprocessing", "stem_layers"]


@dataclass(frozen=True)
class Mix:
    """How each new input channel is made of the old ones.

    Attributes:
        channels: What the new channels are.
        shares: For each new channel, the factor of each old channel's kernel.
        text: The same in words.
    """

    channels: Channels
    shares: tuple[tuple[float, ...], ...]
    text: str

    @property
    def num_channels(self) -> int:
        """How many channels the network takes afterwards."""
        return len(self.shares)


def choose_mix(old: Channels, *, in_channels: int | None = None, bands: Sequence[str] | None = None) -> Mix:
    """Return the weights that turn a stem's `old` channels into `in_channels` channels, or into those named by `bands`.

    By number, the response to grey (all channels equal) stays: fewer channels share the sum of the kernels, more
    channels take the kernels in turn, each divided by how often it is taken (as timm's `adapt_input_conv`, which
    scales all alike and so keeps the response only for multiples of three). By name, channels that the stem knows
    keep their kernels and others start from the average of all.

    Raises:
        SettingsError: No channels, a band twice, or a number that contradicts the names.
    """
    names = _names(old)
    if bands is not None:
        _check_bands(bands, in_channels)
        shares = tuple(tuple(float(name == band) for name in names) for band in bands)
        if any(map(any, shares)):
            average = (1 / len(names),) * len(names)
            text = ", ".join(
                f"{band} {'kept' if any(share) else 'average'}" for band, share in zip(bands, shares, strict=True)
            )
            return Mix(_channels(bands), tuple(share if any(share) else average for share in shares), text)
    number = len(bands) if bands is not None else in_channels
    if number is None or number < 1:
        raise SettingsError(
            f"The network would take {quantity(number, 'channel')}.", "at least one", "set `in_channels` to 1 or more"
        )
    shares, text = _by_number(len(names), number)
    return Mix(_channels(bands) if bands is not None else _numbered(old, number), shares, text)


def stem_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the convolutions that read the image: those that timm names, else those that the forward pass shows."""
    config = getattr(model, "pretrained_cfg", None)
    named = config.get("first_conv") if isinstance(config, dict) else None
    found = [named] if isinstance(named, str) else list(named or ())
    modules = dict(model.named_modules())
    if found and all(name in modules and is_convolution(modules[name]) for name in found):
        return tuple(found)
    graph = trace_graph(model)
    readers = () if graph is None else next(node for node in graph.nodes if node.op == "placeholder").users
    found = [str(node.target) for node in readers if node.op == "call_module"]
    if graph is not None and len(found) == len(readers) and all(is_convolution(modules[n]) for n in found):
        return tuple(dict.fromkeys(found))
    return tuple(name for name in trace(model) if is_convolution(modules[name]))[:1]


def change_stem(model: nn.Module, info: ModelInfo, mix: Mix) -> tuple[str, ...]:
    """Rewrite the stem, in place; `info.args` then builds it so. The names of the changed layers are returned.

    Raises:
        SettingsError: The stem is no plain convolution of the old number of channels.
    """
    layers = stem_layers(model)
    old = len(mix.shares[0])
    _refuse_constants(model, info)
    for name in layers:
        conv: Any = model.get_submodule(name)
        if conv.in_channels != old or conv.groups != 1:
            raise SettingsError(
                f"The first layer {name!r} of {info.architecture!r} takes {quantity(conv.in_channels, 'channel')} in "
                f"{conv.groups} group(s), which are not the {quantity(old, 'channel')} of the image.",
                "a convolution that reads the image itself",
                "choose another network, or change its first layer with `rg.replace_layer`",
            )
        mixed = _mixed(conv.weight.detach(), mix.shares)
        conv.weight = nn.Parameter(mixed, requires_grad=conv.weight.requires_grad)
        conv.in_channels = mix.num_channels
    if not layers:
        raise SettingsError(
            f"{info.architecture!r} has no convolution that reads the image.",
            "a convolutional network",
            "leave `in_channels` and `bands` out",
        )
    _mix_statistics(model, mix)
    info.args["in_chans"] = mix.num_channels
    if mix.num_channels == 3:
        del info.args["in_chans"]
    return layers


def _refuse_constants(model: nn.Module, info: ModelInfo) -> None:
    """Refuse per-channel numbers that are not weights: they would be lost when the network is built again."""
    fixed = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, KerasLayer) and module.has_channel_constants)
        or (isinstance(module, Normalization) and module.rescaling)
    ]
    if fixed:
        raise SettingsError(
            f"{info.architecture!r} normalises its images itself, with constants for three colours "
            f"({', '.join(fixed)}).",
            "a network whose normalisation is in its preprocessing",
            "leave `in_channels` and `bands` out, or choose another network",
        )


def _mix_statistics(model: nn.Module, mix: Mix) -> None:
    """Move the statistics of a normalisation in front of the stem with their channels, in place."""
    old = len(mix.shares[0])
    for module in model.modules():
        is_keras = isinstance(module, KerasLayer) and module.kind == "Normalization"
        if not (is_keras or isinstance(module, Normalization)) or len(module.running_mean) != old:  # type: ignore[arg-type]
            continue
        shares = torch.tensor(mix.shares, dtype=torch.float32)
        shares /= shares.sum(1, keepdim=True)
        for name in ("running_mean", "running_var", "deviation"):
            statistic = module._buffers.get(name)
            if statistic is not None:
                module._buffers[name] = shares.to(statistic) @ statistic
        if isinstance(module, KerasLayer):
            module.in_channels = mix.num_channels


def mixed_preprocessing(preprocessing: Preprocessing, mix: Mix) -> Preprocessing:
    """Return mean and std that follow their channels; those of mixed channels are the shares' weighted average."""
    mean, std = (
        tuple(sum(s * v for s, v in zip(share, values, strict=True)) / sum(share) for share in mix.shares)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return replace(preprocessing, mean=mean, std=std, channels=mix.channels)


def _mixed(weight_OIHW: Tensor, shares: Sequence[Sequence[float]]) -> Tensor:
    """Return sums of scaled kernels; a kernel that is only moved keeps its bytes."""
    rows = []
    for share in shares:
        used = [(factor, weight_OIHW[:, place]) for place, factor in enumerate(share) if factor]
        rows.append(used[0][1] if len(used) == 1 and used[0][0] == 1 else sum(factor * row for factor, row in used))
    return torch.stack(rows, dim=1).contiguous()  # type: ignore[arg-type]


def _by_number(old: int, new: int) -> tuple[tuple[tuple[float, ...], ...], str]:
    if new < old:
        factor = 1 / new
        text = f"the sum of {old} kernels" if new == 1 else f"each the sum of {old} kernels divided by {new}"
        return ((factor,) * old,) * new, text
    turns = [place % old for place in range(new)]
    shares = tuple(tuple((place == turn) / turns.count(turn) for place in range(old)) for turn in turns)
    return shares, "kept" if new == old else f"the {old} kernel(s) in turn, each divided by how often it is taken"


def _names(channels: Channels) -> tuple[str, ...]:
    return channels if isinstance(channels, tuple) else tuple(channels)


def _channels(bands: Sequence[str]) -> Channels:
    joined = "".join(bands)
    return joined if joined in ("RGB", "BGR", "L") and len(joined) == len(bands) else tuple(bands)


def _numbered(old: Channels, number: int) -> Channels:
    if number == len(_names(old)):
        return old
    return {1: "L", 3: "RGB"}.get(number) or tuple(f"band{place + 1}" for place in range(number))


def _check_bands(bands: Sequence[str], in_channels: int | None) -> None:
    mistakes = []
    if isinstance(bands, str) or not bands or not all(isinstance(band, str) and band for band in bands):
        mistakes.append(f"bands is {bands!r}; it is a list of names")
    elif len(set(bands)) < len(bands):
        mistakes.append(f"bands is {list(bands)!r}; each name stands once")
    if in_channels is not None and in_channels != len(bands):
        mistakes.append(f"in_channels is {in_channels}, and bands names {len(bands)}")
    if mistakes:
        raise SettingsError(
            "The channels cannot be as described.",
            "",
            "pass for example `bands=['R', 'G', 'B', 'NIR']`, or `in_channels` alone",
            details=mistakes,
        )
