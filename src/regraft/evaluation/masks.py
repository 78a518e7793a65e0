"""Files in, masks out: each pixel gets a class, at the size of the image, whatever its size is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.compute.program import InferenceProgram, inference_program
from regraft.data.class_table import default_colours
from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.memory import MemoryImage, read_source
from regraft.data.decode.upright import filled_part, upright_size
from regraft.data.inputs import list_inputs
from regraft.errors import SettingsError
from regraft.evaluation.predict import Inputs
from regraft.evaluation.results.mask import MaskPrediction, palette_of
from regraft.machine.prefetch import Prefetch, thread_pool
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.segment.tiles import TTA, Strip, tile_strips
from regraft.models.segment.upscale import resized_rows
from regraft.models.store.folder import loaded_model

__all__ = ["MaskPredictor", "predict_masks"]

Mask = npt.NDArray[np.uint8]
_AHEAD = 2  # images that are decoded while one is computed
_STRIDE = 32  # of tile corners, where the network does not say its own


@dataclass(frozen=True)
class _Decoded:
    """Pixels (h, w, 3) and the height and width of the image in its file, upright."""

    pixels: Mask
    size: tuple[int, int]


class MaskPredictor:
    """A loaded network for segmentation, ready to predict many images.

    By itself it looks at images at the size that it was trained at, and the logits are brought to the image's own size
    by bilinear interpolation. With `tile` it looks at the image's own pixels, in tiles of that side.

    Args:
        model: From `load_model`: it has class names and preprocessing.
        numerics: Device, precision of inference, layout, threads; None chooses for this machine.
        tile: Side of the tiles in pixels; None for the size of the training.
        overlap: How many pixels neighbouring tiles share; None takes a quarter of their side.
        tta: `flip` takes the mean of the probabilities of an image and its mirror image.

    Attributes:
        palette: Red, green, blue of each value of a mask, uint8 (256, 3).
        calibration: What logits are divided by before they become probabilities; None divides by nothing.

    Raises:
        SettingsError: The model names no classes of pixels, or the images that it takes are cut.
    """

    def __init__(
        self,
        model: nn.Module,
        numerics: Numerics | None = None,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        tta: TTA | None = None,
    ) -> None:
        info = info_of(model)
        if info.class_names is None or info.preprocessing is None or info.output != "segmentation":
            raise SettingsError(
                f"The model is not a segmentation network that knows its classes (its output is {info.output}).",
                "one that was trained on images with masks",
                "load it with `rg.load_model(PATH)`",
            )
        self.class_names: Sequence[str] = info.class_names
        self.numerics = (numerics or choose_numerics()).for_inference
        preprocessing = info.preprocessing
        self.pixels: PixelProgram = preprocessing.pixels
        if self.pixels.resize == "crop":
            raise SettingsError(
                "The model was trained on images whose borders are cut off (resize: crop).",
                "a model that sees whole images, so that each pixel gets a class",
                "train with `data.resize: squash`, or pad",
            )
        self.palette = palette_of(info.colours or default_colours(self.class_names))
        self.tile, self.tta = tile, _known(tta)
        self.calibration = info.calibration
        self.overlap = overlap if overlap is not None else (tile or 0) // 4
        self.stride = int(getattr(model, "stride", _STRIDE))
        self._normaliser = Normaliser(preprocessing, self.numerics.device)
        self._program: InferenceProgram = inference_program(model, self.numerics, 1)

    def predict(self, paths: Iterable[str | MemoryImage]) -> Iterator[MaskPrediction]:
        """Yield one prediction for each image, in order; files are decoded a little ahead."""
        for path, decoded in self._decoded(paths):
            if isinstance(decoded, str):
                yield MaskPrediction(path, None, {}, None, decoded)
            else:
                yield self._prediction(path, decoded)

    def strips(self, paths: Iterable[str]) -> Iterator[tuple[str, tuple[int, int], Iterator[Strip] | str]]:
        """Yield for each path the size of the image and its probabilities from the top down; or why it cannot be
        read.
        """
        for path, decoded in self._decoded(paths):
            if isinstance(decoded, str):
                yield path, (0, 0), decoded
            else:
                yield path, decoded.size, self._strips(decoded)

    def run(self, images_NHWC: Mask) -> Tensor:
        """Return pixels uint8 (N, h, w, C) of the model's image size -> raw logits (N, classes, h, w) on the device."""
        images = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2)
        return torch.cat([self._raw(self._prepared(image[None])) for image in images])

    def predict_pixels(self, path: str, pixels: Mask, size: tuple[int, int]) -> MaskPrediction:
        """Return the prediction for pixels (h, w, C) that went through the model's program.

        Args:
            path: What the image is called.
            pixels: uint8.
            size: Height and width of the image itself, upright.
        """
        return self._prediction(path, _Decoded(pixels, size))

    def _prediction(self, path: str, decoded: _Decoded) -> MaskPrediction:
        mask = np.empty(decoded.size, np.uint8)
        confidence = 0.0
        for strip in self._strips(decoded):
            best, places = strip.probabilities.max(dim=0)
            mask[strip.top : strip.top + len(places)] = places.numpy()
            confidence += float(best.double().sum())
        counts = np.bincount(mask.ravel(), minlength=len(self.class_names)) / mask.size
        shares = dict(zip(self.class_names, counts.tolist(), strict=True))
        return MaskPrediction(path, mask, shares, confidence / mask.size)

    def _strips(self, decoded: _Decoded) -> Iterator[Strip]:
        image = torch.from_numpy(decoded.pixels).permute(2, 0, 1)
        if self.tile is not None:
            yield from tile_strips(
                self._logits,
                image,
                tile=self.tile,
                overlap=self.overlap,
                tta=self.tta,
                prepare=self._prepared,
                stride=self.stride,
            )
            return
        maps = self._inside(self._logits(self._prepared(image[None]))[0], decoded.size)
        if self.tta is None:
            for top, part in resized_rows(maps, decoded.size):
                yield Strip(top, part.softmax(0).cpu())
            return
        mirrored = self._inside(self._logits(self._prepared(image[None].flip(-1)))[0].flip(-1), decoded.size)
        pairs = zip(resized_rows(maps, decoded.size), resized_rows(mirrored, decoded.size), strict=True)
        for (top, part), (_, other) in pairs:
            yield Strip(top, ((part.softmax(0) + other.softmax(0)) / 2).cpu())

    def _logits(self, inputs: Tensor) -> Tensor:
        logits = self._raw(inputs)
        return logits if self.calibration is None else self.calibration(logits, "segmentation")

    @torch.no_grad()
    def _raw(self, inputs: Tensor) -> Tensor:
        (logits,) = self._program(inputs)
        return logits.float()

    def _prepared(self, images_NCHW: Tensor) -> Tensor:
        return self._normaliser(images_NCHW.to(self.numerics.device))

    def _inside(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the part of the maps (C, h, w) that the image fills: all of it, unless it was padded."""
        top, left, height, width = filled_part(self.pixels, size)
        return maps[:, top : top + height, left : left + width]

    def _decoded(self, paths: Iterable[str | MemoryImage]) -> Iterator[tuple[str, _Decoded | str]]:
        with thread_pool(1, "decode") as pool:
            for path, decoded in Prefetch(
                lambda one: (str(one), pool.submit(_decode, one, self.pixels, self.tile is not None)), paths, _AHEAD
            ):
                yield path, decoded.result()


def predict_masks(
    model: str | Path | nn.Module,
    inputs: Inputs,
    *,
    numerics: Numerics | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tta: TTA | None = None,
    checkpoint: str | None = None,
) -> list[MaskPrediction]:
    """Return the class of each pixel of images by torch, as `regraft.predict_masks` says.

    Raises:
        SettingsError: There is no model there, or it is none for segmentation; or an input is no image.
        DataError: There is no such file or folder.
    """
    loaded = loaded_model(model, checkpoint)
    paths, _ = list_inputs(inputs)
    return list(MaskPredictor(loaded, numerics, tile=tile, overlap=overlap, tta=tta).predict(paths))


def _decode(source: str | MemoryImage, program: PixelProgram, whole: bool) -> _Decoded | str:
    """Return the pixels of an image by its program, or `whole` as they are; or why it cannot be read."""
    data = read_source(source)
    size = data if isinstance(data, str) else upright_size(data)
    if isinstance(size, str) or isinstance(data, str):
        return str(size)
    if whole:
        program = replace(program, size=size, stored=None, resize="squash", draft=False)
    pixels = decode_or_reason(data, program)
    return pixels if isinstance(pixels, str) else _Decoded(pixels, size)


def _known(tta: TTA | None) -> TTA | None:
    if tta in (None, "flip"):
        return tta
    raise SettingsError(f"There is no test-time augmentation {tta!r} for masks.", "flip", "leave it out, or set flip")
