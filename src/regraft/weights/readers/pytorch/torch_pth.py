"""PyTorch files (`.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`): state dicts, checkpoints, whole modules, TorchScript.

The pickle inside is read as data (`regraft.weights.readers.pickle.unpickle`): storages and plain containers are
rebuilt, every object of another class becomes an inert stub, and nothing is imported or called. Both containers are
read: the zip of torch >= 1.6 (also TorchScript) and the older stream of pickles with raw storages behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import budget, check_shape, shown
from regraft.weights.readers.archive import open_archive
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.numpy.array_names import NamedArray, named_tensors
from regraft.weights.readers.numpy.numpy_pickle import fill, is_array, lenient_calls
from regraft.weights.readers.pickle.unpickle import Global, PickleError, Stub
from regraft.weights.readers.pickle.weight_sets import Leaves, choose_set, class_names, collect, plain, unwrapped
from regraft.weights.readers.pytorch.torch_script import constant_uses
from regraft.weights.readers.pytorch.torch_storage import Content, Storage, damaged, read_legacy, read_zip

__all__ = ["FORMAT", "TensorView", "read", "read_content", "sniff", "source_tensor", "tensor_leaves"]

FORMAT = "torch_pth"

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VIEW_BYTES = 400  # what a tensor of the pickle takes in memory


@dataclass(frozen=True, eq=False)
class TensorView:
    """One tensor of the pickle: a window on a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def load(self) -> NDArray[Any]:
        return self.storage.window(self.offset, self.shape, self.strides, self.dtype)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the content is a file of torch.save or of torch.jit.save."""
    if head.startswith(b"PK\x03\x04"):
        try:
            members = open_archive(open_source(path)).members
        except WeightsError:
            # A zip without its directory: the first member's name is still there to tell what it was.
            return b"data.pkl" in head[:256] or path.suffix in {".pth", ".pt", ".bin", ".ckpt", ".tar"}
        return any(name.split("/")[-1] == "data.pkl" for name in members)
    return head[2:].startswith(_LEGACY_MAGIC)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the tensors of a PyTorch file without running anything of it.

    Args:
        path: The file.
        key: Which set of weights to take, as a dotted path (`state_dict_ema`); None for the raw one.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file, no tensor, no such key.
    """
    source = open_source(path)
    content = read_content(source)
    root, notes = choose_set(content.root, key, tensor_leaves(source))
    views = unwrapped(collect(root, tensor_leaves(source)), notes)
    tensors = {name: source_tensor(name, view) for name, view in views.items()}
    graph: dict[str, Any] | None = None
    if not tensors and key is None and content.producer == "torch.jit":
        tensors, graph = _constants(source, notes)
    if not tensors:
        tensors = _arrays(content, key, source, notes)
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} holds no tensor.",
            "a state dict, a checkpoint or a module with parameters",
            "check that it was saved with `torch.save(model.state_dict(), ...)`",
        )
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=content.producer,
        tensors=tensors,
        graph=graph,
        class_names=class_names(plain(content.root)),
        notes=tuple(notes),
    )


def read_content(source: SourceFile) -> Content:
    """Return what a file of torch.save holds, tensors as `TensorView`.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file.
    """
    is_zip = source.size >= 4 and bytes(source.read(0, 4).data) == b"PK\x03\x04"
    return (read_zip if is_zip else read_legacy)(source, calls=_calls(), fill=fill)


def tensor_leaves(source: SourceFile) -> Leaves:
    """Return what counts as a tensor in the containers of a file of torch.save."""
    return Leaves(str(source.path), lambda value: isinstance(value, TensorView), lambda why: _damaged(source, why))


def _damaged(source: SourceFile, why: str) -> WeightsError:
    return damaged(str(source.path), why)


