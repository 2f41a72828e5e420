"""pydantic's validation errors in the project's words: key, value, what exists, nearest match.

Models derive from `Frozen`. A validator of a field raises ValueError with the end of the sentence
("must be odd"); whatever concerns several fields raises UserError with the whole sentence.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from cliptrase.errors import UserError, nearest


class Frozen(BaseModel):
    """A value of fixed fields, compared and hashed by them; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # The next four serve code that still reads a run as a mapping.
    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)

    def __contains__(self, key: str) -> bool:
        return getattr(self, key, None) is not None

    def keys(self) -> list[str]:
        return list(type(self).model_fields)


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong with some content.

    kind: missing | unknown (a key) | value. path: of the key, as `method.regions.eps`. fault: what
    is wrong, as the end of a sentence. wanted: the topmost field's description, or "".
    """

    kind: str
    path: str
    value: Any
    fault: str
    wanted: str

    def sentence(self) -> str:
        """As the messages about a run are written."""
        if self.kind == "missing":
            section = self.path.rpartition(".")[0] or self.path
            return f"{self.path} is missing; write it where the other keys of {section} are"
        if self.kind == "unknown":
            return f"unknown key {self.path!r}; {self.fault}"
        return f"{self.path}={show(self.value)}: {self.fault}"


def validated(
    model: type[M],
    content: Any,
    where: str = "",
    sentence: Callable[[Problem], str] = Problem.sentence,
    context: object = None,
) -> M:
    """`content` as a `model`. Raises UserError for the first thing that is wrong in it.

    where: the path of the content, as `method.regions`. sentence: what makes the message. context:
    for the model's validators.
    """
    try:
        return model.model_validate(content, context=context)
    except ValidationError as error:
        raise UserError(sentence(_problem(model, error, where))) from None


def show(value: Any) -> str:
    """A value as it is written in YAML and on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def whole(at_least: int, at_most: int | None = None) -> BeforeValidator:
    """Annotates an int: a whole number within limits."""
    limits = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"

    def check(value: Any) -> int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
        if not fits or (at_most is not None and value > at_most):
            raise ValueError(f"must be a whole number, {limits}")
        return value

    return BeforeValidator(check)


def number(above: float, at_most: float = float("inf")) -> BeforeValidator:
    """Annotates a float in (above, at_most]; with a limit it is not too small for float32."""
    bounded = at_most != float("inf")
    least = above + 1e-3 if bounded else above
    limits = f"from {least:g} to {at_most:g}" if bounded else f"greater than {above}"

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (above < value < float("inf") and least <= value <= at_most):
            raise ValueError(f"must be a number {limits}")
        return float(value)

    return BeforeValidator(check)


def one_of(choices: Iterable[str | bool]) -> BeforeValidator:
    """Annotates a str or a bool: one of some choices (of which 1 is not true)."""
    choices = tuple(choices)

    def check(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError(f"unknown value; {nearest(show(value), map(show, choices))}")
        return value

    return BeforeValidator(check)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool | dict | list) or str(value) == "":
        raise ValueError("must be a name or a path")
    return str(value)


Text = Annotated[str, BeforeValidator(_text)]  # a number is a text too
OptionalText = Annotated[
    str | None, BeforeValidator(lambda value: None if value is None else _text(value))
]


def _problem(model: type[BaseModel], error: ValidationError, where: str) -> Problem:
    # an unknown key first: the key that is missing may be what was meant
    about = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    path = [part for part in about["loc"] if not str(part).startswith("function-")]
    key = ".".join(filter(None, [where, *map(str, path)]))
    kinds = {"missing": "missing", "extra_forbidden": "unknown"}
    kind = kinds.get(about["type"], "value")
    field = model.model_fields.get(str(path[0])) if path else None
    wanted = (field.description if field else None) or ""
    fault = _fault(model, path, about["type"], about["input"], about["msg"])
    return Problem(kind, key, about["input"], fault, wanted)


def _fault(model: type[BaseModel], path: list[Any], kind: str, value: Any, message: str) -> str:
    """What is wrong with the value at a path, as the end of a sentence."""
    if kind == "extra_forbidden":
        section = next(filter(_is_model, _alternatives(_annotation(model, path[:-1]))), None)
        return nearest(str(path[-1]), section.model_fields if section else ())
    field = _annotation(model, path)
    if kind == "literal_error":
        return f"unknown value; {nearest(show(value), map(show, _literals(field)))}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        section = next(filter(_is_model, _alternatives(field)), None)
        keys = section.model_fields if section else {}
        needed = [name for name, about in keys.items() if about.is_required()]
        return f"must hold the keys {', '.join(needed)}" if needed else "must be a mapping"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    message = message.replace("Input should", "must").replace("valid tuple", "list")
    return message[:1].lower() + message[1:]


def _annotation(model: Any, path: list[Any]) -> Any:
    """The type of the field at a path."""
    found = model
    for part in path:
        section = next(filter(_is_model, _alternatives(found)), None)
        if section is not None and part in section.model_fields:
            found = section.model_fields[part].annotation
        else:
            inner = [typing.get_args(each) for each in _alternatives(found)]
            items = [each for args in inner for each in args if each is not ...]
            found = items[-1] if items else Any
    return found


def _alternatives(annotation: Any) -> list[Any]:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for each in typing.get_args(annotation) for part in _alternatives(each)]
    return [annotation]


def _literals(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for each in _alternatives(annotation):
        if typing.get_origin(each) is typing.Literal:
            found += typing.get_args(each)
        elif each is type(None):
            found.append(None)
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def defaults(model: Any) -> Mapping[str, Any]:
    """The fields of a model that may be left out, and what they are then."""
    fields = model.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}
