"""What Hydra composes from conf/ for the same overrides, without Hydra: a test compares the two."""

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from cliptrase.config import files
from cliptrase.config.files import Tree
from cliptrase.config.schema import OPTIONAL, FolderFiles
from cliptrase.config.validation import defaults
from cliptrase.config.written import read, scalar, text_of
from cliptrase.errors import UserError, nearest

GROUPS = ("benchmark", "method", "model", "protocol")
PATTERNS = ("benchmark.image", "benchmark.mask")  # their braces are no mapping


def compose(overrides: Iterable[str]) -> Tree:
    """evaluate.yaml with the chosen file of every group and the overrides, `hydra` left out.

    Raises UserError for a key or a file that does not exist, and for an unreadable value.
    """
    root = files.read_yaml(files.CONF / "evaluate.yaml")
    given = [entry for entry in root.pop("defaults") if isinstance(entry, dict)]
    root.pop("hydra", None)
    chosen = {group: entry[group] for entry in given for group in GROUPS if group in entry}
    assignments = []
    for override in map(quoted, overrides):
        key, equals, text = override.partition("=")
        if not equals or not key or key[0] in "+~":
            raise UserError(f"override {override!r}: write key=value, as in image_size=336")
        if key.strip() in GROUPS:
            chosen[key.strip()] = text_of(parse_value(text))
        else:
            assignments.append((key.strip(), parse_value(text)))
    for group, name in chosen.items():
        root[group] = files.load(group, name)
    for key, value in assignments:
        _assign(root, key, value)
    return root


def quoted(override: str) -> str:
    """The same override, with the quotes that Hydra and YAML need where a pattern has braces."""
    key, _, text = override.partition("=")
    if key.strip() not in PATTERNS or "{" not in text or text.strip()[0] in "'\"":
        return override
    return f'{key}="{text.strip()}"'


def parse_value(text: str) -> Any:
    """A value as Hydra reads it: null, true, 3, 0.7, 1e-3, 'text', [a, b], {a: b}.

    It is as `written` says: what text keys can turn into the text again.
    """
    stripped = text.strip()
    if stripped[:1] not in ("[", "{", "'", '"'):
        return scalar(re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", stripped))
    try:
        return read(stripped)
    except yaml.YAMLError:
        inside = re.fullmatch(r"(['\"])(.*)\1", stripped, re.DOTALL)
        if inside and re.search(r"[\ud800-\udfff]", stripped):  # a file's name of other bytes
            return inside[2]
        raise UserError(f"cannot read the value {text!r}; check its quotes and brackets") from None


def _assign(root: Tree, key: str, value: Any) -> None:
    """Set a key of a tree that is there already. Raises UserError for one that is not."""
    node: Any = root
    names = key.split(".")
    for depth, name in enumerate(names):
        section, here = ".".join(names[:depth]), ".".join(names[: depth + 1])
        if not isinstance(node, dict):
            raise UserError(f"key {here!r} does not exist: {section!r} is {text_of(node)} here")
        part = OPTIONAL.get(section)
        if section == "benchmark" and node.get("dataset") == "folder":
            part = FolderFiles
        optional = defaults(part) if part else {}
        if name not in node and name in optional:
            raise UserError(
                f"{here} is not written in this {names[0]}'s file of conf/{names[0]}, which takes "
                f"its default ({name}: {json.dumps(optional[name])}); add the line there, then "
                "any value can be set"
            )
        if name not in node:
            raise UserError(f"unknown key {here!r}; {nearest(name, node)}")
        if here == key:
            node[name] = value
        node = node[name]


def leaves(tree: Tree, prefix: str = "") -> Tree:
    """The values of a tree that are no mappings, each by its key with dots."""
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def refuse_missing(tree: Tree) -> None:
    """Raise UserError for a value that the user has to give, `???`."""
    for key, value in leaves(tree).items():
        if value == "???":
            raise UserError(f"{key} is needed: give {key}=… (`cliptrase segment`: --set {key}=…)")
