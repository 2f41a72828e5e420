"""What is written on the command line or in YAML, as values that a text key can turn into the
written text again.

YAML is read as the command line is: `no` and `2024-05-01` are texts, which `unquoted` makes a flag
of where one is wanted; `~` and nothing are null.
"""

import re
from typing import Any, ClassVar

import yaml

WORDS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


class Written(float):
    """A number that Python would write in another way, as 1e-3 or 0.10, and its text."""

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = text
        return number


class Loader(yaml.SafeLoader):
    """YAML whose plain scalars are read by `scalar`."""

    yaml_implicit_resolvers: ClassVar = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}


def scalar(text: str) -> Any:
    """null, true, 3 or 0.7 as a value; else the text.

    `text_of` gives the text back, but for the case of null.
    """
    if text.lower() == "null":
        return None
    if text in ("true", "false"):
        return text == "true"
    value = unquoted(text)
    if isinstance(value, bool):
        return text
    if isinstance(value, float) and str(value) != text:
        return Written(text)
    return value if str(value) == text else text


def unquoted(value: Any) -> Any:
    """The number or the flag that a text (or each text of a list) says; any other value as it is.

    So "0.7" is a number where one is wanted.
    """
    if isinstance(value, list):
        return [unquoted(each) for each in value]
    if not isinstance(value, str):
        return float(value) if isinstance(value, Written) else value
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def text_of(value: Any) -> str:
    """A value as it was written."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value.text if isinstance(value, Written) else str(value)


def read(text: str) -> Any:
    """The content of YAML. Raises yaml.YAMLError."""
    return yaml.load(text, Loader)


def _plain(loader: Loader, node: yaml.ScalarNode) -> Any:
    return None if node.value in ("", "~") else scalar(node.value)


Loader.add_implicit_resolver("!plain", re.compile(""), None)
Loader.add_constructor("!plain", _plain)
