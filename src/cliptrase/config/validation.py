"""pydantic's validation errors in the project's words: key, value, what exists, nearest match.

A validator of a field raises ValueError with the end of a sentence ("must be odd"); whatever
concerns several fields raises UserError with the whole sentence.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from cliptrase.config.written import Written, text_of, unquoted
from cliptrase.errors import UserError, nearest
from cliptrase.files import local_path


class Frozen(BaseModel):
    """A value of fixed fields, compared and hashed by them; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, content: Any) -> Any:
        if isinstance(content, BaseModel):
            return content
        needed = [name for name, field in cls.model_fields.items() if field.is_required()]
        if not isinstance(content, dict):
            keys = f"must hold the keys {', '.join(needed)}" if needed else "must be a mapping"
            raise ValueError(keys)
        for key in content:
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise PydanticCustomError("unknown", "{hint}", {"key": str(key), "hint": hint})
        return content


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong with some content.

    kind: missing | unknown (a key) | value. path: of the key, as `method.regions.eps`. fault: what
    is wrong, as the end of a sentence.
    """

    kind: str
    path: str
    value: Any
    fault: str

    def sentence(self) -> str:
        """As the messages about a run are written."""
        if self.kind == "missing":
            section = self.path.rpartition(".")[0] or self.path
            return f"{self.path} is missing; write it where the other keys of {section} are"
        if self.kind == "unknown":
            return f"unknown key {self.path!r}; {self.fault}"
        return f"{self.path}={text_of(self.value)}: {self.fault}" if self.path else self.fault


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
        about = error.errors()[0]
        kind = about["type"] if about["type"] in ("missing", "unknown") else "value"
        place = [where, *about["loc"], about["ctx"]["key"] if kind == "unknown" else ""]
        path = ".".join(str(part) for part in place if part != "")
        ours = about["type"] in ("unknown", "value_error")
        fault = about["msg"].removeprefix("Value error, ") if ours else _in_words(about["msg"])
        raise UserError(sentence(Problem(kind, path, about["input"], fault))) from None


def _in_words(message: str) -> str:
    """pydantic's own messages in the style of ours."""
    message = message.replace("Input should", "must").replace("valid tuple", "list")
    message = message.replace("be a valid dictionary", "be a mapping")
    return message[:1].lower() + message[1:]


def that(fits: Callable[[Any], bool], otherwise: str) -> BeforeValidator:
    """Annotates a value that fits, as it is or without its quotes; `otherwise` is the end of the
    sentence about another one."""

    def check(value: Any) -> Any:
        for each in (value, unquoted(value)):
            if fits(each):
                return float(each) if isinstance(each, Written) else each
        raise ValueError(otherwise)

    return BeforeValidator(check)


def is_number(value: Any, kind: type = float) -> bool:
    """Whether a value is a number (kind `int`: a whole one); true and false are none."""
    return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)


def whole(at_least: int, at_most: float = math.inf) -> BeforeValidator:
    """Annotates an int: a whole number within limits."""
    limits = f"{at_least} or more" if at_most == math.inf else f"{at_least} to {at_most}"
    return that(
        lambda value: is_number(value, int) and at_least <= value <= at_most,
        f"must be a whole number, {limits}",
    )


def number(above: float, at_most: float = math.inf) -> BeforeValidator:
    """Annotates a float in (above, at_most]; with a limit it is not too small for float32."""
    least = above if at_most == math.inf else above + 1e-3
    limits = f"greater than {above}" if at_most == math.inf else f"from {least:g} to {at_most:g}"
    return that(
        lambda value: is_number(value) and above < value < math.inf and least <= value <= at_most,
        f"must be a number {limits}",
    )


def one_of(*choices: str | int | None) -> BeforeValidator:
    """Annotates a value that is one of some choices (of which 1 is not true)."""

    def check(value: Any) -> Any:
        for each in (value, unquoted(value)):
            if any(each == choice and type(each) is type(choice) for choice in choices):
                return each
        raise ValueError(f"unknown value; {nearest(text_of(value), map(text_of, choices))}")

    return BeforeValidator(check)


def text(value: Any) -> str | None:
    """The text of a text key as it was written, also where it looks like a number or a flag."""
    if isinstance(value, dict | list) or value == "":
        raise ValueError("must be a name or a path")
    return None if value is None else text_of(value)


def path(value: Any) -> str | None:
    """The text of a key that names a file or folder, with the home folder in the place of `~`."""
    written = text(value)
    return None if written is None else local_path(written)


_needed = that(lambda value: value is not None, "must be a name or a path")
OptionalText = Annotated[str | None, BeforeValidator(text)]
Text = Annotated[str, _needed, BeforeValidator(text)]
OptionalPath = Annotated[str | None, BeforeValidator(path)]
PathText = Annotated[str, _needed, BeforeValidator(path)]


def defaults(model: Any) -> Mapping[str, Any]:
    """The fields of a model that may be left out, and what they are then."""
    fields = model.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


Flag = Annotated[bool, one_of(True, False)]
Count = Annotated[int, whole(1)]
Scale = Annotated[float, number(0, 10_000)]
