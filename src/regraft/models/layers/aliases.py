"""The names that Keras gives to the layers of the networks that torch has too: `block5_conv1`, `conv5_block3_3_conv`.

Names follow `keras.applications`; ResNets have the older spelling of Keras 2.1 (`res5c_branch2c`) as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from string import ascii_lowercase

from torch import nn

from regraft.models.describe.info import ModelInfo
from regraft.models.keras_forms.inception import INCEPTION_BLOCKS, inception_rows
from regraft.models.keras_forms.mobile_rows import mobilenet_rows
from regraft.models.keras_forms.resnet import resnet_v2_rows
from regraft.models.keras_forms.rows import Row
from regraft.models.keras_forms.xception import xception_rows

__all__ = ["aliases_of", "keras_aliases"]

_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
_DENSE = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.(norm|conv)([12])")
_DENSE_TRANSITION = re.compile(r"features\.transition(\d+)\.(norm|conv)")
_RES = re.compile(r"layer(\d)\.(\d+)(?:\.(conv|bn)(\d)|\.(downsample)\.\d+)?")
_EXPANDED = {  # timm's InvertedResidual -> (EfficientNet's name, MobileNetV2's name)
    "conv_pw": ("expand_conv", "expand"),
    "bn1": ("expand_bn", "expand_BN"),
    "conv_dw": ("dwconv", "depthwise"),
    "bn2": ("bn", "depthwise_BN"),
    "se.conv_reduce": ("se_reduce", "se_reduce"),
    "se.conv_expand": ("se_expand", "se_expand"),
    "conv_pwl": ("project_conv", "project"),
    "bn3": ("project_bn", "project_BN"),
}
_SEPARABLE = {  # timm's DepthwiseSeparableConv: the first block, which does not expand
    "conv_dw": ("dwconv", "depthwise"),
    "bn1": ("bn", "depthwise_BN"),
    "se.conv_reduce": ("se_reduce", "se_reduce"),
    "se.conv_expand": ("se_expand", "se_expand"),
    "conv_pw": ("project_conv", "project"),
    "bn2": ("project_bn", "project_BN"),
}

# Networks whose names are those of Keras's listing, with the classifier; for Inception the blocks have names as well.
_LISTED: dict[str, tuple[Callable[[], Sequence[Row]], str]] = {
    **dict.fromkeys(("resnet50v2", "resnetv2_50"), (resnet_v2_rows, "head.fc")),
    "inception_v3": (inception_rows, "fc"),
    **dict.fromkeys(("xception", "legacy_xception"), (xception_rows, "fc")),
    **dict.fromkeys(("mobilenet", "mobilenetv1_100"), (mobilenet_rows, "classifier")),
}


def aliases_of(model: nn.Module, info: ModelInfo) -> dict[str, tuple[str, ...]]:
    """Do what `keras_aliases` does for a model as it describes itself; an encoder's layers have the names of their
    network.
    """
    encoder = info.origin.encoder
    if encoder is None:
        return keras_aliases(model, info.architecture)
    found = keras_aliases(model.get_submodule("encoder"), encoder.name.partition(".")[0])
    return {f"encoder.{name}": names for name, names in found.items()}


def keras_aliases(model: nn.Module, architecture: str) -> dict[str, tuple[str, ...]]:
    """Return module name to its names in Keras, for the families that Keras has; empty for all others."""
    modules = dict(model.named_modules())
    family = re.sub(r"^(keras_|tf_|timm/)+", "", architecture.lower())
    if family.startswith("vgg") and isinstance(modules.get("features"), nn.Sequential):
        pairs = _vgg(modules)
    elif family.startswith("resnet") and "layer4" in modules:
        pairs = _resnet(modules, old=family.startswith("resnet50"))
    elif family.startswith("densenet"):
        pairs = _densenet(modules)
    elif family.startswith("efficientnet_b") or re.match(r"efficientnetb\d", family):
        pairs = _efficientnet(modules)
    elif family.startswith("mobilenetv2"):
        pairs = _mobilenet_v2(modules)
    elif family in _LISTED:
        pairs = _listed(*_LISTED[family])
    else:
        return {}
    return {name: names for name, names in pairs if name in modules}


def _listed(rows: Callable[[], Sequence[Row]], classifier: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield classifier, ("predictions",)
    yield from ((module, (name,)) for name, _, module in rows() if module)
    if rows is inception_rows:
        yield from ((block, (f"mixed{number}",)) for number, block in enumerate(INCEPTION_BLOCKS))
    if rows is resnet_v2_rows:
        yield from (
            (module.removesuffix(".conv3"), (f"{name.removesuffix('_3_conv')}_out",))
            for name, _, module in rows()
            if module and module.endswith(".conv3")
        )


def _vgg(modules: dict[str, nn.Module]) -> Iterator[tuple[str, tuple[str, ...]]]:
    block, conv = 1, 0
    for name, module in modules["features"].named_children():
        if isinstance(module, nn.Conv2d):
            conv += 1
            yield f"features.{name}", (f"block{block}_conv{conv}",)
        elif isinstance(module, nn.BatchNorm2d):
            yield f"features.{name}", (f"block{block}_bn{conv}",)
        elif isinstance(module, nn.MaxPool2d):
            yield f"features.{name}", (f"block{block}_pool",)
            block, conv = block + 1, 0
    for names, alias in (
        (("pre_logits.fc1", "classifier.0"), "fc1"),
        (("pre_logits.fc2", "classifier.3"), "fc2"),
        (("head.fc", "classifier.6"), "predictions"),
    ):
        yield from ((name, (alias,)) for name in names)


def _resnet(modules: dict[str, nn.Module], *, old: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "conv1", ("conv1_conv", "conv1") if old else ("conv1_conv",)
    yield "bn1", ("conv1_bn", "bn_conv1") if old else ("conv1_bn",)
    yield "maxpool", ("pool1_pool",)
    yield "global_pool", ("avg_pool",)
    yield "fc", ("predictions", "fc1000") if old else ("predictions",)
    for name, module in modules.items():
        match = _RES.fullmatch(name)
        if not match:
            continue
        stage, block = int(match[1]) + 1, int(match[2])
        if match[5] and not isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            continue
        yield name, tuple(_resnet_names(stage, block, match, module, old=old))


def _resnet_names(stage: int, block: int, match: re.Match[str], module: nn.Module, *, old: bool) -> Iterator[str]:
    new, letter = f"conv{stage}_block{block + 1}", ascii_lowercase[block % 26]
    if match[3] is None and match[5] is None:
        yield f"{new}_out"
        return
    kind = "conv" if isinstance(module, nn.Conv2d) else "bn"
    yield f"{new}_{match[4] or 0}_{kind}"
    if old:
        branch = f"branch2{'abc'[int(match[4]) - 1]}" if match[4] else "branch1"
        yield f"{'res' if kind == 'conv' else 'bn'}{stage}{letter}_{branch}"


def _densenet(modules: dict[str, nn.Module]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "features.conv0", ("conv1_conv",)
    yield "features.norm0", ("conv1_bn",)
    yield "features.norm5", ("bn",)
    yield "classifier", ("predictions",)
    for name in modules:
        if match := _DENSE.fullmatch(name):
            place = {"norm1": "0_bn", "conv1": "1_conv", "norm2": "1_bn", "conv2": "2_conv"}[match[3] + match[4]]
            yield name, (f"conv{int(match[1]) + 1}_block{match[2]}_{place}",)
        elif match := _DENSE_TRANSITION.fullmatch(name):
            yield name, (f"pool{int(match[1]) + 1}_{'bn' if match[2] == 'norm' else 'conv'}",)


def _efficientnet(modules: dict[str, nn.Module]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from (("conv_stem", ("stem_conv",)), ("bn1", ("stem_bn",)))
    yield from (("conv_head", ("top_conv",)), ("bn2", ("top_bn",)), ("classifier", ("predictions",)))
    for name, stage, block, place in _inverted(modules):
        yield name, (f"block{stage + 1}{ascii_lowercase[block % 26]}_{place[0]}",)


def _mobilenet_v2(modules: dict[str, nn.Module]) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from (("conv_stem", ("Conv1",)), ("bn1", ("bn_Conv1",)))
    yield from (("conv_head", ("Conv_1",)), ("bn2", ("Conv_1_bn",)), ("classifier", ("predictions",)))
    numbers: dict[tuple[int, int], int] = {}
    for name, stage, block, place in _inverted(modules):
        number = numbers.setdefault((stage, block), len(numbers))
        yield name, (f"block_{number}_{place[1]}" if number else f"expanded_conv_{place[1]}",)


def _inverted(modules: dict[str, nn.Module]) -> Iterator[tuple[str, int, int, tuple[str, str]]]:
    for name in modules:
        if match := _BLOCK.fullmatch(name):
            names = _EXPANDED if f"blocks.{match[1]}.{match[2]}.conv_pwl" in modules else _SEPARABLE
            if match[3] in names:
                yield name, int(match[1]), int(match[2]), names[match[3]]
