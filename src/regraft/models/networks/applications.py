"""`keras:NAME`: the networks of keras.applications, built by Keras itself on its torch backend (the extra `keras`).

Names of automatic layers are counted from the start for each network, whatever the process has built before: Keras
keeps its counters by thread, and each network is laid out in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing, Style
from regraft.errors import SettingsError
from regraft.models.channels import change_stem, choose_mix
from regraft.models.describe.info import ModelInfo, set_info
from regraft.models.describe.provenance import Provenance
from regraft.models.keras.layer import Definition, Keras, drawing_nothing, import_keras
from regraft.models.keras.network import Blueprint, KerasNetwork, Ref, Step, has_weights
from regraft.models.keras_forms.rows import Row

__all__ = ["APPLICATIONS", "PREFIX", "Application", "build_application"]

PREFIX = "keras:"
T = TypeVar("T")


@dataclass(frozen=True)
class Application:
    """One network of keras.applications: its preprocessing, and the side of the images that it was made for."""

    mode: Style
    size: int = 224


APPLICATIONS: dict[str, Application] = {
    **{f"ConvNeXt{size}": Application("raw") for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    **{f"DenseNet{depth}": Application("torch") for depth in (121, 169, 201)},
    **{
        f"EfficientNetB{number}": Application("raw", size)
        for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    **{f"EfficientNetV2B{number}": Application("raw", size) for number, size in enumerate((224, 240, 260, 300))},
    **{
        f"EfficientNetV2{letter}": Application("raw", size) for letter, size in zip("SML", (384, 480, 480), strict=True)
    },
    "InceptionResNetV2": Application("tf", 299),
    "InceptionV3": Application("tf", 299),
    "MobileNet": Application("tf"),
    "MobileNetV2": Application("tf"),
    "MobileNetV3Large": Application("raw"),
    "MobileNetV3Small": Application("raw"),
    "NASNetLarge": Application("tf", 331),
    **{f"ResNet{depth}": Application("caffe") for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": Application("tf") for depth in (50, 101, 152)},
    "VGG16": Application("caffe"),
    "VGG19": Application("caffe"),
    "Xception": Application("tf", 299),
}


def build_application(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    **arguments: Any,
) -> KerasNetwork:
    """Build a network of keras.applications, with its top, that gives logits.

    Args:
        name: `keras:` and a name of `APPLICATIONS`.
        num_classes: Number of logits.
        in_chans: Channels of the images. Keras's layout for three is kept, whatever the number.
        **arguments: Further arguments of Keras's function (`alpha` of MobileNet).

    Raises:
        SettingsError: Keras is missing or runs on another backend, or does not take these arguments.
    """
    import_keras()
    application = APPLICATIONS[name.removeprefix(PREFIX)]
    size = (application.size, application.size)
    network = KerasNetwork(_LayOut(name.removeprefix(PREFIX), arguments), num_classes=num_classes, image_size=size)
    pixels = PixelProgram(size, interpolation="bilinear")
    info = ModelInfo(
        architecture=name,
        preprocessing=Preprocessing.styled(application.mode, pixels),
        head=_head(network),
        feature_stages=_stages(network.blueprint),
        origin=Provenance(keras_rows=_rows(network)),
    )
    set_info(network, info)
    if in_chans != 3:
        change_stem(network, info, choose_mix("RGB", in_channels=in_chans))
        info.preprocessing = None
    return network


@dataclass(frozen=True)
class _LayOut:
    """Lays a network out without numbers: (number of classes, image size) -> blueprint."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, num_classes: int, image_size: tuple[int, int]) -> Blueprint:
        with drawing_nothing():
            return _in_a_thread(lambda: self._blueprint(num_classes, image_size))

    def _blueprint(self, num_classes: int, image_size: tuple[int, int]) -> Blueprint:
        keras = import_keras()
        with keras.device("meta"):
            try:
                model = getattr(keras.applications, self.name)(
                    weights=None,
                    classes=num_classes,
                    classifier_activation=None,
                    input_shape=(*image_size, 3),
                    **self.arguments,
                )
            except (ValueError, TypeError) as error:
                raise SettingsError(
                    f"Keras does not build {self.name!r} like this: {' '.join(str(error).split())}",
                    "arguments, an image size and channels that keras.applications takes",
                    "change what the message names",
                ) from error
            image, steps = _steps(model)
        return Blueprint.of(image, steps, image_size)


def _in_a_thread(work: Callable[[], T]) -> T:
    """Keep Keras's automatic names, device and default types by thread: a new one starts afresh."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _steps(model: Keras) -> tuple[str, list[Step]]:
    """Return a functional model of one input as steps; the layers of sequential models inside it stand by
    themselves.
    """
    settings = {layer["name"]: layer for layer in model.get_config()["layers"]}
    image, steps = "", []
    names: dict[str, str] = {}
    for operation in model.operations:
        nodes = settings[operation.name]["inbound_nodes"]
        if not nodes:
            image = names[operation.name] = _module_name(operation.name)
            continue
        inputs = _argument(nodes[0]["args"], names)
        options = {k: _argument(v, names) for k, v in nodes[0]["kwargs"].items() if v is not None and k != "training"}
        for layer in getattr(operation, "layers", None) or [operation]:
            step = Step(_module_name(layer.name), Definition.of(layer), tuple(inputs), options, _shape(layer))
            steps.append(step)
            inputs, options = [Ref(step.name)], {}
        names[operation.name] = steps[-1].name
    return image, steps


def _argument(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return Ref(names[value["config"]["keras_history"][0]])
    if isinstance(value, (list, tuple)):
        return [_argument(item, names) for item in value]
    return value


def _shape(layer: Keras) -> tuple[int | None, ...]:
    return tuple(layer.output.shape[1:])


def _module_name(name: str) -> str:
    return name.replace(".", "_")


def _head(network: KerasNetwork) -> tuple[str, ...]:
    """Return the modules of the head that own weights, or the last one where none does."""
    owners = tuple(name for name in network.head if has_weights(network.get_submodule(name)))
    return owners or network.head[-1:]


def _stages(blueprint: Blueprint) -> tuple[str, ...]:
    """Return the last layer at each resolution, on the way down."""
    ends: dict[int, str] = {}
    smallest = blueprint.image_size[0] * blueprint.image_size[1]
    for step in blueprint.backbone:
        if len(step.shape) == 3 and step.shape[0] and step.shape[1]:
            area = step.shape[0] * step.shape[1]
            if 1 < area <= smallest:  # 1: the pooled features of a squeeze-and-excitation
                smallest = area
                ends[area] = step.name
    return tuple(ends.values())


def _rows(network: KerasNetwork) -> tuple[Row, ...]:
    """Return Keras's listing without the top; a layer with weights is a module's row."""
    rows: list[Row] = [(network.blueprint.image, "InputLayer", None)]
    for step in network.blueprint.backbone:
        owns = has_weights(network.get_submodule(step.name))
        rows.append((step.name, step.definition.name, step.name if owns else None))
    return tuple(rows)
