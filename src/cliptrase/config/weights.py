"""Which model a run names: its folder or open_clip's name, its patch, and what its weights are.

Looks at files only; torch and open_clip are not imported.
"""

import json
from importlib.util import find_spec
from pathlib import Path

from cliptrase.config.files import Tree
from cliptrase.config.schema import Model, WrittenModel
from cliptrase.errors import UserError, nearest
from cliptrase.files import known_sha256
from cliptrase.resources import resource

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def describe_model(model: WrittenModel) -> Model:
    """A model with its patch, depth and digests.

    `weights_sha256` and `config_sha256` are known wherever the files are at hand. Raises UserError
    for a folder that is not open_clip's and for an unknown name.
    """
    parts: Tree = {"path": None, "weights_sha256": None, "config_sha256": None}
    if model.kind == "local":
        named = model.path is not None
        folder = Path(str(model.path)) if named else resource("assets", model.label)
        config, weights = folder / CONFIG, folder / WEIGHTS
        for file in (config, weights):
            if not file.is_file():
                raise UserError(f"{file}: no such file; model.path names an open_clip folder")
        parts |= {"path": str(folder.absolute()), "config_sha256": known_sha256(config)}
        parts["weights_sha256"] = known_sha256(weights)
    else:
        config, name = _known_models() / f"{model.name}.json", str(model.name)
        if "/" in name or not config.is_file():
            near = nearest(name, (path.stem for path in config.parent.glob("*.json")))
            hint = near.partition(" There is:")[0]  # of hundreds
            hint = hint if hint.startswith("did you mean") else "see open_clip.list_models()"
            raise UserError(f"unknown model.name {name!r}; {hint}")
        weights = Path(str(model.pretrained))
        if weights.is_file():
            parts |= {"pretrained": weights.name, "path": str(weights.absolute())}
            parts["weights_sha256"] = known_sha256(weights)
    patch, depth = _shape(config)
    return Model.model_validate({**dict(model), "patch": patch, "depth": depth, **parts})


def config_file(model: Model) -> Path:
    """The JSON that says what a model is made of: its own, or open_clip's."""
    if model.kind == "local":
        return Path(str(model.path)) / CONFIG
    return _known_models() / f"{model.name}.json"


def _known_models() -> Path:
    """Where open_clip keeps the JSON of every model that it knows."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("open_clip_torch is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "model_configs"


def _shape(file: Path) -> tuple[int, int]:
    """The side of a patch in pixels, and the number of blocks."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        vision = content.get("model_cfg", content)["vision_cfg"]
        layers = vision.get("layers", 12)  # a list: a ResNet's stages, refused when it is loaded
        return int(vision["patch_size"]), layers if isinstance(layers, int) else 12
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise UserError(f"{file}: not the configuration of a ViT that open_clip wrote") from None
