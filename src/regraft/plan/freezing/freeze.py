"""Freezing that lasts: no gradients, fixed statistics, dropout and drop-path off in the frozen parts.

It survives `.train()`, `copy.deepcopy`, pickling, DistributedDataParallel and `torch.compile`; no module is swapped, so
the keys of the state dict stay. Normalization layers with running statistics follow a policy:

    train        statistics and affine parameters move     default in new layers (random weights)
    affine-only  fixed statistics, affine parameters train  default in unfrozen pretrained layers
    frozen       neither moves                              default in frozen layers
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, is_under
from regraft.models.describe.trace import own_tensors, plain
from regraft.plan.freezing.eval_lock import lock_eval, unlock_eval
from regraft.plan.freezing.select import select, terms_of
from regraft.wording import quantity

__all__ = ["Freeze", "freeze", "has_statistics", "unfreeze"]

_POLICIES = ("train", "affine-only", "frozen")


@dataclass(frozen=True)
class Freeze:
    """What trains and what does not, by full name; the names are those of `named_parameters()` and `named_buffers()`.

    Attributes:
        selector: The terms that chose the trained layers.
        layers: The layers (modules) with at least one trainable parameter.
        trainable: Parameters that get gradients: exactly these belong in the optimizer.
        frozen: Parameters that must not move.
        still: Buffers that must not move.
        moving: Buffers that training may move: running statistics under the policy `train`, and the like.
        eval_locked: Modules that stay in eval mode.
        bn: The policy of each normalization layer with running statistics.
    """

    selector: tuple[str, ...]
    layers: tuple[str, ...]
    trainable: tuple[str, ...]
    frozen: tuple[str, ...]
    still: tuple[str, ...]
    moving: tuple[str, ...]
    eval_locked: tuple[str, ...]
    bn: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a JSON file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def freeze(
    model: nn.Module,
    train: str | Sequence[str],
    *,
    bn: str | Mapping[str, str] | None = None,
    new: Collection[str] | None = None,
    trained: Collection[str] = (),
) -> Freeze:
    """Freeze the whole model except the selected layers, in place; an earlier `freeze` is undone first.

    Gradients of frozen parameters are dropped, so that an optimizer that still holds them does not move them.

    Args:
        model: The model; it is edited in place (flags only, no module and no number changes).
        train: The selector of the layers to train (see `regraft.plan.freezing.select`).
        bn: A policy for all normalization layers in the trained part, or policies by selector, which also reach into
            the frozen part; later entries override earlier ones. None: the defaults above.
        new: Module-name prefixes of layers with random weights; None: those in the model's info.
        trained: Layers trained in an earlier stage, which may be frozen although they are new.

    Raises:
        SettingsError: Nothing would train, a new head would stay random, a selector or a policy is wrong, or a
            parameter shared by a trained and a frozen layer would be both.
    """
    model = plain(model)
    info = info_of(model)
    chosen = select(model, train)
    prefixes = tuple(info.new_layers if new is None else new)
    policies = _policies(model, chosen, bn, prefixes)
    trainable = set(_trainable(model, chosen, policies))
    _refuse_contradictions(model, info, train, trainable, prefixes, trained)
    unfreeze(model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(name in trainable)
        if name not in trainable:
            parameter.grad = None
    modules = dict(model.named_modules())
    eval_locked = _eval_locked(model, chosen, trainable, policies)
    lock_eval(modules[name] for name in eval_locked)
    fixed = set(eval_locked) | {name for name in modules if name not in chosen and policies.get(name) != "train"}
    return _account(model, terms_of(train), trainable, eval_locked, fixed, policies)


def unfreeze(model: nn.Module) -> nn.Module:
    """Undo `freeze`, in place: all parameters train, all modules follow `.train()` and `.eval()` again."""
    model = plain(model)
    unlock_eval(model.modules())
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return model


def has_statistics(module: nn.Module) -> bool:
    """Return whether the module itself has running statistics, as batch norm does."""
    return any(name.startswith("running_") and buffer is not None for name, buffer in module._buffers.items())


def _policies(
    model: nn.Module, chosen: frozenset[str], bn: str | Mapping[str, str] | None, new: tuple[str, ...]
) -> dict[str, str]:
    norms = {name for name, module in model.named_modules() if has_statistics(module)}
    policies = {
        name: "frozen" if name not in chosen else "train" if is_under(name, new) else "affine-only"
        for name in sorted(norms)
    }
    if isinstance(bn, str):
        _check_policy(bn)
        return {name: policy if name not in chosen else bn for name, policy in policies.items()}
    for selector, policy in (bn or {}).items():
        _check_policy(policy)
        hit = select(model, selector) & norms
        if not hit:
            raise SettingsError(
                f"The batch-norm policy for {selector!r} matches no layer with running statistics.",
                "",
                f"remove it, or select among the {quantity(len(norms), 'such layer')} of the model, such as "
                "`type:BatchNorm2d`",
            )
        policies |= dict.fromkeys(hit, policy)
    return policies


def _check_policy(policy: str) -> None:
    if policy not in _POLICIES:
        raise SettingsError(
            f"Unknown batch-norm policy {policy!r}.",
            "`train` (statistics and affine parameters move), `affine-only` (only the latter) or `frozen`",
            "",
        )


def _trainable(model: nn.Module, chosen: frozenset[str], policies: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of parameters to train, every name of a shared one."""
    for layer, module in model.named_modules():
        trains = policies[layer] != "frozen" if layer in policies else layer in chosen
        for name, parameter in module._parameters.items():
            if trains and parameter is not None and parameter.is_floating_point():
                yield f"{layer}.{name}" if layer else name


