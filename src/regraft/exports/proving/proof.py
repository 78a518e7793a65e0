"""The same images through a network and through its sealed file, compared before the file is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.data.decode.decode import PixelProgram, decode_or_reason, resized, upright_or_reason
from regraft.data.decode.upright import upright_size
from regraft.errors import DecodeError, WeightsError
from regraft.evaluation.masks import MaskPredictor
from regraft.evaluation.predict import Predictor
from regraft.exports.proving.odd_images import odd_images
from regraft.exports.running.session import SealedSession
from regraft.models.describe.decide import chosen_places
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser

__all__ = ["LARGEST_DIFFERENCE", "LEAST_PIXELS", "Proof", "contents_of", "prove", "replay"]

Pixels = npt.NDArray[np.uint8]
LARGEST_DIFFERENCE = 1e-3
LEAST_PIXELS = 0.999
_LARGEST_RANK = 0.1  # of the typicality: two validation images of twenty
_PROBE = "golden probe"
_PROBE_TOLERANCE = 1e-3  # of the largest logit: another machine, other kernels


@dataclass
class Proof:
    """What was compared, and how it came out.

    Attributes:
        num_probes: Golden probes that were replayed.
        num_images: Odd images.
        same_class: Images of the same class, or with the same labels.
        largest_difference: Of any probability; of masks the largest share of the pixels of an image that differ.
        typicality_difference: The largest; None where there is no typicality.
        worst: The kind of the image with the largest difference.
    """

    num_probes: int = 0
    num_images: int = 0
    same_class: int = 0
    largest_difference: float = 0.0
    typicality_difference: float | None = None
    worst: str = ""
    differing: list[str] = field(default_factory=list)

    def add(self, kind: str, difference: float, *, same: bool) -> None:
        """Count one image."""
        self.num_images += kind != _PROBE
        self.num_probes += kind == _PROBE
        self.same_class += same
        if not same:
            self.differing.append(kind)
        if difference >= self.largest_difference:
            self.largest_difference, self.worst = difference, kind

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        values = {name: value for name, value in self.__dict__.items() if name not in ("differing", "worst")}
        return {name: value for name, value in values.items() if value is not None}


def replay(model: nn.Module, probes: Mapping[str, Tensor], name: str) -> None:
    """Require that a network gives the logits of its golden probes.

    Raises:
        WeightsError: It does not: it is not the network that was delivered.
    """
    with torch.no_grad():
        logits = model.eval()(probes["images"]).float()
    scale = probes["logits"].abs().max().clamp(min=1e-6)
    apart = float((logits - probes["logits"]).abs().max() / scale) if logits.shape == probes["logits"].shape else 1.0
    if not apart <= _PROBE_TOLERANCE:
        raise WeightsError(
            f"The network of {name!r} does not give the logits of its golden probes: they differ by {apart:.1%}.",
            "the network that the run delivered",
            "restore the run from a copy, or train again",
        )


def contents_of(model: nn.Module, probes: Mapping[str, Tensor] | None) -> list[Pixels]:
    """Return the golden probes as images of the network's size, uint8 (h, w, C), or clouds where there are none.

    Those of a network for segmentation are parts of images, which are smaller.
    """
    preprocessing = preprocessing_of(model)
    if probes is not None and preprocessing.channels != "L":  # whose probes have lost their colours
        images = Normaliser(preprocessing).restored(probes["images"])
        return [_at_size(image, preprocessing.pixels.size) for image in images]
    rng = np.random.default_rng(0)
    return [_clouds(rng, preprocessing.pixels.num_channels) for _ in range(8)]


def prove(
    session: SealedSession,
    model: nn.Module,
    contents: Sequence[Pixels],
    num: int,
    *,
    probes: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Compare a sealed file with its network on golden probes and odd images.

    Args:
        session: The file.
        model: The network.
        contents: From `contents_of`.
        num: How many odd images.
        probes: Whether the contents are the golden probes.
        progress: Called with (images done, images in all).

    Raises:
        WeightsError: They say something else of an image, or probabilities differ by more than 0.001, or masks in more
            than 0.1 % of the pixels of an image.
    """
    numerics = choose_numerics("cpu", "fp32", torch.get_num_threads(), inference="fp32")
    program = preprocessing_of(model).pixels
    images = _images(contents, num, program, probes=probes)
    total = num + (len(contents) if probes else 0)
    proof = Proof()
    masks = info_of(model).output == "segmentation"
    compare = _Masks(session, model, numerics) if masks else _Names(session, model, numerics)
    for done, image in enumerate(images):
        compare(image, proof)
        progress(done + 1, total)
    _require(proof, masks=masks)
    return proof


