"""Write the arguments of timm's networks, by name and kind: those that `regraft.models.zoo.arguments` lets through.

uv run python scripts/list_arguments.py

What stands in the list already stays, so that it covers every version of timm that it was run with. Arguments that
name files or addresses, load weights, or change what kind of thing is built are never listed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import timm.models
from torch import nn

from regraft.models.zoo.arguments import TIMM_ARGUMENTS

_NEVER = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn"),
    *("pretrained_model_args", "checkpoint_path", "cache_dir", "file", "url", "features_only", "feature_cls", "pruned"),
    *("cfg", "model_cfg", "feature_cfg", "block_cfg", "device", "dtype", "head", "hybrid_backbone", "stem_backbone"),
    *("fork_feat", "return_interm_layers", "out_indices", "out_features", "in_channels", "in_features"),
}
_KINDS = {  # a word in an annotation or in the kind of a default -> what plain data may stand there
    "flag": ("bool",),
    "number": ("int", "float"),
    "word": ("str", "Literal", "LayerType"),
    "list": ("Tuple", "List", "Sequence", "tuple", "list"),
}
# What goes through **kwargs into a network's description, and switches of timm's factory.
_MORE = {
    "bn_eps": "number", "bn_momentum": "number", "block_args": "table", "group_size": "number", "linear_out": "flag",
    "scriptable": "flag", "exportable": "flag", "no_jit": "flag",
}  # fmt: skip


def arguments() -> dict[str, set[str]]:
    """Each argument of the constructors of timm's networks, with the kinds of plain data that it takes."""
    found: dict[str, set[str]] = {name: {kind} for name, kind in _MORE.items()}
    for network in _networks():
        for parameter in inspect.signature(network).parameters.values():
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and parameter.name not in _NEVER:
                found.setdefault(parameter.name, set()).update(_kinds(parameter))
    return {name: kinds for name, kinds in found.items() if kinds}


def _networks() -> Iterator[type[nn.Module]]:
    for entry in pkgutil.iter_modules(timm.models.__path__):
        module = importlib.import_module(f"timm.models.{entry.name}")
        for value in vars(module).values():
            is_own = inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
            if is_own and "num_classes" in inspect.signature(value).parameters:
                yield value


def _kinds(parameter: inspect.Parameter) -> set[str]:
    text = str(parameter.annotation)
    kinds = {kind for kind, words in _KINDS.items() if any(word in text for word in words)}
    default = parameter.default
    if isinstance(default, (bool, int, float, str, tuple, list)):
        words = type(default).__name__
        kinds |= {kind for kind, names in _KINDS.items() if words in names}
    is_layer = parameter.name.endswith(("_layer", "_layer_cl")) and ("Type" in text or "Callable" in text)
    return kinds | ({"word"} if is_layer else set())


def main() -> None:
    path = Path(__file__).parents[1] / "src" / "regraft" / "models" / "zoo" / TIMM_ARGUMENTS
    known = {name: set(kinds.split(",")) for name, kinds in map(str.split, _lines(path))}
    found = arguments()
    merged = {name: known.get(name, set()) | found.get(name, set()) for name in sorted({*known, *found})}
    path.write_text("".join(f"{name} {','.join(sorted(kinds))}\n" for name, kinds in merged.items()), encoding="ascii")
    print(f"{path}: {len(merged)} arguments, timm {timm.__version__}")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
