"""Queries, keys and values: separate layers of a file joined where the model has one of all, and the other way round.

What comes of it is a layer like any other; its tensors know the tensors of the file that they are made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from regraft.weights.axes import Join, Rows, convert
from regraft.weights.file import SourceTensor
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.paths import dotted

__all__ = ["as_in_model", "with_projection"]

_SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"), ("to_q", "to_k", "to_v"))
_LAYERS = frozenset({"qkv", "in_proj", "Wqkv", "query_key_value"})
_JOINED = _LAYERS | {"self_attention", "attn", "attention"}  # the modules that hold them as bare tensors


class _Model(NamedTuple):
    """What the model has of queries, keys and values: kernels of all three, whether these have biases; pairs of keys
    and values; names of separate layers below one path.
    """

    joined: Counter[tuple[int, ...]]
    has_bias: bool
    pairs: Counter[tuple[int, ...]]
    apart: tuple[str, ...]


def as_in_model(sources: Mapping[str, Layer], targets: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the file's layers with queries, keys and values joined, or apart, as the model has them."""
    model = _read(targets)
    if not model.joined and not model.pairs and not model.apart:
        return dict(sources)
    num_apart = _num_apart(sources) if model.apart else Counter()
    found: dict[str, Layer] = {}
    gone: set[str] = set()
    for name, layer in sources.items():
        if name in gone:
            continue
        parts = _separate(name, sources)
        if parts is not None and (joined := _joined(name, parts, model)):
            layers, kept = joined
            gone |= {part.name for part in parts} - {one.name for one in kept}
            found |= {one.name: one for one in (*kept, *layers)}
        elif (split := _split(name, layer, model, num_apart)) is not None:
            found |= {one.name: one for one in split}
        elif layer.shape in model.joined and not model.has_bias and "bias" in layer.tensors:
            found[name] = _with_biases_apart(layer)
        else:
            found[name] = layer
    return found


