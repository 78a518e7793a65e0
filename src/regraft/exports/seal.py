"""What a sealed file says of itself: its metadata, written and read without trust. Needs no torch."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import RegraftError, StorageError

__all__ = ["FORMAT", "MOST_SCORES", "Seal"]

FORMAT = "1"
MOST_SCORES = 100_000  # validation images whose scores are carried along: half a megabyte of text
_OUTPUTS = ("softmax", "binary", "multilabel", "segmentation")
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, binascii.Error, RegraftError)


@dataclass(frozen=True, eq=False)
class Seal:
    """What is known of a network in a file.

    Attributes:
        architecture: The name of the network.
        output: What its head gives: softmax, binary, multilabel, segmentation.
        class_names: In the order of the probabilities.
        preprocessing: The program from file to input, which the file itself carries out.
        thresholds: Of each name that has one: from which probability, as the file gives it, on it is named.
        temperatures: What the logits are divided by inside the file; empty for nothing.
        license: Of the pretrained weights, as timm states it.
        model_sha256: Of the weights that were exported.
        nonconformity: As `regraft.models.describe.trust.Trust` has it; None where nothing is kept.
        notes: What the file cannot say, by what was asked for, with the reason.
        colours: In segmentation: red, green, blue of each class; empty for those of PASCAL VOC.
        verified: How the file was compared with the network before it was written.
    """

    architecture: str
    output: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    thresholds: Mapping[str, float]
    temperatures: tuple[float, ...]
    license: str
    model_sha256: str
    nonconformity: npt.NDArray[np.floating] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    colours: tuple[tuple[int, int, int], ...] = ()
    verified: Mapping[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Return texts by key, JSON where they are no plain words."""
        scores = self.nonconformity
        return {
            "regraft_format": FORMAT,
            "architecture": self.architecture,
            "output": self.output,
            "class_names": json.dumps(self.class_names),
            "preprocessing": json.dumps(self.preprocessing.to_dict()),
            "thresholds": json.dumps(dict(self.thresholds)),
            "temperatures": json.dumps(self.temperatures),
            "weights_license": self.license,
            "model_sha256": self.model_sha256,
            "nonconformity": "" if scores is None else f"{scores.dtype.str} {_encoded(scores)}",
            "notes": json.dumps(dict(self.notes)),
            "class_colours": json.dumps(self.colours),
            "verified": json.dumps(dict(self.verified)),
        }

    @classmethod
    def from_metadata(cls, texts: Mapping[str, str], name: str) -> Seal:
        """Return what `to_metadata` wrote.

        Args:
            texts: The metadata of the file.
            name: The file's, for errors.

        Raises:
            StorageError: It was not written by `regraft export`, or by a newer version, or is damaged.
        """
        if texts.get("regraft_format") != FORMAT:
            raise StorageError(
                f"{name!r} does not say how images become its input: it was not exported by this version of regraft.",
                "a file that `regraft export` wrote",
                "run it with onnxruntime itself, or export it again",
            )
        try:
            return cls._read(texts)
        except _DAMAGE as error:
            raise StorageError(
                f"What {name!r} says of itself is damaged ({type(error).__name__}: {str(error)[:200]}).",
                "the metadata that `regraft export` wrote",
                "export it again, or restore it from a copy",
            ) from error

    @classmethod
    def _read(cls, texts: Mapping[str, str]) -> Seal:
        names, output = json.loads(texts["class_names"]), texts["output"]
        thresholds, temperatures = json.loads(texts["thresholds"]), json.loads(texts["temperatures"])
        if not all(isinstance(one, str) for one in names) or not names or len(set(names)) < len(names):
            raise ValueError("class_names is not a list of different names")
        if output not in _OUTPUTS:
            raise ValueError(f"the output {output!r} is none of {', '.join(_OUTPUTS)}")
        expected = {"binary": names[1:], "multilabel": names}.get(output, [])
        if list(thresholds) != expected or not all(0 <= float(share) <= 1 for share in thresholds.values()):
            raise ValueError("thresholds are not one share from 0 to 1 for each name that has one")
        if not all(math.isfinite(float(value)) for value in temperatures):
            raise ValueError("temperatures are no numbers")
        colours = tuple((int(red), int(green), int(blue)) for red, green, blue in json.loads(texts["class_colours"]))
        return cls(
            architecture=texts["architecture"],
            output=output,
            class_names=tuple(names),
            preprocessing=Preprocessing.from_dict(json.loads(texts["preprocessing"])),
            thresholds={name: float(share) for name, share in thresholds.items()},
            temperatures=tuple(map(float, temperatures)),
            license=texts["weights_license"],
            model_sha256=texts["model_sha256"],
            nonconformity=_decoded(texts["nonconformity"]),
            notes={str(key): str(value) for key, value in json.loads(texts["notes"]).items()},
            colours=colours,
            verified=dict(json.loads(texts["verified"])),
        )


def _encoded(scores: npt.NDArray[np.floating]) -> str:
    return base64.b64encode(scores.tobytes()).decode("ascii")


def _decoded(text: str) -> npt.NDArray[np.floating] | None:
    if not text:
        return None
    kind, _, data = text.partition(" ")
    if kind not in ("<f4", "<f8"):
        raise ValueError(f"nonconformity holds numbers of kind {kind!r}")
    scores = np.frombuffer(base64.b64decode(data, validate=True), dtype=np.dtype(kind))
    if not len(scores) or not np.isfinite(scores).all() or bool((np.diff(scores) < 0).any()):
        raise ValueError("nonconformity is not a list in ascending order")
    return scores