def _constants(source: SourceFile, notes: list[str]) -> tuple[dict[str, SourceTensor], dict[str, Any] | None]:
    """Return the constants of a frozen module by the layers of its code, and its graph."""
    archive = open_archive(source)
    if not any(name.partition("/")[2] == "constants.pkl" for name in archive.members):
        return {}, None
    root = read_zip(source, calls=_calls(), fill=fill, name="constants").root
    views = [view if isinstance(view, TensorView) else None for view in root] if isinstance(root, tuple) else []
    uses, graph = constant_uses(archive, [view.shape if view else None for view in views])
    tensors: dict[str, SourceTensor] = {}
    for use in uses:
        view, name = views[use.number], f"{use.layer}.{use.role}"
        if view is not None:
            tensors.setdefault(name, SourceTensor(name, view.shape, view.dtype, use.layer, view.load, use.role))
    used = {use.number for use in uses}
    for number, view in enumerate(views):
        if view is not None and number not in used:
            tensors[f"c{number}"] = SourceTensor(f"c{number}", view.shape, view.dtype, f"c{number}", view.load)
    if tensors:
        notes[:] = ["The TorchScript module is frozen: its tensors are constants without names, by order of use."]
    return tensors, graph


def _arrays(content: Content, key: str | None, source: SourceFile, notes: list[str]) -> dict[str, SourceTensor]:
    """Return NumPy arrays that were saved in the place of tensors, for a file without a single tensor."""
    leaves = Leaves(str(source.path), is_array, lambda why: _damaged(source, why))
    root, chosen = choose_set(content.root, key, leaves)
    found = unwrapped(collect(root, leaves), chosen)
    arrays = [
        NamedArray((name,), array.shape, array.dtype, array.values(source, content.pickle_start), array.fortran)
        for name, array in found.items()
    ]
    tensors, layout = named_tensors(arrays)
    notes[:] = [*chosen, *layout]
    return tensors


def source_tensor(name: str, view: TensorView) -> SourceTensor:
    """Return a tensor of the pickle as one of the file; its layer is what stands before the last dot of its name."""
    return SourceTensor(name=name, shape=view.shape, dtype=view.dtype, layer=name.rpartition(".")[0], load=view.load)


# --- what the pickle may call -------------------------------------------------------------------------------------


def _calls() -> dict[str, Any]:
    rebuild = "torch._utils._rebuild_"
    calls: dict[str, Any] = {
        rebuild + "tensor": lambda storage, offset, size, stride: _view(storage, offset, size, stride),
        rebuild + "tensor_v2": lambda storage, offset, size, stride, *_: _view(storage, offset, size, stride),
        rebuild + "tensor_v3": lambda storage, offset, size, stride, grad, hooks, dtype, *_: _view(
            storage, offset, size, stride, dtype
        ),
        rebuild + "parameter": lambda data, *_: data,
        rebuild + "parameter_with_state": lambda data, *_: data,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        "torch._tensor._rebuild_from_type": lambda function, cls, args, *_: _rebuild_from_type(function, cls, args),
        "torch.Size": lambda sizes=(): check_shape(sizes),
        "torch.device": lambda *args: Stub("torch.device", args),
        "torch.serialization._get_layout": lambda *args: Stub("torch.layout", args),
        "torch.jit._pickle.restore_type_tag": lambda value, *_: value,
        **lenient_calls(),
    }
    calls |= {f"torch.jit._pickle.build_{kind}list": _list for kind in ("int", "double", "bool", "tensor")}
    return calls


def _list(items: Any) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise PickleError(f"it holds a list of {shown(items)}")
    budget().hold(8 * len(items))
    return list(items)


def _rebuild_from_type(function: Any, _cls: Any, args: Any, *_state: Any) -> Any:
    name = function.name if isinstance(function, Global) else ""
    handler = _calls().get(name) if not name.startswith("torch._tensor.") else None
    if handler is None or not isinstance(args, tuple):
        raise PickleError(f"a tensor is rebuilt by {shown(name)}, which regraft does not know")
    return handler(*args)


def _view(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> TensorView:
    if not isinstance(storage, Storage):
        raise PickleError("it holds a tensor without a storage")
    if type(offset) is not int:
        raise PickleError("it holds a tensor without an offset into its storage")
    shape, strides = check_shape(size), check_shape(stride)
    kind = storage.dtype if dtype is None else _dtype(dtype)
    storage.check_window(offset, shape, strides, kind)
    budget().hold(_VIEW_BYTES + 16 * len(shape))
    return TensorView(storage, offset, shape, strides, kind)


def _dtype(value: Any) -> str:
    name = value.name if isinstance(value, Global) else value
    return name.removeprefix("torch.") if isinstance(name, str) else ""
