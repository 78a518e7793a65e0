"""What may be named to be predicted: files, folders without their masks, patterns; arrays, PIL images, bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.decode.memory import MemoryImage
from regraft.data.inputs import list_inputs, list_named
from regraft.errors import DataError, SettingsError
from regraft.evaluation.mask_files import MaskFolder

PROGRAM = PixelProgram((24, 24))


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(path)
    return path


def names(root: Path, found: Any) -> list[str]:
    return [Path(str(path)).relative_to(root).as_posix() for path in found]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["images/a.jpg", "images/b.jpg"], ["masks/a.png", "masks/b.png"]),
        (["train/images/a.png", "val/images/b.png"], ["train/masks/a.png", "val/masks/b.png"]),
        (["train/a.png", "val/b.png"], ["trainannot/a.png", "valannot/b.png"]),
        (["JPEGImages/a.jpg"], ["SegmentationClass/a.png", "SegmentationObject/a.png"]),
        (["a.jpg", "b.jpg"], ["masks/a.png", "masks/b.png"]),
        (["a.jpg", "deep/b.jpg"], ["a_mask.png", "deep/b_mask.png"]),
        (["scans/images/a.png"], ["scans/labels/deep/a.png"]),
    ],
)
def test_masks_beside_their_images_are_left_out(images: list[str], masks: list[str], tmp_path: Path) -> None:
    for name in (*images, *masks):
        picture(tmp_path / name)
    found, ignored = list_named([str(tmp_path)])
    assert names(tmp_path, found) == sorted(images)
    assert ignored == {"mask of an image": len(masks)}


@pytest.mark.parametrize(
    "files",
    [
        ["label/a.png", "other/b.png"],
        ["masks/a.png", "cats/a.png"],  # a class of masks, as in a shop
        ["target/1.png", "2.png"],
        ["a_mask.png", "b.png"],
        ["train/a.png", "trainers/b.png"],
    ],
)
def test_what_only_sounds_like_a_mask_is_an_image(files: list[str], tmp_path: Path) -> None:
    for name in files:
        picture(tmp_path / name)
    assert names(tmp_path, list_named([str(tmp_path)])[0]) == sorted(files)


def test_masks_that_are_named_themselves_are_images(tmp_path: Path) -> None:
    for name in ("images/a.png", "masks/a.png"):
        picture(tmp_path / name)
    assert names(tmp_path, list_named([str(tmp_path / "masks")])[0]) == ["masks/a.png"]


def test_what_regraft_wrote_is_left_out(tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.jpg")
    folder = MaskFolder(tmp_path / "anywhere", None, np.zeros((256, 3), np.uint8), overlay=True)
    folder.write(str(photo), np.zeros((20, 20), np.uint8))
    run = tmp_path / "runs" / "x"
    picture(run / "predictions" / "test-masks" / "000.png")
    (run / "recipe.yaml").write_text("seed: 1")
    found, ignored = list_named([str(tmp_path)])
    assert names(tmp_path, found) == ["a.jpg"]
    left_out = {"image in a run's folder": 1, "prediction of an earlier command": 2}
    assert ignored == {"not an image": 1, **left_out}


def test_paths_folders_and_patterns_come_in_their_order(tmp_path: Path) -> None:
    for name in ("z.png", "in/b.png", "in/a.png", "more/c.jpg", "more/d.png", "odd[1].png"):
        picture(tmp_path / name)
    given = ["z.png", "in", "more/*.jpg", "odd[1].png", "m?re", "**/d.png"]
    found, _ = list_named([str(tmp_path / name) for name in given])
    expected = ["z.png", "in/a.png", "in/b.png", "more/c.jpg", "odd[1].png", "more/c.jpg", "more/d.png", "more/d.png"]
    assert names(tmp_path, found) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere"], "no file or folder 'nowhere'"),
        (["*.nothing"], "fits the pattern '*.nothing'"),
        (["https://example.org/a.jpg"], "is an address, and regraft downloads nothing"),
        (["s3://bucket/a.jpg"], "is an address"),
        (["nowhere", "*.nothing"], "2 of 2 inputs name no image"),
    ],
)
def test_what_names_no_image_is_refused(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        list_named(given)
    assert said in str(caught.value)


def pixels(seed: int = 0, shape: tuple[int, ...] = (40, 30, 3)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(image: Any) -> np.ndarray[Any, Any]:
    (source,), _ = list_inputs(image)
    assert isinstance(source, MemoryImage)
    return decode(source.read(), PROGRAM)


@pytest.mark.parametrize("shape", [(40, 30, 3), (40, 30, 4), (40, 30), (40, 30, 1), (1, 1, 3)])
def test_an_array_is_what_its_file_is(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = pixels(shape=shape)
    Image.fromarray(array[:, :, 0] if shape[-1] == 1 and len(shape) == 3 else array).save(tmp_path / "a.png")
    expected = decode(tmp_path / "a.png", PROGRAM)
    assert np.array_equal(decoded(array), expected)
    assert np.array_equal(decoded(array[::-1][::-1]), expected)  # not contiguous
    assert np.array_equal(decoded(Image.open(tmp_path / "a.png")), expected)
    assert np.array_equal(decoded((tmp_path / "a.png").read_bytes()), expected)
    assert np.array_equal(decoded([array]), expected)


def test_a_jpeg_that_was_opened_is_what_its_path_is(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(shape=(400, 300, 3)))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    expected = decode(tmp_path / "turned.jpg", PROGRAM)
    with Image.open(tmp_path / "turned.jpg") as opened:
        assert np.array_equal(decoded(opened), expected)
        opened.load()  # what is loaded has been turned as well, from all of its pixels
        assert np.abs(decoded(opened).astype(int) - expected).mean() < 20
        assert opened.size == (300, 400), "the caller's image stays as it is"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "RGBA", "RGBX", "PA"])
def test_pil_images_of_all_kinds_are_pixels(mode: str) -> None:
    if mode in ("LAB", "RGBX", "I;16", "PA"):
        image = Image.new(mode, (30, 40))
    else:
        image = Image.fromarray(pixels()).convert(mode)
    assert decoded(image).shape == (24, 24, 3)


def test_batches_and_lists_are_numbered(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    found, _ = list_inputs(pixels(shape=(3, 40, 30, 3)))
    assert list(map(str, found)) == ["image[0]", "image[1]", "image[2]"]
    found, _ = list_inputs([path, pixels(), Image.open(path), Image.fromarray(pixels())])
    assert list(map(str, found)) == [str(path), "images[1]", str(path), "images[3]"]
    assert list_inputs(np.array([str(path)]))[0] == [str(path)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(1, 3, 32, 32), "is a tensor of the shape (1, 3, 32, 32)"),
        ([torch.zeros(3, 32, 32)], "images[0] is a tensor"),
        (pixels().astype(np.float32), "is an array of float32"),
        (pixels(shape=(3, 40, 30)), "numpy.moveaxis(array, -3, -1)"),
        (pixels(shape=(2, 3, 40, 30)), "numpy.moveaxis(array, -3, -1)"),
        (pixels(shape=(7,)), "is an array of the shape (7,)"),
        (np.zeros((0, 5, 3), np.uint8), "is an array of the shape (0, 5, 3)"),
        (5, "The input is a int"),
        ([None], "images[0] is a NoneType"),
        ([["a.png"]], "images[0] is a list"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        list_inputs(value)
    assert said in str(caught.value)


def heic(size: tuple[int, int], turn: int | None = None) -> bytes:
    plugin = pytest.importorskip("pillow_heif", reason="needs pillow-heif, the extra `heic`")
    image = Image.fromarray(np.repeat(np.repeat(pixels(shape=(4, 3, 3)), size[0] // 4, 0), size[1] // 3, 1))
    file = plugin.from_pillow(image)
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": -1}
    if turn is not None:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif.tobytes()
    file.save(stream, **options)
    return stream.getvalue()


def test_heic_images_are_read() -> None:
    expected = np.repeat(np.repeat(pixels(shape=(4, 3, 3)), 20, 0), 20, 1)
    found = decode(heic((80, 60)), PixelProgram((80, 60)))
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_heic_images_are_turned_once() -> None:
    upright = decode(heic((80, 60)), PixelProgram((80, 60)))
    turned = decode(heic((80, 60), turn=6), PixelProgram((60, 80)))
    assert np.abs(np.rot90(upright, -1).astype(int) - turned).mean() < 6


def test_heic_without_the_plugin_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from regraft.data.decode.decode import decode_or_reason

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\x00\x00\x00\x18ftypheic" + bytes(100)
    assert decode_or_reason(data, PROGRAM) == "is a HEIC image, which needs a plug-in: pip install 'regraft[heic]'"
