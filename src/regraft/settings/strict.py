"""What all settings share: strict checks, numbers that refuse true and false, errors that list every mistake."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, PydanticKnownError

from regraft.errors import SettingsError
from regraft.settings.mistakes import SEVERAL, fields_of, mistakes_of

__all__ = [
    "Count",
    "DictOf",
    "Factor",
    "FactorBelowOne",
    "ListOf",
    "NotNegative",
    "Number",
    "Pixels",
    "Positive",
    "Ratio",
    "Seed",
    "Share",
    "ShareBelowOne",
    "Strict",
    "Whole",
    "WholeNotNegative",
    "checked",
    "off_word",
    "refuse",
    "settings",
]

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
_CONFIG = ConfigDict(extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False)

if TYPE_CHECKING:  # callers pass any sequence or mapping; what is kept is a list or a dict
    from collections.abc import Mapping as DictOf
    from collections.abc import Sequence as ListOf
else:
    DictOf, ListOf = dict, list


def _no_truth(value: Any, *, kind: Any) -> Any:
    if isinstance(value, bool):  # pydantic takes it for 0 or 1
        raise PydanticKnownError(kind)
    return value


_WHOLE = BeforeValidator(functools.partial(_no_truth, kind="int_type"))
_NUMBER = BeforeValidator(functools.partial(_no_truth, kind="float_type"))
Whole = Annotated[int, _WHOLE]
WholeNotNegative = Annotated[int, Field(ge=0), _WHOLE]
Count = Annotated[int, Field(ge=1), _WHOLE]
Pixels = Count
Seed = Annotated[int, Field(ge=0, lt=1 << 63), _WHOLE]
Number = Annotated[float, _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
NotNegative = Annotated[float, Field(ge=0), _NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1), _NUMBER]
Factor = Annotated[float, Field(gt=0, le=1), _NUMBER]
FactorBelowOne = Annotated[float, Field(gt=0, lt=1), _NUMBER]
Ratio = Annotated[float, Field(ge=1), _NUMBER]


class Strict(BaseModel):
    """A group of settings in a recipe; unknown keys are mistakes."""

    model_config = _CONFIG


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(kind: type[T]) -> type[T]:
    """Make a frozen dataclass whose constructor raises a SettingsError that lists all mistakes at once.

    A recipe is checked with the same rules, but collects the mistakes of all its parts.
    """
    made: Any = dataclass(kind, frozen=True, config=_CONFIG)
    made.__init__ = _listing_mistakes(made, made.__init__)
    described = "\n".join(f"    {name}: {field.description}" for name, field in fields_of(made).items())
    made.__doc__ = f"{kind.__doc__}\n\nAttributes:\n{described}\n"
    return made  # type: ignore[no-any-return]


def _listing_mistakes(kind: type, init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def listing_init(self: Any, *args: Any, **values: Any) -> None:
        names = list(fields_of(kind))
        if len(args) <= len(names) and not values.keys() & set(names[: len(args)]):
            args, values = (), {**dict(zip(names, args, strict=False)), **values}  # mistakes have names, not positions
        what = f"{kind.__name__} {values['name']!r}" if isinstance(values.get("name"), str) else kind.__name__
        try:
            init(self, *args, **values)
        except ValidationError as error:
            raise _invalid(what, error, kind) from None
        refused = _of_other_types(kind, values)
        if refused:
            raise SettingsError(f"Invalid settings of {what}.", details=refused)

    return listing_init


def _of_other_types(settings: type, values: Mapping[str, Any]) -> list[str]:
    """Find strings given for numbers, numbers for strings or for true and false, and fractions for whole numbers.

    A recipe may hold them (`train: 3`, `--set lr=1e-3`); in Python they are slips, such as the index of a layer for its
    name.
    """
    fields, wrong = fields_of(settings), []
    for name, value in values.items():
        kinds = _scalars(fields[name].annotation) if name in fields else set()
        words = _words(fields[name].annotation) if name in fields else set()
        expected = " or ".join(text for kind, text in _NAMES.items() if kind in kinds)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if kinds and type(item) in (str, int, float) and item not in words and not _fits(type(item), kinds):
                wrong.append(f"{name}: must be {expected}; it is {item!r}")
    return wrong


_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def _fits(kind: type, kinds: set[type]) -> bool:
    return kind in kinds or (kind is int and float in kinds)


def _scalars(annotation: Any) -> set[type]:
    """Collect the scalar types that occur in an annotation, in unions and containers as well; single words are none."""
    if get_origin(annotation) is Literal:
        return set()
    if annotation in (str, int, float, bool):
        return {annotation}
    if annotation is Any:
        return {str, int, float, bool}
    if get_origin(annotation) is dict:
        return set()
    return {kind for part in get_args(annotation) for kind in _scalars(part)}


def _words(annotation: Any) -> set[Any]:
    """Collect the words that an annotation names one by one, beside other types."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if get_origin(annotation) is dict:
        return set()
    return {word for part in get_args(annotation) for word in _words(part)}


def checked(kind: type[Model], what: str, values: Mapping[str, Any]) -> Model:
    """Return settings made of plain values.

    Args:
        kind: The group of settings.
        what: Its name in an error.
        values: Values by key.

    Raises:
        SettingsError: All mistakes at once.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _invalid(what, error, kind) from None


def _invalid(what: str, error: ValidationError, kind: type) -> SettingsError:
    return SettingsError(f"Invalid settings of {what}.", details=mistakes_of(error, kind))


def refuse(mistakes: Iterable[str]) -> None:
    """Fail the validation with one line for each mistake, where there are any."""
    lines = list(mistakes)
    if lines:
        raise PydanticCustomError(SEVERAL, "{text}", {"text": "; ".join(lines), "lines": lines})


def off_word(value: Any) -> Any:
    """Return `off` where YAML has read that word as false."""
    return "off" if value is False else value
