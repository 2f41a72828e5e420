"""Which model a run names: its folder or open_clip's name, its patch, and what its weights are.

Looks at files only; torch and open_clip are not imported.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_file
from cliptrase.resources import resource

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def describe_model(model: dict[str, Any]) -> dict[str, Any]:
    """A composed `model`, completed: label, kind, name, pretrained, path, patch, digests.

    `path` is where the weights lie, or None where open_clip knows; it is no part of a run's
    identity: `weights_sha256` and `config_sha256` are, wherever the files are at hand. Raises
    UserError for a folder that is not open_clip's, an unknown name.
    """
    full = {"name": None, "pretrained": None, "path": None} | model
    if model["kind"] == "local":
        return full | _local(model["label"], full["path"])
    return full | _open_clip(str(full["name"]), str(full["pretrained"]))


def config_file(model: dict[str, Any]) -> Path:
    """The JSON that says what a described `model` is made of: its own, or open_clip's."""
    if model["kind"] == "local":
        return Path(model["path"]) / CONFIG
    return _known_models() / f"{model['name']}.json"


def _known_models() -> Path:
    """Where open_clip keeps the JSON of every model that it knows."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("open_clip_torch is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "model_configs"


def _local(label: str, path: Any) -> dict[str, Any]:
    folder = resource("assets", label) if path is None else Path(str(path)).expanduser()
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise UserError(f"{file}: no such file; model.path names an open_clip folder")
    return {
        "path": str(folder.absolute()),
        "patch": _patch(folder / CONFIG),
        "weights_sha256": _digest_of(folder / WEIGHTS),
        "config_sha256": _digest_of(folder / CONFIG),
    }


def _open_clip(name: str, pretrained: str) -> dict[str, Any]:
    known = _known_models()
    config = known / f"{name}.json"
    if "/" in name or not config.is_file():
        names = (path.stem for path in known.glob("*.json"))
        raise UserError(f"unknown model.name {name!r}; {_closest(name, names)}")
    file = Path(pretrained).expanduser()
    at_hand = file.is_file()
    return {
        "name": name,
        "pretrained": file.name if at_hand else pretrained,
        "path": str(file.absolute()) if at_hand else None,
        "patch": _patch(config),
        "weights_sha256": _digest_of(file) if at_hand else None,
        "config_sha256": None,
    }


def _closest(word: str, names: Iterable[str]) -> str:
    """open_clip knows hundreds of names: show the near one only."""
    hint = nearest(word, names).partition(" There is:")[0]
    return hint if hint.startswith("did you mean") else "see open_clip.list_models()"


def _patch(file: Path) -> int:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return int(content.get("model_cfg", content)["vision_cfg"]["patch_size"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise UserError(f"{file}: not the configuration of a ViT that open_clip wrote") from None


def _digest_of(file: Path) -> str:
    stat = file.stat()
    return _digest(file, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@functools.lru_cache(maxsize=64)
def _digest(file: Path, mtime_ns: int, size: int, inode: int) -> str:
    return sha256_file(file)
