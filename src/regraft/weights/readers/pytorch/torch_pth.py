"""PyTorch files (`.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`): state dicts, checkpoints, whole modules, TorchScript.

The pickle inside is read as data (`regraft.weights.readers.pickle.unpickle`): storages and plain containers are
rebuilt, every object of another class becomes an inert stub, and nothing is imported or called. Both containers are
read: the zip of torch >= 1.6 (also TorchScript) and the older stream of pickles with raw storages behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import MAX_DEPTH, budget, check_name, check_shape, shown
from regraft.weights.readers.archive import open_archive
from regraft.weights.readers.byte_range import open_source
from regraft.weights.readers.pickle.unpickle import Global, PickleError, Stub
from regraft.weights.readers.pytorch.torch_storage import Storage, damaged, read_legacy, read_zip

__all__ = ["FORMAT", "TensorView", "read", "sniff"]

FORMAT = "torch_pth"

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Where one file holds several sets of weights, the first of these that it has is taken: the raw weights.
_RAW_SETS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "backbone")
_NOT_WEIGHTS: tuple[str, ...] = (
    "optim",
    "scheduler",
    "scaler",
    "sched",
    "rng",
    "hparams",
    "hyper_parameters",
    "loops",
    "callbacks",
)
_WRAPPERS = ("module.", "_orig_mod.")
_VIEW_BYTES = 400  # what a tensor of the pickle takes in memory
_MAX_TENSORS = 1_000_000


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
    if head[2:].startswith(_LEGACY_MAGIC):
        return True
    return head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and not head.startswith(b"\x93NUMPY")


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the tensors of a PyTorch file without running anything of it.

    Args:
        path: The file.
        key: Which set of weights to take, as a dotted path (`state_dict_ema`); None for the raw one.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file, no tensor, no such key.
    """
    with path.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    content = read_zip(path, calls=_calls()) if is_zip else read_legacy(path, calls=_calls())
    root, notes = _choose_set(content.root, key, str(path))
    views = _collect(root, path)
    if not views:
        raise WeightsError(
            f"{str(path)!r} holds no tensor.",
            "a state dict, a checkpoint or a module with parameters",
            "check that it was saved with `torch.save(model.state_dict(), ...)`",
        )
    prefix = _wrapper_prefix(list(views))
    if prefix:
        notes.append(f"prefix {prefix!r} removed from every name")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=content.producer,
        tensors={name: _source(name, view) for name, view in _strip(views, prefix).items()},
        class_names=_class_names(_plain(content.root)),
        notes=tuple(notes),
    )


def _source(name: str, view: TensorView) -> SourceTensor:
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
        "numpy.core.multiarray.scalar": lambda *args: Stub("numpy.scalar", args),
        "numpy._core.multiarray.scalar": lambda *args: Stub("numpy.scalar", args),
        "numpy.core.multiarray._reconstruct": lambda *args: Stub("numpy.ndarray", args),
        "numpy._core.multiarray._reconstruct": lambda *args: Stub("numpy.ndarray", args),
        "numpy.dtype": lambda *args: Stub("numpy.dtype", args),
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


# --- which of its tensors are the weights -------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return a stub's state in the place of the stub (modules: their parameters, buffers and children by name)."""
    if not isinstance(value, Stub):
        return value
    state = value.state
    if "_parameters" not in state and "_modules" not in state:
        return state
    inside: dict[str, Any] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        members = state.get(part)
        if isinstance(members, Mapping):
            skipped = state.get("_non_persistent_buffers_set") if part == "_buffers" else None
            inside |= {
                name: member for name, member in members.items() if not isinstance(skipped, set) or name not in skipped
            }
    return inside