def with_projection(sources: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the file's layers, with the projection of a CLIP tower, a bare matrix of (in, out), as a layer."""
    found = dict(sources)
    for name, layer in sources.items():
        bare = next((role for role in layer.tensors if role.startswith("other:") and _parted(role)[2] == "proj"), None)
        path = f"{name}." if name else ""
        if bare is None or len(layer.tensors[bare].shape) != 2 or f"{path}transformer.resblocks.0.ln_1" not in sources:
            continue
        kernel = replace(layer.tensors[bare], axes="IO")
        rest = {role: tensor for role, tensor in layer.tensors.items() if role != bare}
        found[name] = replace(layer, tensors=rest)
        new = Layer(f"{path}proj", "dense", {"kernel": kernel}, len(sources), kernel.shape[::-1])
        found[new.name] = new
    return found


def _read(targets: Mapping[str, Layer]) -> _Model:
    joined: Counter[tuple[int, ...]] = Counter()
    pairs: Counter[tuple[int, ...]] = Counter()
    has_bias = False
    apart: tuple[str, ...] = ()
    for name, layer in targets.items():
        path, _, leaf = name.rpartition(".")
        if layer.kind != "dense" or len(layer.shape) != 2:
            continue
        height, width = layer.shape
        if height == 3 * width and leaf in _JOINED:
            joined[layer.shape] += 1
            has_bias = has_bias or "bias" in layer.tensors
        elif leaf == "kv" and f"{path}.q" in targets:
            pairs[layer.shape] += 1
            apart = apart or ("q", "kv")
        for names in _SEPARATE:
            if leaf == names[0] and all(f"{path}.{other}" in targets for other in names):
                apart = names
    return _Model(joined, has_bias, pairs, apart)


def _separate(name: str, sources: Mapping[str, Layer]) -> list[Layer] | None:
    """Return the layers of queries, keys and values that this one is the first of in the file; None without them."""
    path, sign, leaf = _parted(name)
    for names in _SEPARATE:
        if leaf in names and all(f"{path}{sign}{one}" in sources for one in names):
            parts = [sources[f"{path}{sign}{one}"] for one in names]
            same = len({part.shape for part in parts}) == 1 and all(part.kind == "dense" for part in parts)
            return parts if same and all(part.tensors["kernel"].axes is None for part in parts) else None
    return None


def _parted(name: str) -> tuple[str, str, str]:
    at = max(name.rfind("."), name.rfind("/"))
    return (name[:at], name[at], name[at + 1 :]) if at >= 0 else ("", "", name)


def _joined(name: str, parts: Sequence[Layer], model: _Model) -> tuple[list[Layer], list[Layer]] | None:
    """Return the layers made of three, and which of the three stay as they are."""
    path, sign, _ = _parted(name)
    height, width = parts[0].shape
    if (3 * height, width) in model.joined:
        return [_join(f"{path}{sign}qkv", parts, has_bias=model.has_bias)], []
    if (2 * height, width) in model.pairs:
        return [_join(f"{path}{sign}kv", parts[1:], has_bias=True)], [parts[0]]
    return None


def _join(name: str, parts: Sequence[Layer], *, has_bias: bool) -> Layer:
    tensors: dict[str, SourceTensor] = {}
    kernels = [part.tensors["kernel"] for part in parts]
    tensors["kernel"] = _made(kernels, Join(tuple(range(len(parts)))), _times(kernels[0].shape, len(parts)), name)
    biases = [part.tensors.get("bias") for part in parts]
    given = [bias for bias in biases if bias is not None]
    if given and has_bias:
        places = iter(range(len(given)))
        order = tuple(None if bias is None else next(places) for bias in biases)
        tensors["bias"] = _made(given, Join(order), _times(given[0].shape, len(parts)), name)
    else:
        tensors |= {f"other:{bias.name}": bias for bias in given}
    for part in parts:
        tensors |= {role: one for role, one in part.tensors.items() if role not in ("kernel", "bias")}
    first = parts[0]
    shape = (len(parts) * first.shape[0], *first.shape[1:])
    return replace(first, name=name, tensors=tensors, shape=shape, order=min(part.order for part in parts))


def _split(name: str, layer: Layer, model: _Model, num_apart: Counter[tuple[int, ...]]) -> list[Layer] | None:
    """Return the layers that the model has of one with queries, keys and values; None where it has that one."""
    path, sign, leaf = _parted(name)
    kernel = layer.tensors.get("kernel")
    if not model.apart or leaf not in _JOINED or layer.kind != "dense" or kernel is None or kernel.axes is not None:
        return None
    height, width = layer.shape
    if height != 3 * width or set(layer.tensors) - {"kernel", "bias"}:
        return None
    if num_apart[layer.shape] < model.joined[layer.shape]:
        return None  # the model's own joined layers have room for it
    sizes = (1, 2) if model.apart == ("q", "kv") else (1, 1, 1)
    above = f"{path}{sign}" if leaf in _LAYERS else f"{name}#"
    found, start = [], 0
    for part, size in zip(model.apart, sizes, strict=True):
        rows = Rows(start * width, (start + size) * width)
        tensors = {
            role: _made([tensor], rows, (size * width, *tensor.shape[1:]), f"{above}{part}")
            for role, tensor in layer.tensors.items()
        }
        found.append(replace(layer, name=f"{above}{part}", tensors=tensors, shape=(size * width, width)))
        start += size
    return found


def _with_biases_apart(layer: Layer) -> Layer:
    """Return a layer of queries, keys and values with the biases of queries and of values as tensors of their own, for
    a model that has them so and none of keys.
    """
    tensors = dict(layer.tensors)
    bias, width = tensors.pop("bias"), layer.shape[1]
    for part, start in (("q", 0), ("v", 2 * width)):
        made = _made([bias], Rows(start, start + width), (width,), layer.name)
        made = replace(made, name=f"{bias.name}#{part}")
        tensors[f"other:{made.name}"] = made
    return replace(layer, tensors=tensors)


def _num_apart(sources: Mapping[str, Layer]) -> Counter[tuple[int, ...]]:
    """Return how many layers would come of joining separate ones, by their shape."""
    first = {names[0] for names in _SEPARATE}
    found: Counter[tuple[int, ...]] = Counter()
    for name in sources:
        if _parted(name)[2] in first and (parts := _separate(name, sources)) is not None:
            height, width = parts[0].shape
            found[(3 * height, width)] += 1
    return found


def _made(parts: Sequence[SourceTensor], step: Join | Rows, shape: tuple[int, ...], layer: str) -> SourceTensor:
    """Return a tensor made of some of the file; it has the name of the first."""
    return replace(
        parts[0],
        shape=shape,
        layer=dotted(layer),
        load=lambda: convert([part.load() for part in parts], (step,)),
        parts=tuple(parts),
        made=(step,),
    )


def _times(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    return (count * shape[0], *shape[1:])