def _require(proof: Proof, *, masks: bool) -> None:
    total = proof.num_probes + proof.num_images
    limit = 1 - LEAST_PIXELS if masks else LARGEST_DIFFERENCE
    judged_alike = (proof.typicality_difference or 0.0) <= _LARGEST_RANK
    if proof.same_class == total and proof.largest_difference <= limit and judged_alike:
        return
    kinds = ", ".join(sorted(set(proof.differing))[:5])
    typical = "" if judged_alike else f"; typicality differs by up to {proof.typicality_difference:.2f}"
    what = (
        f"masks differ in up to {proof.largest_difference:.2%} of the pixels of an image"
        if masks
        else f"probabilities differ by up to {proof.largest_difference:.2g}"
    )
    raise WeightsError(
        f"The exported network does not say what the run says: {proof.same_class} of {total} images have the same "
        f"classes, and {what} (the most: {proof.worst}{f'; other classes: {kinds}' if kinds else ''}{typical}).",
        f"all images, and at most {limit:g}",
        "nothing was written; report it with the name of the network, and predict with `regraft predict RUN`",
    )


class _Names:
    """Compares probabilities, and the names that follow from them."""

    def __init__(self, session: SealedSession, model: nn.Module, numerics: Numerics) -> None:
        self._session = session
        self._judged = "typicality" in session.outputs
        self._predictor = Predictor(model, numerics, reject=self._judged)

    def __call__(self, image: _Image, proof: Proof) -> None:
        seal = self._session.seal
        (said,) = self._predictor.predict_pixels(image.final[None])
        resize = image.resize and self._session.resizes
        given = self._session.run((image.upright if resize else image.final)[None], resize=resize)
        shares = given["probabilities"][0]
        wanted = np.array([said.probabilities[name] for name in seal.class_names])
        named = [chosen_places(values, seal.class_names, seal.thresholds) for values in (shares, wanted)]
        proof.add(image.kind, float(np.abs(shares - wanted).max()), same=named[0] == named[1])
        if said.typicality is not None:
            apart = abs(float(given["typicality"][0]) - said.typicality)
            proof.typicality_difference = max(proof.typicality_difference or 0.0, apart)


class _Masks:
    """Compares masks, pixel by pixel."""

    def __init__(self, session: SealedSession, model: nn.Module, numerics: Numerics) -> None:
        self._session = session
        self._predictor = MaskPredictor(model, numerics)

    def __call__(self, image: _Image, proof: Proof) -> None:
        said = self._predictor.predict_pixels(image.kind, image.final, image.size)
        given = self._session.run(image.upright[None], resize=image.resize, size=image.size)
        apart = float((given["mask"][0] != said.mask).mean())
        proof.add(image.kind, apart, same=apart <= 1 - LEAST_PIXELS)


class _Image(NamedTuple):
    """One image for both.

    Attributes:
        kind: What is odd about it.
        upright: Its pixels, for the file.
        final: What the pixel program makes of them, for the network.
        size: Height and width of the image in its file, upright.
        resize: Whether the sealed file has the pixel program to carry out.
    """

    kind: str
    upright: Pixels
    final: Pixels
    size: tuple[int, int]
    resize: bool = True


def _images(contents: Sequence[Pixels], num: int, program: PixelProgram, *, probes: bool) -> Iterator[_Image]:
    for content in contents if probes else ():
        yield _Image(_PROBE, content, content, (content.shape[0], content.shape[1]), resize=False)
    if program.bands:
        yield from _of_bands(contents, num, program)
        return
    for kind, data in odd_images(num, contents):
        size, upright, final = upright_size(data), upright_or_reason(data, program), decode_or_reason(data, program)
        if isinstance(size, str) or isinstance(upright, str) or isinstance(final, str):
            raise DecodeError(f"An image that was made to compare with ({kind}) {upright}.")
        yield _Image(kind, upright, final, size)


def _of_bands(contents: Sequence[Pixels], num: int, program: PixelProgram) -> Iterator[_Image]:
    """Yield images of many bands: of sizes that no file format limits."""
    for place in range(num):
        rng = np.random.default_rng([1, place])
        height, width = (int(side) for side in rng.choice([1, 24, 48, 96, 200, 384, 1000], 2))
        content = contents[int(rng.integers(len(contents)))]
        planes = [Image.fromarray(content[:, :, band]).resize((width, height)) for band in range(content.shape[2])]
        final = [resized(plane, program, fill) for plane, fill in zip(planes, program.beside, strict=True)]
        upright, pixels = (np.stack([np.asarray(plane) for plane in each], axis=2) for each in (planes, final))
        yield _Image(f"{height} x {width}", upright, pixels, (height, width))


def _at_size(image: Pixels, size: tuple[int, int]) -> Pixels:
    if image.shape[:2] == size:
        return image
    planes = [Image.fromarray(image[:, :, band]).resize((size[1], size[0])) for band in range(image.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _clouds(rng: np.random.Generator, channels: int) -> Pixels:
    """Return something with large and small shapes."""
    planes = []
    for _ in range(channels):
        rough = [Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)) for side in (4, 24)]
        smooth = [np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC), np.float32) for image in rough]
        planes.append(0.7 * smooth[0] + 0.3 * smooth[1])
    clouds: Pixels = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    return clouds