class _Counts:
    """How many tensors are below each container; one that is shared is counted once and then known."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: dict[int, tuple[Any, int]] = {}

    def below(self, value: Any, depth: int = 0) -> int:
        """Return the number of tensors, each as often as a path leads to it."""
        if isinstance(value, TensorView):
            return 0 if depth == 0 else 1
        if id(value) in self._known:
            return self._known[id(value)][1]
        members = _plain(value)
        if not isinstance(members, Mapping):
            return 0
        if depth > MAX_DEPTH:
            raise damaged(self._where, "its containers are nested too deeply")
        self._known[id(value)] = value, 0  # a container that holds itself
        budget().step(1 + len(members))
        count = min(sum(self.below(member, depth + 1) for member in members.values()), _MAX_TENSORS + 1)
        self._known[id(value)] = value, count
        return count

    def is_set(self, name: Any, value: Any) -> bool:
        """Return whether it may be a set of weights, by its name and by what it holds."""
        lowered = name.lower() if isinstance(name, str) else ""
        return not any(lowered.startswith(word) for word in _NOT_WEIGHTS) and self.below(value) > 0


def _choose_set(root: Any, key: str | None, where: str) -> tuple[Any, list[str]]:
    counts = _Counts(where)
    if key is not None:
        return _follow(root, key, where, counts), [f"using the set {key!r}, as requested"]
    notes: list[str] = []
    while isinstance(root, Mapping) and len(notes) < MAX_DEPTH:  # the children of a module are never sets
        sets = {name: counts.below(value) for name, value in root.items() if counts.is_set(name, value)}
        num_direct = sum(isinstance(value, TensorView) for value in root.values())
        raw = next((name for name in _RAW_SETS if sets.get(name, 0) > num_direct), None)
        if raw is None:
            break
        others = [_text(name)[:80] for name, count in sets.items() if name != raw and count > 1]
        more = ", ..." if others[8:] else ""
        also = f"; the file also contains {', '.join(others[:8])}{more}" if others else ""
        notes.append(f"using the set {raw!r}{also}")
        root = root[raw]
    return root, notes


def _text(name: Any) -> str:
    """Return a key of a container as a part of a name."""
    return name if isinstance(name, str) else shown(name)


def _follow(root: Any, key: str, where: str, counts: _Counts) -> Any:
    root = value = _plain(root)
    for part in key.split("."):
        value = _plain(value)
        if not isinstance(value, Mapping) or part not in value:
            inside = root.items() if isinstance(root, Mapping) else ()
            sets = [_text(name)[:80] for name, member in inside if counts.is_set(name, member)]
            raise WeightsError(
                f"{where!r} holds no set of weights {key!r}.",
                f"it holds: {', '.join(sets[:20]) or 'none'}",
                "leave out the key to take the raw weights",
            )
        value = value[part]
    return _plain(value)


def _collect(root: Any, path: Path) -> dict[str, TensorView]:
    """Return all tensors by the path of their keys; only containers with tensors in them are entered."""
    counts = _Counts(str(path))
    if counts.below(_plain(root)) > _MAX_TENSORS:
        raise damaged(str(path), f"its containers hold more than {_MAX_TENSORS:,} tensors")
    views: dict[str, TensorView] = {}

    def walk(value: Any, prefix: str, depth: int) -> None:
        if isinstance(value, TensorView):
            if prefix in views:
                raise damaged(str(path), f"two tensors are named {shown(prefix)}")
            check_name(prefix)
            views[prefix] = value
            return
        members = _plain(value)
        if not isinstance(members, Mapping) or not counts.below(value, depth + 1):
            return
        if depth >= MAX_DEPTH:
            raise damaged(str(path), "its containers are nested too deeply, or contain themselves")
        budget().step(len(members))
        for name, member in members.items():
            text = _text(name)
            if depth or not text.lower().startswith(_NOT_WEIGHTS):
                walk(member, f"{prefix}.{text}" if prefix else text, depth + 1)

    walk(root, "", 0)
    return views


def _wrapper_prefix(names: list[str]) -> str:
    prefix = ""
    while True:
        found = next((word for word in _WRAPPERS if all(name.startswith(prefix + word) for name in names)), "")
        if not found:
            return prefix
        prefix += found


def _strip(views: Mapping[str, TensorView], prefix: str) -> dict[str, TensorView]:
    return {name[len(prefix) :]: view for name, view in views.items()}


def _class_names(root: Any) -> tuple[str, ...] | None:
    """Return class names beside the weights, where the file keeps them as a list of strings."""
    if isinstance(root, Mapping):
        for key in ("class_names", "classes", "CLASSES", "label_names"):
            names = root.get(key)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None
