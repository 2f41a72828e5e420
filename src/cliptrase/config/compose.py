"""What Hydra composes from conf/ for the same overrides, without Hydra: a test compares the two."""

import json
from collections.abc import Iterable
from typing import Any

import yaml

from cliptrase.config import files
from cliptrase.config.files import Tree
from cliptrase.config.schema import optional_keys
from cliptrase.errors import UserError, nearest

GROUPS = ("benchmark", "method", "model", "protocol")


def compose(overrides: Iterable[str]) -> Tree:
    """evaluate.yaml with the chosen file of every group and the overrides, `hydra` left out.

    Raises UserError for a key or a file that does not exist, and for an unreadable value.
    """
    root = files.read_yaml(files.CONF / "evaluate.yaml")
    defaults = [entry for entry in root.pop("defaults") if isinstance(entry, dict)]
    root.pop("hydra", None)
    chosen = {group: entry[group] for entry in defaults for group in GROUPS if group in entry}
    assignments = []
    for override in overrides:
        key, value = _split(override)
        if key in GROUPS:
            chosen[key] = str(value)
        else:
            assignments.append((key, value))
    for group, name in chosen.items():
        root[group] = files.load(group, name)
    for key, value in assignments:
        _assign(root, key, value)
    return root


def parse_value(text: str) -> Any:
    """A value as Hydra reads it: null, true, 3, 0.7, 1e-3, 'text', [a, b], {a: b}."""
    stripped = text.strip()
    if not stripped:
        return ""
    try:
        return int(stripped) if stripped.lstrip("+-").isdecimal() else float(stripped)
    except ValueError:
        pass
    if stripped.lower() in {"null", "true", "false"}:
        return {"null": None, "true": True, "false": False}[stripped.lower()]
    if stripped[0] in "[{'\"":
        try:
            return yaml.safe_load(stripped)
        except yaml.YAMLError:
            raise UserError(
                f"cannot read the value {text!r}; check its quotes and brackets"
            ) from None
    return stripped


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key or key[0] in "+~":
        raise UserError(f"override {override!r}: write key=value, as in image_size=336")
    return key.strip(), parse_value(text)


def _assign(root: Tree, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    node: Any = root
    for depth, name in enumerate(parents):
        node = _child(node, name, ".".join(parents[: depth + 1]))
    _child(node, leaf, key)
    node[leaf] = value


def _child(node: Any, name: str, key: str) -> Any:
    if not isinstance(node, dict):
        above = key.rpartition(".")[0]
        content = "null" if node is None else repr(node)
        raise UserError(f"key {key!r} does not exist: {above!r} is {content} here")
    if name not in node:
        group, section = key.split(".")[0], ".".join(key.split(".")[:-1])
        optional = optional_keys(section)
        if name in optional:
            raise UserError(
                f"{key} is not written in this {group}'s file of conf/{group}, which takes its "
                f"default ({name}: {json.dumps(optional[name])}); add the line there, then "
                "any value can be set"
            )
        raise UserError(f"unknown key {key!r}; {nearest(name, node)}")
    return node[name]
