"""Whether a tensor of the file fits a place in the model, and by which steps it gets there."""

from __future__ import annotations

from regraft.weights.axes import Reshape, Step, SumChannels, Transpose, WidenChannels, kernel_steps, torch_shape
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.naming.layers import Layer, Slot

__all__ = ["Fitter", "reads_image"]


class Fitter:
    """Holds the shapes of one file against those of a model.

    Args:
        weights: The file.
        adapt_input: Whether a stem may take another number of input channels than the file's.
    """

    def __init__(self, weights: WeightFile, *, adapt_input: bool = False) -> None:
        self._adapt_input = adapt_input
        self.rows = "HWC" if _channels_last(weights) else "CHW"

    def fits(self, target: Layer, source: Layer) -> bool:
        """Return whether a layer of the file can be this layer of the model, by its kernel or its channels."""
        slot, tensor = target.tensors.get("kernel"), source.tensors.get("kernel")
        if slot is not None and tensor is not None:
            return self.steps(slot, tensor) is not None
        if slot is not None or tensor is not None:
            return False
        if target.kind == "norm" or source.kind == "norm":
            return target.kind == source.kind and target.shape == source.shape
        shared = [role for role in target.tensors if role in source.tensors]
        return bool(shared) and all(target.tensors[role].shape == source.tensors[role].shape for role in shared)

    def steps(self, slot: Slot, tensor: SourceTensor) -> tuple[Step, ...] | None:
        """Return the steps from a tensor of the file to one of the model, or None."""
        if slot.role.endswith("kernel"):
            if self._adapt_input and reads_image(slot):
                return _adapted(slot, tensor)
            return self._kernel_steps(slot, tensor)
        if tensor.shape == slot.shape:
            return ()
        same = [length for length in tensor.shape if length > 1] == [length for length in slot.shape if length > 1]
        return (Reshape(slot.shape),) if same else None

    def _kernel_steps(self, slot: Slot, tensor: SourceTensor) -> tuple[Step, ...] | None:
        same_rows = slot.rows == "HWC" and self.rows == "HWC" and len(torch_shape(tensor.shape, tensor.axes)) == 2
        flattened = None if same_rows else slot.flattened
        steps = kernel_steps(tensor.shape, tensor.axes, slot.shape, flattened=flattened, rows=self.rows)
        if steps is None or flattened is None or slot.rows == "CHW":
            return steps
        channels, height, width = flattened  # in torch's order so far
        return (*steps, Reshape((slot.shape[0], channels, height, width)), Transpose((0, 2, 3, 1)), Reshape(slot.shape))


def reads_image(slot: Slot) -> bool:
    """Return whether it is the kernel of a layer that takes the image itself."""
    return slot.role.endswith("kernel") and len(slot.shape) == 4 and slot.inputs == ("",)


def _adapted(slot: Slot, tensor: SourceTensor) -> tuple[Step, ...] | None:
    """Return the steps of a stem that takes another number of input channels."""
    plain = torch_shape(tensor.shape, tensor.axes)
    same = len(plain) == 4 and plain[0] == slot.shape[0] and plain[2:] == slot.shape[2:]
    steps = kernel_steps(tensor.shape, tensor.axes, plain) if same else None
    if steps is None or plain[1] == slot.shape[1]:
        return steps
    return (*steps, SumChannels() if slot.shape[1] == 1 else WidenChannels(slot.shape[1]))


def _channels_last(weights: WeightFile) -> bool:
    """Return whether the network that the file was made for flattened NHWC features."""
    axes = {tensor.axes for tensor in weights if tensor.axes}
    if weights.format == "tflite" or any(name.startswith("HW") for name in axes):
        return True
    return weights.format in ("keras_h5", "keras_v3") and not any(name.endswith("HW") for name in axes)
