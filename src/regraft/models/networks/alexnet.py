"""AlexNet as Caffe's BVLC model has it: grouped convolutions, ReLU before the normalisation, BGR images of 227 pixels.

Public ports of the same weights differ in three ways that no weights file shows, so they are arguments: the padding of
conv1, the place of the normalisation, and its constants.
torchvision's AlexNet is another one (no groups, no normalisation, RGB images of 224 pixels): `torchvision_alexnet`.
Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012;
Caffe's models/bvlc_alexnet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, set_info

__all__ = ["AlexNet", "NormOrder", "alexnet", "torchvision_alexnet"]

NormOrder = Literal["relu-lrn-pool", "relu-pool-lrn", "relu-pool"]

_SIZE = 227
_WINDOW = 5
_BGR_MEAN = (104.0 / 255, 117.0 / 255, 123.0 / 255)
_BYTE = 1.0 / 255
_TORCHVISION: dict[str, Any] = {
    "conv1_padding": 2,
    "norm_order": "relu-pool",
    "groups": 1,
    "widths": (64, 192, 384, 256, 256),
}


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: by what the size needs, the odd row or column at the end."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


class AlexNet(nn.Module):
    """Five convolutions and three dense layers; images (N, 3, 227, 227) -> logits (N, num_classes).

    Layers have Caffe's names (`conv1` to `fc8`). fc6 takes the feature map flattened as (channels, height, width).

    Args:
        num_classes: Number of logits.
        in_chans: Channels of the images.
        conv1_padding: `valid` (Caffe: 55 pixels behind conv1), `same` (57, as many TensorFlow ports), or a number.
        norm_order: `relu-lrn-pool` (BVLC AlexNet), `relu-pool-lrn` (CaffeNet, some ports), or `relu-pool` without a
            normalisation.
        lrn_alpha: Divided by the window of 5 channels, as in Caffe and torch: 1e-4 is TensorFlow's `alpha=2e-5`, and
            the paper's own undivided 1e-4 is 5e-4 here.
        lrn_k: Added to the sum of squares (TensorFlow's `bias`): 1 in Caffe, 2 in the paper.
        dropout: Fraction dropped before fc7 and fc8 in training.
        groups: Groups of conv2, conv4 and conv5.
        widths: Output channels of the five convolutions.
        hidden: Outputs of fc6 and fc7.

    Raises:
        SettingsError: A padding or an order that does not exist, or widths that the groups cannot share.
    """

    fc8: nn.Linear

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_chans: int = 3,
        conv1_padding: int | Literal["valid", "same"] = "valid",
        norm_order: NormOrder = "relu-lrn-pool",
        lrn_alpha: float = 1e-4,
        lrn_k: float = 1.0,
        dropout: float = 0.5,
        groups: int = 2,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        _check(conv1_padding, norm_order, groups, widths)
        self.num_classes = num_classes
        self.num_features = widths[4]
        self.pretrained_cfg = {"classifier": "fc8", "first_conv": "conv1", "input_size": (in_chans, _SIZE, _SIZE)}
        backbone = _backbone(in_chans, conv1_padding, norm_order, lrn_alpha, lrn_k, groups, widths)
        head = _head(widths[4], hidden, num_classes, dropout)
        self._backbone, self._head = tuple(backbone), tuple(head)
        for name, module in (backbone | head).items():
            self.add_module(name, module)

    def forward_features(self, images: Tensor) -> Tensor:
        """Turn images (N, C, 227, 227) into the feature map (N, 256, 6, 6)."""
        for name in self._backbone:
            images = self.get_submodule(name)(images)
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, 227, 227) into logits (N, num_classes)."""
        values = self.forward_features(images)
        for name in self._head:
            values = self.get_submodule(name)(values)
        return values

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new fc8 instead of the old one."""
        self.num_classes = num_classes
        self.fc8 = nn.Linear(self.fc8.in_features, num_classes)


def alexnet(**arguments: Any) -> AlexNet:
    """Return an `AlexNet` that says about itself what regraft needs to know: head, stages, BGR preprocessing.

    Args:
        **arguments: Those of `AlexNet`.

    Raises:
        SettingsError: As `AlexNet`.
    """
    return _described("alexnet", arguments, arguments, _preprocessing())


def torchvision_alexnet(**arguments: Any) -> AlexNet:
    """Return the network that torchvision calls `alexnet`, with the layer names of ours, for RGB images of 224 pixels.

    Source: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

    Args:
        **arguments: Those of `AlexNet`.

    Raises:
        SettingsError: As `AlexNet`.
    """
    return _described(
        "torchvision_alexnet", arguments, _TORCHVISION | arguments, Preprocessing(PixelProgram((224, 224)))
    )


def _described(
    name: str, given: Mapping[str, Any], arguments: Mapping[str, Any], preprocessing: Preprocessing
) -> AlexNet:
    model = AlexNet(**arguments)
    info = ModelInfo(
        architecture=name,
        args=dict(given),
        preprocessing=preprocessing if arguments.get("in_chans", 3) == 3 else None,
        head=("fc6", "fc7", "fc8"),
        feature_stages=(*_ends_of_stages(arguments.get("norm_order", "relu-lrn-pool")), "relu5", "pool5"),
    )
    set_info(model, info)
    return model


def _ends_of_stages(norm_order: str) -> tuple[str, str]:
    """Return the last modules before the first two poolings."""
    return ("norm1", "norm2") if norm_order == "relu-lrn-pool" else ("relu1", "relu2")


def _preprocessing() -> Preprocessing:
    """Return the preprocessing as Caffe fed it: byte values in BGR order, minus the mean colour of ImageNet."""
    return Preprocessing(PixelProgram((_SIZE, _SIZE)), mean=_BGR_MEAN, std=(_BYTE, _BYTE, _BYTE), channels="BGR")


class ResponseNorm(nn.LocalResponseNorm):
    """Local response normalisation in fp32, whatever it is given: torch has none in bf16 on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float()).to(input.dtype)


