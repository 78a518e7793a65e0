"""Tiles: what the whole image gives, seams and all; strips in bounded memory; mirror images."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.segment.networks import vgg_unet
from torch import Tensor, nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.segment.tiles import predict_tiled, tile_strips


class Blur(nn.Module):
    """A network of stride 4 whose pixels depend on at most 12 pixels around them: pooling, 3×3, nearest up, 3×3."""

    stride = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 6, 3, padding=1)
        self.fine = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, (0, -width % 4, 0, -height % 4), mode="replicate")
        coarse = self.down(nn.functional.max_pool2d(padded, 4))
        coarse = nn.functional.interpolate(coarse, size=padded.shape[-2:], mode="nearest")
        logits: Tensor = self.last(torch.relu(coarse + self.fine(padded)))[..., :height, :width]
        return 3 * logits


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(52, 90),
    batch_size=st.integers(1, 3),
    tta=st.sampled_from([None, "flip"]),
)
def test_tiles_give_what_the_whole_image_gives(
    size: tuple[int, int], tile: int, batch_size: int, tta: str | None
) -> None:
    """Everywhere, where all that a pixel depends on lies within a quarter of the overlap."""
    model = Blur().eval()
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(size[0]))
    with torch.no_grad():
        whole = model(image[None]).softmax(1)[0]
    if tta:
        return  # the mirror image of an odd width lies otherwise on the grid; see the test below
    tiled = predict_tiled(model, image, tile=tile, overlap=48, batch_size=batch_size, probabilities=True)
    assert tiled.probabilities is not None
    assert torch.allclose(tiled.probabilities, whole, atol=1e-5)
    assert np.allclose(tiled.confidence, whole.max(0).values.numpy(), atol=1e-5)
    unsure = whole.topk(2, dim=0).values.diff(dim=0).abs()[0] < 1e-4
    assert bool(((torch.from_numpy(tiled.labels) == whole.argmax(0)) | unsure).all())


def test_a_unet_in_tiles() -> None:
    """Depth 2 on VGG: convolutions of 3×3 at strides 1 and 2 reach 12 pixels far."""
    model = vgg_unet(depth=2)
    image = torch.randn(3, 100, 77)
    with torch.no_grad():
        whole = model(image[None]).softmax(1)[0]
    tiled = predict_tiled(model, image, tile=64, overlap=48, probabilities=True)
    assert tiled.probabilities is not None
    assert float((tiled.probabilities - whole).abs().max()) <= 1e-4
    small = predict_tiled(model, image, tile=64, overlap=0, probabilities=True)
    assert small.probabilities is not None
    assert float((small.probabilities - whole).abs().max()) > 1e-4  # seams, where nothing overlaps


def test_seams_are_blended() -> None:
    """A network that answers with the place in its tile: along a seam the answer changes gradually."""

    class Place(nn.Module):
        stride = 8

        def forward(self, images: Tensor) -> Tensor:
            ramp = torch.linspace(-3, 3, images.shape[-1]).expand(images.shape[0], 1, *images.shape[-2:])
            return torch.cat([ramp, -ramp], dim=1)

    tiled = predict_tiled(Place(), torch.zeros(3, 16, 200), tile=64, overlap=32, probabilities=True)
    assert tiled.probabilities is not None
    assert float(tiled.probabilities[0, 0].diff().abs().max()) < 0.1
    hard = predict_tiled(Place(), torch.zeros(3, 16, 200), tile=64, overlap=0, probabilities=True)
    assert hard.probabilities is not None
    assert float(hard.probabilities[0, 0].diff().abs().max()) > 0.5


def test_flip_takes_the_mean_of_the_mirror_images() -> None:
    model = Blur().eval()
    image = torch.randn(3, 40, 64)
    with torch.no_grad():
        both = (model(image[None]).softmax(1) + model(image[None].flip(-1)).softmax(1).flip(-1))[0] / 2
    tiled = predict_tiled(model, image, tile=64, overlap=16, tta="flip", probabilities=True)
    assert tiled.probabilities is not None
    assert torch.allclose(tiled.probabilities, both, atol=1e-6)


def test_strips_come_in_order_and_each_row_once() -> None:
    image = torch.randint(0, 256, (3, 333, 101), dtype=torch.uint8)
    seen = list(
        tile_strips(Blur().eval(), image, tile=64, overlap=32, prepare=lambda crops: crops.float().div(255).sub(0.5))
    )
    assert [strip.top for strip in seen] == np.cumsum([0, *(s.probabilities.shape[1] for s in seen)])[:-1].tolist()
    assert sum(strip.probabilities.shape[1] for strip in seen) == 333
    assert max(strip.probabilities.shape[1] for strip in seen) <= 64


def test_many_classes_have_labels_of_two_bytes() -> None:
    class Many(nn.Module):
        stride = 1

        def forward(self, images: Tensor) -> Tensor:
            return torch.arange(300.0).reshape(1, 300, 1, 1).expand(len(images), 300, *images.shape[-2:])

    labels = predict_tiled(Many(), torch.zeros(3, 5, 4)).labels
    assert labels.dtype == np.uint16
    assert (labels == 299).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tile": 64, "overlap": 64}, "at most 60"),
        ({"overlap": -1}, "overlap is -1"),
        ({"tta": "rotate", "batch_size": 0}, "(?s)tta is 'rotate'.*batch_size is 0"),
    ],
)
def test_mistakes(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        predict_tiled(Blur(), torch.zeros(3, 8, 8), **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(900)  # two minutes on two processors, many more where they are shared
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the largest resident size is read from /proc")
@pytest.mark.parametrize(
    "build", ["'unet', encoder='tf_efficientnet_lite0', classes=12", "'unet', encoder='vgg16', classes=12"]
)
def test_twelve_megapixels_within_two_gibibytes(build: str) -> None:
    """A process of its own; its largest resident size counts, with Python and torch.

    VmHWM is that of the process alone; ru_maxrss begins at what the process that started it had.
    """
    code = f"""
        from pathlib import Path
        import torch
        import regraft as rg
        from regraft.models.segment.tiles import predict_tiled
        model = rg.build_model({build})
        image = torch.randint(0, 256, (3, 3000, 4000), dtype=torch.uint8)
        tiled = predict_tiled(model, image, prepare=lambda crops: crops.float().div(255))
        lines = Path("/proc/self/status").read_text().splitlines()
        print(tiled.labels.shape, *(line.split()[1] for line in lines if line.startswith("VmHWM")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    shape, peak_kib = done.stdout.rsplit(" ", 1)
    print(build, int(peak_kib) / 2**20, "GiB")
    assert shape == "(3000, 4000)"
    assert int(peak_kib) <= 2 * 2**20


def test_the_door_has_it() -> None:
    assert rg.predict_tiled is predict_tiled
