"""Activations: what a file's network is known to have between its layers, against what the model has."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["activation_findings", "activation_name"]

_NAMES = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "swish": "silu",
    "hardswish": "hard_swish",
}


def activation_name(name: str) -> str:
    """Return the one name of an activation that has several."""
    return _NAMES.get(name.lower(), name.lower())


def activation_findings(pairs: Sequence[Pair], wanted: str, *, told: bool) -> list[Finding]:
    """Return layers behind which the model has another activation.

    Args:
        pairs: What was matched.
        wanted: The activation of the file's network.
        told: Whether that is certain; else networks of the file's names have this one as a rule.
    """
    wanted = activation_name(wanted)
    differ: dict[str, list[str]] = {}
    for pair in pairs:
        have = pair.target.attributes.get("activation")
        if isinstance(have, str) and have != wanted and pair.address:
            differ.setdefault(have, []).append(pair.target.name)
    certain = f"the file's network has {wanted}"
    maybe = f"the file does not tell its own, which most often is {wanted} where its layers have these names"
    how = f"(timm: act_layer={wanted!r}; `--arg act_layer={wanted}`)"
    return [
        Finding(
            "layout",
            names[0],
            f"the activation behind {some(names)} is {have}; {certain if told else maybe} {how}",
            "activation",
            have,
            wanted,
            serious=True,
            layers=tuple(names),
            unknown=not told,
        )
        for have, names in differ.items()
    ]
