"""SegNet: unpooling by TensorFlow's rule, the mirrored decoder, images of any size, the places of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.models.segment.networks import vgg_segnet
from torch import nn
from torch.nn import functional

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.outputs import output_of
from regraft.models.segment.segnet import pool_with_indices, unpool

Array = NDArray[Any]


def pool_with_argmax(maps_NHWC: Array) -> tuple[Array, Array]:
    """tf.nn.max_pool_with_argmax of 2×2 windows as its documentation words it, without the batch in the index.

    "The indices in argmax are flattened, so that a maximum value at position [b, y, x, c] becomes flattened index:
    (y * width + x) * channels + c". Of equal values the kernel keeps the first in the order of rows.
    """
    num, height, width, channels = maps_NHWC.shape
    pooled = np.empty((num, height // 2, width // 2, channels), maps_NHWC.dtype)
    argmax = np.empty(pooled.shape, np.int64)
    for b, i, j, c in np.ndindex(*pooled.shape):
        best = None
        for y in (2 * i, 2 * i + 1):
            for x in (2 * j, 2 * j + 1):
                if best is None or maps_NHWC[b, y, x, c] > best:
                    best = maps_NHWC[b, y, x, c]
                    argmax[b, i, j, c] = (y * width + x) * channels + c
        pooled[b, i, j, c] = best
    return pooled, argmax


def scatter(pooled: Array, argmax: Array, height: int, width: int) -> Array:
    """tf.scatter_nd of the values to the flattened places of each image."""
    num, _, _, channels = pooled.shape
    flat = np.zeros((num, height * width * channels), pooled.dtype)
    for b in range(num):
        np.add.at(flat[b], argmax[b].reshape(-1), pooled[b].reshape(-1))
    return flat.reshape(num, height, width, channels)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    half=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    levels=st.sampled_from([2, 3, 1000]),
)
def test_unpooling_is_tensorflow_s(seed: int, half: tuple[int, int], levels: int) -> None:
    """On numbers with many ties too, as behind a ReLU."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (2, 2 * half[0], 2 * half[1], 3)).astype(np.float32)
    pooled, argmax = pool_with_argmax(maps)
    given, indices = pool_with_indices(torch.from_numpy(maps).permute(0, 3, 1, 2).contiguous())
    assert np.array_equal(given.permute(0, 2, 3, 1).numpy(), pooled)
    ours = indices.permute(0, 2, 3, 1).numpy() * 3 + np.arange(3)
    assert np.array_equal(ours, argmax)
    back = unpool(given, indices).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(back, scatter(pooled, argmax, 2 * half[0], 2 * half[1]))


def test_ties_are_broken_alike_in_every_layout() -> None:
    maps = torch.randint(0, 2, (2, 16, 32, 32)).float()
    first = pool_with_indices(maps)[1]
    assert torch.equal(first, pool_with_indices(maps.to(memory_format=torch.channels_last))[1])


def test_the_decoder_mirrors_the_encoder() -> None:
    model = rg.build_model("segnet", classes=["sky", "road", "car"])
    assert output_of(model) == "segmentation"
    encoder = [(m.in_channels, m.out_channels) for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    decoder = [(m.out_channels, m.in_channels) for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [*reversed(decoder)] == encoder[1:]
    assert (model.classifier.in_channels, model.classifier.out_channels, model.classifier.kernel_size) == (
        64,
        3,
        (3, 3),
    )
    assert [name for name, _ in model.decoder.named_children()] == [f"block{n}" for n in (5, 4, 3, 2, 1)]
    assert model.stride == 32


def test_it_is_the_network_of_the_paper() -> None:
    """Written down with torch's functions on the same weights."""
    model = vgg_segnet(depth=2, batch_norm=False)
    state = model.state_dict()

    def conv(maps: torch.Tensor, name: str) -> torch.Tensor:
        return functional.relu(functional.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))

    images = torch.randn(2, 3, 8, 12)
    maps = conv(conv(images, "encoder.features.0"), "encoder.features.2")
    maps, first = functional.max_pool2d(maps, 2, return_indices=True)
    maps = conv(conv(maps, "encoder.features.5"), "encoder.features.7")
    maps, second = functional.max_pool2d(maps, 2, return_indices=True)
    maps = conv(conv(functional.max_unpool2d(maps, second, 2), "decoder.block2.conv2"), "decoder.block2.conv1")
    maps = conv(functional.max_unpool2d(maps, first, 2), "decoder.block1.conv2")
    expected = functional.conv2d(maps, state["classifier.weight"], state["classifier.bias"], padding=1)
    with torch.no_grad():
        assert torch.allclose(model(images), expected, atol=1e-5)


@pytest.mark.parametrize("encoder", ["vgg11", "vgg16", "vgg16_bn", "vgg19", "keras_vgg16"])
def test_on_every_vgg_with_and_without_norms(encoder: str) -> None:
    model = rg.build_model("segnet", encoder=encoder, batch_norm=encoder.endswith("bn"), depth=3)
    norms = [name.split(".")[0] for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(norms) == ({"encoder", "decoder"} if encoder.endswith("bn") else set())
    with torch.no_grad():
        assert model(torch.randn(1, 3, 16, 8)).shape == (1, 2, 16, 8)


@pytest.fixture(scope="module")
def segnet() -> nn.Module:
    return vgg_segnet(encoder="vgg16_bn")


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_size(segnet: nn.Module, height: int, width: int) -> None:
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    rows = torch.arange(-(-height // 32) * 32).clamp(max=height - 1)
    columns = torch.arange(-(-width // 32) * 32).clamp(max=width - 1)
    with torch.no_grad():
        logits, whole = segnet(images), segnet(images[:, :, rows][:, :, :, columns])
    assert logits.shape == (1, 3, height, width)
    assert torch.allclose(logits, whole[:, :, :height, :width], atol=1e-5)


def test_an_export_holds_the_unpooling(segnet: nn.Module) -> None:
    images = torch.randn(1, 3, 33, 50)
    program = torch.export.export(segnet, (images,)).module()
    with torch.no_grad():
        assert torch.allclose(program(images), segnet(images), atol=1e-5)


def test_dropout_stands_behind_the_central_blocks() -> None:
    model = rg.build_model("segnet", dropout=0.5)
    layers = list(model.encoder.features.named_children())
    before = {name: layers[place - 1][1] for place, (name, _) in enumerate(layers) if name.startswith("drop")}
    assert sorted(before) == ["drop3", "drop4", "drop5"]
    assert all(isinstance(layer, nn.MaxPool2d) for layer in before.values())
    decoder = [name for name, _ in model.decoder.named_children()]
    assert decoder == ["block5", "drop5", "block4", "drop4", "block3", "drop3", "block2", "block1"]
    assert set(model.state_dict()) == set(rg.build_model("segnet").state_dict())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"encoder": "resnet18"}, "a VGG"),
        ({"depth": 6}, "from 2 to 5"),
        ({"dropout": -0.1, "init": "he"}, "(?s)init is 'he'.*dropout is -0.1"),
    ],
)
def test_mistakes(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rg.build_model("segnet", **arguments)
