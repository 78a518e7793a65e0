"""The images of `regraft demo` come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from regraft.cli.verbs.demo import write_digits


def test_the_digits_are_those_of_the_uci_repository(tmp_path: Path) -> None:
    folder, digits = write_digits(tmp_path / "digits"), load_digits()
    assert len(list(folder.glob("*/*.png"))) == 1797
    for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        with Image.open(folder / str(digit) / f"{number:04d}.png") as written:
            assert np.array_equal(np.asarray(written), np.minimum(image * 16, 255).astype(np.uint8))
