"""What regraft knows about a model: its name, its classes, where its backbone ends and its head begins.

The knowledge lies on the model as the plain attribute `regraft_info`. A model without it (any timm model, any
`nn.Module`) is asked: timm models through their own description, others by running them once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.provenance import Provenance
from regraft.models.describe.trace import Call, called, own_tensors, plain, trace
from regraft.models.describe.trust import Trust

__all__ = ["ModelInfo", "info_of", "named", "preprocessing_of", "set_info", "settings_of"]

_ATTRIBUTE = "regraft_info"
_AUXILIARY = re.compile(r"(^|\.)aux", re.IGNORECASE)


@dataclass
class ModelInfo:
    """What regraft knows about one model.

    Attributes:
        architecture: The name to build it by (a timm name, `alexnet`, `keras_NAME`), or the class's name.
        args: The arguments to build it with.
        class_names: The names of the classes or labels, or None.
        preprocessing: The whole decode-resize-normalise program, or None.
        head: Module-name prefixes that make up the head: all that follows the last feature map.
        feature_stages: The modules that end each resolution stage, coarsest last.
        output: What its logits mean, a key of `regraft.models.describe.outputs.OUTPUTS`.
        thresholds: For outputs that are compared with one: the threshold of each name, chosen on validation images;
            0.5 applies to names that are not in it.
        origin: Where its weights come from, and what surgery has made of it since.
        decoder: Module-name prefixes of what stands between the backbone (the encoder) and the head, in a network
            for segmentation.
        colours: In segmentation: red, green, blue of each class, for drawing masks; None for those of PASCAL VOC.
        calibration: What its logits are divided by before they become probabilities; None divides by nothing.
        trust: What its predictions are judged by, from validation images; None where nothing is kept.
    """

    architecture: str
    args: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    head: tuple[str, ...] = ()
    feature_stages: tuple[str, ...] = ()
    output: str = "softmax"
    thresholds: dict[str, float] = field(default_factory=dict)
    origin: Provenance = field(default_factory=Provenance)
    decoder: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] | None = None
    calibration: Calibration | None = None
    trust: Trust | None = None

    def is_head(self, name: str) -> bool:
        """Return whether a module, a parameter or a buffer of this (full) name belongs to the head."""
        return is_under(name, self.head)

    def part_of(self, name: str) -> str:
        """Return `backbone`, `decoder` or `head`: where a module, a parameter or a buffer of this (full) name
        belongs.
        """
        return "head" if self.is_head(name) else "decoder" if is_under(name, self.decoder) else "backbone"

    def is_new(self, name: str) -> bool:
        """Return whether it belongs to layers that were added with random weights."""
        return is_under(name, self.new_layers)

    @property
    def new_layers(self) -> tuple[str, ...]:
        """Module-name prefixes of the layers that were added with random weights."""
        return self.origin.new_layers


def is_under(name: str, prefixes: Iterable[str]) -> bool:
    """Return whether a dotted name is one of the prefixes or lies below one; the prefix "" holds everything."""
    return any(prefix == "" or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def info_of(model: nn.Module) -> ModelInfo:
    """Return the model's stored description, or one derived now (and not stored).

    A timm model is split where its own `forward_features` ends. Of any other module the head is the last dense layer
    or convolution that runs.
    """
    model = plain(model)
    stored = getattr(model, _ATTRIBUTE, None)
    if isinstance(stored, ModelInfo):
        return stored
    if isinstance(getattr(model, "pretrained_cfg", None), dict) and hasattr(model, "forward_features"):
        return _timm_info(model)
    return _unknown_info(model)


def named(info: ModelInfo) -> tuple[tuple[str, ...], Preprocessing]:
    """Return the class names and the preprocessing of a model that is to say names of files.

    Raises:
        SettingsError: It lacks one of them.
    """
    if info.class_names is None or info.preprocessing is None:
        raise SettingsError(
            "The model has no class names or no preprocessing.",
            "predictions are names, made from files",
            "load it with `rg.load_model(PATH)`",
        )
    return info.class_names, info.preprocessing


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """Return the program from an image file to the model's input.

    Raises:
        SettingsError: The model does not say.
    """
    preprocessing = info_of(model).preprocessing
    if preprocessing is None:
        raise SettingsError(
            "This model has no preprocessing.",
            "a model that knows how images become its input",
            "pass the model through `rg.adapt(model, classes=[...])` first",
        )
    return preprocessing


def set_info(model: nn.Module, info: ModelInfo) -> nn.Module:
    """Store the description on the model, in place, and return the model; state-dict keys stay as they are.

    Raises:
        SettingsError: `info` names a head or a stage that is no module of the model.
    """
    model = plain(model)
    names = {name for name, _ in model.named_modules()}
    strange = [name for name in (*info.head, *info.feature_stages, *info.decoder) if name not in names]
    if strange:
        raise SettingsError(
            f"The description of {info.architecture} names modules that the model does not have: {', '.join(strange)}.",
            "each head, each stage and each decoder is the full name of one of its modules",
            "take the names from `model.named_modules()`",
        )
    setattr(model, _ATTRIBUTE, info)
    return model


def settings_of(model: nn.Module, *, seed: int) -> dict[str, Any]:
    """Return the model's part of a recipe, as plain data: how to build it again, and its head.

    Args:
        model: An adapted model.
        seed: The run's; the recipe names the model's own only where it is another.
    """
    info, origin = info_of(model), info_of(model).origin
    rest = ("num_classes", "head", "image_size")
    args = {key: value for key, value in info.args.items() if key not in rest}
    model_settings: dict[str, Any] = {
        "name": info.architecture,
        "weights": origin.weights,
        "image_size": None if info.preprocessing is None else list(info.preprocessing.pixels.size),
        "args": args,
    }
    options = dict(origin.match_options)
    model_settings |= {"skip": options.pop("skip")} if "skip" in options else {}
    model_settings |= {"match": options} if options else {}
    steps = [dict(step) for step in origin.stem_steps]
    if steps:  # the weights belong to a network for other channels
        args.pop("in_chans", None)
        model_settings |= steps.pop()
    if steps:
        model_settings["channels_before"] = steps
    new = seed if origin.seed is None else origin.seed
    if new != seed:
        model_settings["seed"] = new
    if origin.build_seed not in (None, new):
        args["seed"] = origin.build_seed
    return {"model": model_settings, "head": info.args.get("head", {})}


def _timm_info(model: nn.Module) -> ModelInfo:
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return ModelInfo(
        architecture=str(config.get("architecture") or type(model).__name__.lower()),
        args={"num_classes": int(getattr(model, "num_classes", 0) or 0)},
        head=_timm_head(model, config),
        feature_stages=_timm_stages(model),
    )


def _timm_head(model: nn.Module, config: dict[str, Any]) -> tuple[str, ...]:
    modules = dict(model.named_modules())
    owners = [name for name, module in modules.items() if own_tensors(module)]
    named = config.get("classifier") or ()
    classifiers = [name for name in ([named] if isinstance(named, str) else named) if name in modules]
    used, features = called(model, "forward_features") or _called_on_an_image(model) or (set(), set(owners))
    after = [name for name in owners if name and name in used and name not in features]
    after += [name for name in owners if is_under(name, classifiers) or _AUXILIARY.search(name)]
    tops = _tops(after, owners)
    return (*tops, *(name for name in classifiers if not is_under(name, tops)))


def _called_on_an_image(model: nn.Module) -> tuple[set[str], set[str]] | None:
    """Return the names of the modules that run, and of those within `forward_features`; None where nothing runs."""
    try:
        used = trace(model, noting=["forward_features"])
        whole = used.pop("forward_features()", None)
        if whole is None:
            return set(used), set(trace(model, method="forward_features"))
    except SettingsError:
        return None
    return set(used), {name for name, call in used.items() if whole.start < call.start < whole.end}


def _tops(chosen: Iterable[str], owners: Iterable[str]) -> tuple[str, ...]:
    """Return the fewest prefixes that hold all the chosen names and no other owner, in the order of the model."""
    inside, others = set(chosen), set(owners) - set(chosen)
    tops: dict[str, None] = {}
    for name in (owner for owner in owners if owner in inside):
        parts = name.split(".")
        prefixes = (".".join(parts[:size]) for size in range(1, len(parts) + 1))
        tops[next(p for p in prefixes if p == name or not any(is_under(other, (p,)) for other in others))] = None
    return tuple(tops)


def _timm_stages(model: nn.Module) -> tuple[str, ...]:
    names = {name for name, _ in model.named_modules()}
    listed = getattr(model, "feature_info", None) or ()
    entries = getattr(listed, "info", listed)
    stages = [entry.get("module", "") for entry in entries if isinstance(entry, dict)]
    return tuple(name for name in stages if name and name in names)


def _unknown_info(model: nn.Module) -> ModelInfo:
    try:
        calls = trace(model)
    except SettingsError:
        calls = {}
    modules = dict(model.named_modules())
    order = list(calls) or list(modules)
    makers = [name for name in order if isinstance(modules[name], (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    head = tuple(name for name in makers if name and not _AUXILIARY.search(name))[-1:]
    output = calls[""].shape if "" in calls else None
    return ModelInfo(
        architecture=type(model).__name__,
        head=head + tuple(name for name, _ in model.named_children() if _AUXILIARY.match(name)),
        feature_stages=_stages_by_size([call for name, call in calls.items() if not any(modules[name].children())]),
        output="segmentation" if output is not None and len(output) == 3 else "softmax",
    )


def _stages_by_size(leaves: list[Call]) -> tuple[str, ...]:
    """Return the last leaf module at each resolution, on the way down."""
    stages: list[tuple[str, int]] = []
    for call in leaves:
        if call.shape is None or len(call.shape) != 3:
            continue
        area = call.shape[1] * call.shape[2]
        if stages and stages[-1][1] == area:
            stages[-1] = (call.name, area)
        elif not stages or area < stages[-1][1]:
            stages.append((call.name, area))
    return tuple(name for name, area in stages if area > 1)
