"""How weight files spell the parts of a layer: `moving_variance`, `running_std`, `W`, `biases`, ...

One table for the formats whose tensors carry their role in their name (Keras HDF5, npy, npz). The result is a role word
of `SourceTensor.role`, or None: a word that is not in the table is never guessed at.
"""

from __future__ import annotations

import re

from regraft.errors import WeightsError

__all__ = ["natural", "refuse_key", "role_of", "split_word"]

# Keras 1 called the variance "running_std"; caffe-tensorflow calls gamma and beta "scale" and "offset".
_ROLES = {
    "kernel": "kernel",
    "weights": "kernel",
    "weight": "kernel",
    "w": "kernel",
    "filters": "kernel",
    "filter": "kernel",
    "bias": "bias",
    "biases": "bias",
    "b": "bias",
    "gamma": "gamma",
    "scale": "gamma",
    "beta": "beta",
    "offset": "beta",
    "moving_mean": "mean",
    "running_mean": "mean",
    "mean": "mean",
    "moving_variance": "variance",
    "moving_var": "variance",
    "running_variance": "variance",
    "running_var": "variance",
    "running_std": "variance",
    "variance": "variance",
    "var": "variance",
    "depthwise_kernel": "depthwise_kernel",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_kernel": "pointwise_kernel",
    "pointwise_weights": "pointwise_kernel",
    "recurrent_kernel": "recurrent_kernel",
    "embeddings": "embeddings",
    "alpha": "alpha",
    "alphas": "alpha",
    "count": "count",
    "num_batches_tracked": "counter",
}
_SUFFIX = re.compile(
    r"^(?P<layer>.*?)[/._](?P<word>" + "|".join(sorted(_ROLES, key=len, reverse=True)) + r")(_\d+)?$", re.IGNORECASE
)
_COPY = re.compile(r"(?::\d+)?(?:_\d+)?$")
_DIGITS = re.compile(r"(\d+)")


def role_of(word: str) -> str | None:
    """Return the role that one word stands for: `kernel:0`, `moving_mean_1:0`, `W`; None when it is not in the
    table.
    """
    word = word.split(":", 1)[0].lower()
    return _ROLES.get(word) or _ROLES.get(_COPY.sub("", word))


def split_word(name: str) -> tuple[str, str | None]:
    """Return layer and role of a flat name: `conv1_1_W` is (`conv1_1`, kernel), `bn/moving_mean:0` (`bn`, mean).

    A name without a known word at its end is a layer of its own, with role None.
    """
    plain = re.sub(r":\d+$", "", name)
    found = _SUFFIX.match(plain)
    if found and found["layer"]:
        return found["layer"], _ROLES[found["word"].lower()]
    return plain, None


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `conv2d_2` before `conv2d_10` (and `conv2d` before both)."""
    parts = _DIGITS.split(name)
    return tuple((1, int(part[:18]), part) if part.isdecimal() and part.isascii() else (0, 0, part) for part in parts)


def refuse_key(path: object, key: str | None) -> None:
    """Refuse `--from KEY` for a format that holds one set of tensors."""
    if key is not None:
        raise WeightsError(
            f"{str(path)!r} holds only one set of tensors; there is no {key!r} in it.",
            "only files with several sets (`state_dict` and `state_dict_ema`) can be chosen from",
            "leave out `--from`",
        )
