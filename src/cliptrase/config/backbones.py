"""Which networks beside CLIP a method names: labels of conf/backbone, or folders.

Looks at files only; torch, transformers and timm are not imported.
"""

import json
import re
from pathlib import Path

from cliptrase.config import files
from cliptrase.config.files import Tree
from cliptrase.config.method import Backbone, BackboneNames, WrittenBackbone
from cliptrase.config.schema import Model
from cliptrase.config.validation import validated
from cliptrase.errors import UserError, nearest
from cliptrase.files import known_sha256, local_path
from cliptrase.resources import resource

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS = {"sam": "sam", "dino": "timm"}  # what `method.sam` and `method.dino` may name
PATCH = re.compile(r"_patch(\d+)(_|$)")  # in the names of timm's architectures


def choose(role: str, written: object, prefers: BackboneNames, model: Model) -> Backbone | None:
    """The network that `method.<role>` names beside a model; None for null.

    Raises UserError for a label or folder that does not exist, and for one of another kind.
    """
    if written is None:
        return None
    where = f"method.{role}={written}"
    label = str(written)
    if label == "auto":
        label = getattr(model.substitutes, role) or getattr(prefers, role) or ""
        if not label:
            raise UserError(f"{where}: the method's file prefers none; give {_hint(role, '')}")
    kind, colon, folder = label.partition(":")
    if kind == "local-dir" and colon:
        if not folder.strip():
            raise UserError(f"{where}: names no folder; write local-dir:DIR")
        found = _of_folder(Path(local_path(folder)), where)
        _check_weights(Path(local_path(folder)) / WEIGHTS, where)
    elif label in files.names("backbone"):
        found = described(label)
    else:
        raise UserError(f"{where}: unknown network; {_hint(role, label)}")
    if found.kind != KINDS[role]:
        wanted = {"sam": "a SAM", "dino": "a ViT of timm"}[role]
        raise UserError(f"{where}: not {wanted}, but of kind {found.kind}. {_hint(role, '')}")
    return found


def described(label: str) -> Backbone:
    """The network of conf/backbone/<label>.yaml; its digests where its files ship."""
    written = read_backbone(label)
    if written.label != label:
        where = f"conf/backbone/{label}.yaml"
        raise UserError(f"{where}: label: {written.label}; write {label}, as the file is called")
    if written.kind == "timm" and written.name is not None and written.patch is None:
        raise UserError(f"conf/backbone/{label}.yaml: patch is missing; write its side in pixels")
    if written.name is None:
        return _of_folder(resource("assets", label), f"conf/backbone/{label}.yaml", label)
    return Backbone(
        label=label,
        kind=written.kind,
        name=written.name,
        weights_sha256=written.sha256,
        config_sha256=None,
        path=None,
        repo=written.repo or written.name,
        patch=written.patch,
    )


def read_backbone(label: str) -> WrittenBackbone:
    """conf/backbone/<label>.yaml, validated."""
    return validated(
        WrittenBackbone, files.load("backbone", label), f"conf/backbone/{label}.yaml: "
    )


def _of_folder(folder: Path, where: str, label: str = "local") -> Backbone:
    """The network in a folder of transformers' or timm's layout."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{where}: {folder}: a file; name its folder")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"{where}: {folder / name}: no such file; the folder of a SAM or DINO holds "
                f"{CONFIG} and {WEIGHTS}, as transformers and timm write them"
            )
    content = _config(folder / CONFIG, where)
    if content.get("model_type") == "sam":
        kind, name, patch = "sam", "sam", None
    elif isinstance(content.get("architecture"), str):
        kind, name = "timm", content["architecture"]
        arguments = content.get("model_args")
        patch = arguments.get("patch_size") if isinstance(arguments, dict) else None
        patch = patch or ((found := PATCH.search(name)) and int(found[1]))
        if not isinstance(patch, int):
            raise UserError(
                f"{where}: {folder / CONFIG}: architecture {name}: the side of its patches is not "
                'known; write it as "model_args": {"patch_size": …}, as timm does'
            )
    else:
        given = content.get("model_type", "none")
        raise UserError(
            f"{where}: {folder / CONFIG}: model_type {given}: neither transformers' SAM "
            "(model_type sam) nor a ViT of timm (architecture); give another folder"
        )
    return Backbone(
        label=label,
        kind=kind,
        name=name,
        weights_sha256=known_sha256(folder / WEIGHTS),
        config_sha256=known_sha256(folder / CONFIG),
        path=str(folder.absolute()),
        repo=None,
        patch=patch,
    )


def _config(file: Path, where: str) -> Tree:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {file}: not JSON in UTF-8 ({error}); get it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: {file}: not a JSON object; get it again")
    return content


def _check_weights(file: Path, where: str) -> None:
    """Refuse a file that is not safetensors, or is cut off; only its header is read."""
    from safetensors import SafetensorError, safe_open  # which loads NumPy

    try:
        with safe_open(file, framework="np"):
            pass
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{where}: {file}: not safetensors, or cut off ({error}); get it again"
        ) from None


def _hint(role: str, label: str) -> str:
    known = [name for name in files.names("backbone") if read_backbone(name).kind == KINDS[role]]
    return nearest(label, [*known, "local-dir:DIR"])
