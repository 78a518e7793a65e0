"""Pixels -> what a network takes: channel order and normalisation, on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.cache.loader import Batch
from regraft.data.decode.preprocess import Channels, Preprocessing

__all__ = ["Normaliser"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class Normaliser:
    """Turns pixels (0 to 255, red first) into a network's input, the same in training, validation and prediction.

    Args:
        preprocessing: Whose mean, std and channel order are applied.
        device: Where the result lies.
    """

    def __init__(self, preprocessing: Preprocessing, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._luma = torch.tensor(_LUMA, device=self.device).reshape(1, 3, 1, 1)
        self._grey = preprocessing.channels == "L"
        self._reverse = preprocessing.channels == "BGR"
        self._for_the_eye = _red_green_blue(preprocessing.channels)
        shape = (1, len(preprocessing.mean), 1, 1)
        self._mean = torch.tensor(preprocessing.mean, device=self.device).mul(255).reshape(shape)
        self._scale = 1 / torch.tensor(preprocessing.std, device=self.device).mul(255).reshape(shape)

    def pixels(self, images_NHWC: npt.NDArray[np.uint8]) -> Tensor:
        """Turn uint8 (N, H, W, C) into uint8 (N, C, H, W) on the device; a view where possible (channels last in
        memory).
        """
        return torch.from_numpy(images_NHWC).to(self.device).permute(0, 3, 1, 2)

    def allocate(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return an array for pixels from which they reach the device fastest: on CUDA, in memory that stays where
        it is.
        """
        if self.device.type != "cuda":
            return np.empty(shape, dtype=np.uint8)
        pinned: npt.NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned

    def uploaded(self, given: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor]]:
        """Yield each batch with its `pixels`; on CUDA the next one is on its way while the caller computes."""
        if self.device.type != "cuda":
            for batch in given:
                yield batch, self.pixels(batch.images)
            return
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        sent: tuple[Batch, Tensor] | None = None
        for batch in given:
            with torch.cuda.stream(stream):
                coming = torch.from_numpy(batch.images).to(self.device, non_blocking=True)
            if sent is not None:
                yield sent
            torch.cuda.current_stream(self.device).wait_stream(stream)
            coming.record_stream(torch.cuda.current_stream(self.device))
            sent = batch, coming.permute(0, 3, 1, 2)
        if sent is not None:
            yield sent

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Turn uint8 or float (N, C, H, W) on the scale 0 to 255 into fp32 (N, C or, for grey, 1, H, W), normalised."""
        if self._grey:
            images_NCHW = images_NCHW.float().mul(self._luma).sum(1, keepdim=True)
        elif self._reverse:
            images_NCHW = images_NCHW.flip(1)
        # `float()` of a float tensor is that tensor: subtracting makes the copy that may be scaled in place.
        return images_NCHW.float().sub(self._mean).mul_(self._scale)

    def restored(self, images_NCHW: Tensor) -> npt.NDArray[np.uint8]:
        """Return a network's input (N, C, H, W) as the pixels that it was made of, uint8 (N, H, W, C); grey has lost
        them.
        """
        pixels = (images_NCHW.to(self.device).float() / self._scale + self._mean).round().clamp(0, 255)
        pixels = pixels.flip(1) if self._reverse else pixels
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def undone(self, images_NCHW: Tensor) -> npt.NDArray[np.uint8]:
        """Return a network's input (N, C, H, W) as pixels for the eye, uint8 (N, H, W, 3), red first."""
        pixels = images_NCHW.to(self.device).float() / self._scale + self._mean
        pixels = pixels[:, self._for_the_eye]
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _red_green_blue(channels: Channels) -> list[int]:
    """Return the positions of red, green and blue for display: by name, else the first three, else the first."""
    places = {name: place for place, name in enumerate(channels)}
    if set("RGB") <= set(places):
        return [places[name] for name in "RGB"]
    return [0, 1, 2] if len(places) >= 3 else [0, 0, 0]
