"""The files of conf/: read once, checked for their name, handed out as fresh dicts."""

import copy
from pathlib import Path
from typing import Any

import yaml

from cliptrase.config.written import read, text_of
from cliptrase.errors import UserError, nearest
from cliptrase.files import once_a_file
from cliptrase.resources import resource

CONF = resource("conf")

Tree = dict[str, Any]  # YAML before it is validated


def load(group: str, name: str) -> Tree:
    """conf/<group>/<name>.yaml. Raises UserError for a name that has no file."""
    path = CONF / group / f"{name}.yaml"
    if "/" in name or not path.is_file():
        raise UserError(f"unknown {group} {name!r}; {nearest(name, names(group))}")
    content = read_yaml(path)
    inner = text_of(content.get("name", name))
    has_label = group in ("model", "backbone")
    if not has_label and inner != name:  # runs and cells would bear another name
        raise UserError(f"{path}: name: {inner}; write name: {name}, as the file is called")
    return content


def names(group: str) -> list[str]:
    """The names that `load` knows of a group, sorted."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def read_yaml(path: Path) -> Tree:
    """A YAML mapping. Raises UserError naming the file."""
    return copy.deepcopy(_parsed(path))


@once_a_file
def _parsed(path: Path) -> Tree:
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a YAML mapping")
    return content
