"""How much each place of a network's last map adds to what it says of a class: gradient times value, in one pass.

Behind global pooling and a linear layer this is the class activation map itself (Zhou et al. 2016), and the same as
Grad-CAM (Selvaraju et al. 2017). Heads that flatten the map see which place is which, and Grad-CAM's mean over the
gradients forgets it; the product place by place (HiResCAM, Draelos and Carin 2020) does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.compute.numerics import Numerics, exact_products
from regraft.compute.program import lay_out
from regraft.errors import SettingsError
from regraft.explanation.last_map import LastMap, MapsSeen, find_last_map
from regraft.models.describe.trace import plain

__all__ = ["EvidenceMaps", "class_score"]

Scores = Callable[[Tensor], Sequence[Tensor]]
Places = npt.NDArray[np.float32]


def class_score(logits: Tensor, output: str, place: Tensor) -> Tensor:
    """Return what speaks for one class of each image, (N,) or, for pixels, (N, H, W).

    Of logits that go through a softmax only differences mean anything, so that the class is compared with the mean of
    all; a sigmoid's logit speaks for the second class, or for its label, by itself.

    Args:
        logits: (N, num_logits), or (N, num_logits, H, W).
        output: What they mean, a key of `OUTPUTS`.
        place: The class of each image, as its position in the class names, (N,) of int64.
    """
    if output == "binary":
        return logits[:, 0] * (2 * place - 1)
    chosen = place.reshape(-1, 1, *[1] * (logits.ndim - 2)).expand(-1, 1, *logits.shape[2:])
    own = logits.gather(1, chosen)[:, 0]
    return own if output == "multilabel" else own - logits.mean(1)


class EvidenceMaps:
    """A copy of a network, in fp32, that tells what each place of its last map adds to a score.

    Args:
        model: Any network of one input; it stays as it was.
        numerics: Device, layout, threads.

    Attributes:
        last_map: Where the map is; None before the first images.
    """

    def __init__(self, model: nn.Module, numerics: Numerics) -> None:
        self._model = copy.deepcopy(plain(model)).eval().requires_grad_(False)
        lay_out(self._model.to(numerics.device, torch.float32), numerics)
        self._layout = numerics.memory_format
        self.last_map: LastMap | None = None

    def __call__(self, inputs_NCHW: Tensor, scores: Scores) -> tuple[Tensor, list[Places]]:
        """Run the network once, and backwards from its head for each score.

        Args:
            inputs_NCHW: Normalised images, all of one size.
            scores: Logits -> scores (N,), one for each image.

        Returns:
            The logits; and for each score what each place adds to it, (N, height, width) of the map.

        Raises:
            SettingsError: The network has no map of places.
        """
        inputs_NCHW = inputs_NCHW.float().contiguous(memory_format=self._layout)
        with torch.inference_mode(False), exact_products():
            if self.last_map is None:
                self.last_map = find_last_map(self._model, inputs_NCHW)
            logits, held = self._run(inputs_NCHW, self.last_map.place)
            with torch.enable_grad():
                wanted = scores(logits)
                maps = [self._added(score, held, is_last=score is wanted[-1]) for score in wanted]
        return logits.detach(), maps

    def _run(self, inputs_NCHW: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Return the logits, and the map that their gradients go back to: nothing before it is recorded."""
        held: list[Tensor] = []

        def take(number: int, output: Tensor) -> Tensor:
            if number != place:
                return output
            held.append(output.detach().requires_grad_())
            torch.set_grad_enabled(True)  # until the end of `no_grad` below
            return held[0].clone()  # which later layers may change in place

        with torch.no_grad(), MapsSeen(take):
            logits = self._model(inputs_NCHW)
        if not held or not logits.requires_grad:
            raise SettingsError(
                "The network's last map was not found again in a second pass.",
                "a network that does the same for all images",
                "`rg.tap` and `rg.list_layers` look at its layers one by one",
            )
        return logits, held[0]

    def _added(self, score: Tensor, held: Tensor, *, is_last: bool) -> Places:
        (gradient,) = torch.autograd.grad(score.sum(), held, retain_graph=not is_last, allow_unused=True)
        axis = 1 if self.last_map is None else self.last_map.channels_axis
        gradient = torch.zeros_like(held) if gradient is None else gradient
        added: Places = (gradient * held.detach()).sum(axis).float().cpu().numpy()
        return added