def _refuse_contradictions(
    model: nn.Module,
    info: ModelInfo,
    train: str | Sequence[str],
    trainable: set[str],
    new: Sequence[str],
    trained: Collection[str],
) -> None:
    if not trainable:
        raise SettingsError(
            f"The plan trains nothing: {terms_of(train)} leaves no parameter of {info.architecture} to train.",
            "",
            "select layers with parameters, for example `head`, and not only batch norms with the policy `frozen`",
        )
    live = {_layer(parameter) for parameter in trainable}
    for part in ("head", "decoder"):
        random = [name for name in _weighted(model) if info.part_of(name) == part and is_under(name, new)]
        idle = [name for name in random if name not in trained and name not in live]
        if idle:
            raise SettingsError(
                f"The {part} is frozen while its weights are random: {', '.join(idle[:6])}"
                + (f" and {len(idle) - 6} more." if len(idle) > 6 else "."),
                "",
                f"add `{part}` to `train`",
            )
    _refuse_shared(model, trainable)


def _weighted(model: nn.Module) -> list[str]:
    """Return layers with parameters, without norms with statistics, which start as the identity."""
    return [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None and not has_statistics(module)
    ]


def _refuse_shared(model: nn.Module, trainable: set[str]) -> None:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    torn = [shared for shared in names.values() if 0 < sum(name in trainable for name in shared) < len(shared)]
    if torn:
        raise SettingsError(
            "A parameter is shared by a trained and a frozen layer.",
            "",
            "train all of these layers, or none",
            details=[" = ".join(shared) for shared in torn],
        )


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _eval_locked(
    model: nn.Module, chosen: frozenset[str], trainable: set[str], policies: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the modules to lock in eval mode: norms with fixed statistics, frozen layers, dropout between them."""
    live = {name for name, policy in policies.items() if policy == "train"}
    active = {_layer(name) for name in trainable} | live | {n for n in chosen if n not in policies}
    kept = {name for name, policy in policies.items() if policy != "train"}
    _walk(model, "", active, kept, parent_off=False)
    return tuple(name for name, _ in model.named_modules() if name in kept)


def _walk(module: nn.Module, name: str, active: set[str], kept: set[str], *, parent_off: bool) -> None:
    """Descend from `module`; a part without any active layer stays off as a whole."""
    off = parent_off or (_owns_below(module) and not _active_below(name, active))
    if off:
        kept.add(name)
    children = [(f"{name}.{key}" if name else key, child) for key, child in module.named_children()]
    owners = [(index, _active_below(n, active)) for index, (n, c) in enumerate(children) if _owns_below(c)]
    for index, (child_name, child) in enumerate(children):
        if _owns_below(child) or off:
            _walk(child, child_name, active, kept, parent_off=off)
        elif owners and not any(live for _, live in _neighbours(owners, index)):
            _walk(child, child_name, active, kept, parent_off=True)


def _neighbours(owners: list[tuple[int, bool]], index: int) -> list[tuple[int, bool]]:
    """Return the layers with weights right before and right after a module without any."""
    before = [owner for owner in owners if owner[0] < index]
    behind = [owner for owner in owners if owner[0] > index]
    return before[-1:] + behind[:1]


def _owns_below(module: nn.Module) -> bool:
    return any(own_tensors(inside) for inside in module.modules())


def _active_below(name: str, active: set[str]) -> bool:
    return any(is_under(layer, (name,)) for layer in active)


def _account(
    model: nn.Module,
    terms: Sequence[str],
    trainable: set[str],
    eval_locked: Sequence[str],
    fixed: set[str],
    policies: Mapping[str, str],
) -> Freeze:
    parameters = [name for name, _ in model.named_parameters()]
    buffers = [name for name, _ in model.named_buffers()]
    return Freeze(
        selector=tuple(terms),
        layers=tuple(dict.fromkeys(_layer(name) for name in parameters if name in trainable)),
        trainable=tuple(name for name in parameters if name in trainable),
        frozen=tuple(name for name in parameters if name not in trainable),
        still=tuple(name for name in buffers if _layer(name) in fixed),
        moving=tuple(name for name in buffers if _layer(name) not in fixed),
        eval_locked=tuple(eval_locked),
        bn=dict(policies),
    )
