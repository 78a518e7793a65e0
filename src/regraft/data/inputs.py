"""What a user names to be predicted: an image, a folder of them, or a list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from regraft.data.sources.walk import find_pictures
from regraft.errors import DataError

__all__ = ["list_inputs"]


def list_inputs(inputs: str | Path | Iterable[str | Path]) -> tuple[list[str], dict[str, int]]:
    """The image files that `inputs` names, and how many other files were left out, by reason.

    Raises:
        DataError: A single input that does not exist, or a folder without images.
    """
    if not isinstance(inputs, (str, Path)):
        return [str(path) for path in inputs], {}
    path = Path(inputs)
    if path.is_dir():
        found, ignored = find_pictures(path)
        if not found:
            raise DataError(
                f"The folder {str(path)!r} holds no images.",
                "Expected at least one image file, at any depth.",
                "Check the path; hidden folders are not searched.",
            )
        return found, ignored
    if not path.exists():
        raise DataError(
            f"There is no file or folder {str(path)!r}.",
            "Expected an image, a folder of images, or - for paths on stdin.",
            "Check the spelling of the path.",
        )
    return [str(path)], {}