def _backbone(
    in_chans: int,
    conv1_padding: int | str,
    norm_order: str,
    lrn_alpha: float,
    lrn_k: float,
    groups: int,
    widths: Sequence[int],
) -> dict[str, nn.Module]:
    """Return the layers up to the feature map, in the order in which they run."""
    first = SameConv2d if conv1_padding == "same" else nn.Conv2d
    padding = conv1_padding if isinstance(conv1_padding, int) else 0
    # Caffe's pooling counts a last window that is not whole; that of the padded ports (TensorFlow, torch) does not.
    ceil = conv1_padding in ("valid", 0)

    def behind(number: int) -> dict[str, nn.Module]:
        kinds = {
            "relu": nn.ReLU(),
            "lrn": ResponseNorm(_WINDOW, alpha=lrn_alpha, beta=0.75, k=lrn_k),
            "pool": nn.MaxPool2d(3, 2, ceil_mode=ceil),
        }
        names = {"relu": "relu", "lrn": "norm", "pool": "pool"}
        return {f"{names[kind]}{number}": kinds[kind] for kind in norm_order.split("-")}

    return {
        "conv1": first(in_chans, widths[0], 11, stride=4, padding=padding),
        **behind(1),
        "conv2": nn.Conv2d(widths[0], widths[1], 5, padding=2, groups=groups),
        **behind(2),
        "conv3": nn.Conv2d(widths[1], widths[2], 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(widths[2], widths[3], 3, padding=1, groups=groups),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(widths[3], widths[4], 3, padding=1, groups=groups),
        "relu5": nn.ReLU(),
        "pool5": nn.MaxPool2d(3, 2, ceil_mode=ceil),
    }


def _head(channels: int, hidden: int, num_classes: int, dropout: float) -> dict[str, nn.Module]:
    return {
        "flatten": nn.Flatten(),
        "fc6": nn.Linear(channels * 6 * 6, hidden),
        "relu6": nn.ReLU(),
        "drop6": nn.Dropout(dropout),
        "fc7": nn.Linear(hidden, hidden),
        "relu7": nn.ReLU(),
        "drop7": nn.Dropout(dropout),
        "fc8": nn.Linear(hidden, num_classes),
    }


def _check(conv1_padding: object, norm_order: str, groups: int, widths: Sequence[int]) -> None:
    mistakes = []
    if conv1_padding not in ("valid", "same") and not (type(conv1_padding) is int and conv1_padding >= 0):
        mistakes.append(f"conv1_padding is {conv1_padding!r}; it is 'valid', 'same' or a number from 0 on")
    if norm_order not in get_args(NormOrder):
        mistakes.append(f"norm_order is {norm_order!r}; it is one of: {', '.join(get_args(NormOrder))}")
    if groups < 1:
        mistakes.append(f"groups is {groups!r}; it is a number from 1 on")
    elif len(widths) != 5 or any(width < 1 or width % groups for width in widths):
        mistakes.append(f"widths is {list(widths)!r}; it is five numbers that can be shared by {groups} group(s)")
    if mistakes:
        raise SettingsError(
            "AlexNet cannot be built as described.", "", "correct these arguments of the model", details=mistakes
        )
