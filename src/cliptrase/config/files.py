"""The files of conf/ and of folders like it: read once, checked for their name, handed out as
fresh dicts."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cliptrase.config import outside
from cliptrase.config.written import read, text_of
from cliptrase.errors import UserError, nearest
from cliptrase.files import once_a_file, user_path
from cliptrase.resources import resource

CONF = resource("conf")
OWN = "CLIPTRASE_CONF"  # the environment's name of folders like it
GROUPS = ("method", "benchmark", "model", "protocol", "backbone", "suite", "table")

Tree = dict[str, Any]  # YAML before it is validated


def folders() -> tuple[Path, ...]:
    """conf/, and the folders of the user's own that `--conf-dir` or CLIPTRASE_CONF names, divided
    as paths in PATH are. Raises UserError for one that is no such folder."""
    named = os.environ.get(OWN, "")
    return (CONF, *(_own(place) for place in named.split(os.pathsep) if place))


def add_folder(place: str) -> None:
    """Let a folder of the user's own count, in the programs that this one starts too."""
    before = os.environ.get(OWN)
    folder = str(_own(place))
    os.environ[OWN] = f"{before}{os.pathsep}{folder}" if before else folder


def taken_from(words: Sequence[str]) -> list[str]:
    """A command line without its `--conf-dir DIR`, whose folders count from here on."""
    left, rest = list[str](), iter(words)
    for word in rest:
        if word == "--conf-dir":
            add_folder(next(rest, ""))
        elif word.startswith("--conf-dir="):
            add_folder(word.partition("=")[2])
        else:
            left.append(word)
    return left


def _own(place: str) -> Path:
    path = user_path(place).absolute()
    if not path.is_dir() or not any((path / group).is_dir() for group in GROUPS):
        raise UserError(
            f"--conf-dir {place}: must be a folder with a folder {', '.join(GROUPS[:-1])} or "
            f"{GROUPS[-1]} in it"
        )
    return path


def find(group: str, name: str) -> Path | None:
    """The file of a name, None where there is none. Raises UserError where two folders have it."""
    there = [folder / group / f"{name}.yaml" for folder in folders()]
    there = [path for path in there if path.is_file()] if "/" not in name else []
    if len(there) > 1:
        raise UserError(f"{there[1]}: {there[0]} has this name; choose another one")
    return there[0] if there else None


def load(group: str, name: str) -> Tree:
    """The file of a name. Raises UserError for a name that has no file."""
    path = find(group, name)
    if path is None and group == "method" and name in (packaged := outside.installed()):
        return {**load("method", outside.NAMELESS), "name": name, "file": packaged[name]}
    if path is None:
        raise UserError(f"unknown {group} {name!r}; {nearest(name, names(group))}")
    content = read_yaml(path)
    inner = text_of(content.get("name", name))
    has_label = group in ("model", "backbone")
    if not has_label and inner != name:  # runs and cells would bear another name
        raise UserError(f"{path}: name: {inner}; write name: {name}, as the file is called")
    if group == "method" and isinstance(content.get("file"), str) and content["file"] != "???":
        content["file"] = str(path.parent / content["file"])
    return content


def names(group: str) -> list[str]:
    """The names that `load` knows of a group, sorted."""
    there = {file.stem for folder in folders() for file in (folder / group).glob("*.yaml")}
    return sorted(there | (outside.installed().keys() if group == "method" else set()))


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
