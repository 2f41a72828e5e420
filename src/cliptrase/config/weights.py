"""Which model a run names: its folder or open_clip's name, its patch, and what its weights are.

Looks at files only; torch and open_clip are not imported.
"""

import functools
import json
from importlib.util import find_spec
from pathlib import Path

from cliptrase.config import openai_file
from cliptrase.config.files import Tree
from cliptrase.config.schema import Model, WrittenModel
from cliptrase.errors import UserError, nearest
from cliptrase.files import known_sha256
from cliptrase.resources import resource

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CURE = (
    "choose another model with model= (`cliptrase segment`: --model): model=shapes_clip ships with "
    "the project, model=local model.path=DIR reads an open_clip folder, model=open_clip "
    "model.name=ViT-B-32 model.pretrained=laion2b_s34b_b79k is one that open_clip knows"
)


def describe_model(model: WrittenModel) -> Model:
    """A model with its patch, depth and digests.

    `weights_sha256` and `config_sha256` are known wherever the files are at hand. Raises UserError
    for a folder that is not open_clip's, for a file that is not OpenAI's, for an unknown name, and
    for an architecture that cannot be segmented with.
    """
    parts: Tree = {"path": None, "weights_sha256": None, "config_sha256": None}
    if model.kind == "local":
        named = model.path is not None
        folder = Path(str(model.path)) if named else resource("assets", model.label)
        weights = open_clip_folder(folder) / WEIGHTS
        parts |= {"path": str(folder.absolute()), "config_sha256": known_sha256(folder / CONFIG)}
        parts["weights_sha256"] = known_sha256(weights)
    elif model.kind == "openai_file":
        weights = Path(str(model.path))
        if weights.is_dir():
            raise UserError(
                f"{weights}: a folder, but model.path names a file of OpenAI's here; an open_clip "
                "folder is read by model=local model.path=DIR"
            )
        if not weights.is_file():
            raise UserError(f"{weights}: no such file; model.path names a file of OpenAI's")
        parts |= {"path": str(weights.absolute()), "weights_sha256": known_sha256(weights)}
    else:
        name = str(model.name)
        if "/" in name or not (_known_models() / f"{name}.json").is_file():
            near = nearest(name, (path.stem for path in _known_models().glob("*.json")))
            hint = near.partition(" There is:")[0]  # of hundreds
            hint = hint if hint.startswith("did you mean") else "see open_clip.list_models()"
            raise UserError(f"unknown model.name {name!r}; {hint}")
        weights = Path(str(model.pretrained))
        if weights.is_file():
            parts |= {"pretrained": weights.name, "path": str(weights.absolute())}
            parts["weights_sha256"] = known_sha256(weights)
    described = Model.model_validate({**dict(model), "patch": 1, "depth": 1, **parts})
    vision = architecture(described)["vision_cfg"]
    shape = {"patch": vision["patch_size"], "depth": vision.get("layers", 12)}
    return described.model_copy(update=shape)


def open_clip_folder(folder: Path) -> Path:
    """`folder`, if it has what open_clip reads. Raises UserError that says what it is instead."""
    if folder.is_file():
        raise UserError(
            f"{folder}: a file, but model.path names an open_clip folder here; OpenAI's own files "
            "(ViT-B-16.pt) are read by model=openai_file model.path=FILE (`cliptrase segment`: "
            "--model openai_file --set model.path=FILE), other weights by model=open_clip "
            "model.name=NAME model.pretrained=FILE"
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; model.path names an open_clip folder")
    for name in (CONFIG, WEIGHTS):
        if (folder / name).is_file():
            continue
        others = sorted(path.name for path in folder.glob("*.bin"))
        if name == CONFIG and (folder / "config.json").is_file():
            hint = "; this folder is of transformers, whose models are not read"
        elif name == WEIGHTS and others:
            file = folder / others[0]
            hint = (
                f"; {others[0]} is read by model=open_clip model.name=NAME model.pretrained={file}"
            )
        else:
            hint = ""
        raise UserError(
            f"{folder / name}: no such file; model.path names an open_clip folder{hint}"
        )
    return folder


def architecture(model: Model) -> Tree:
    """What a model is made of, as open_clip's configurations say it.

    Raises UserError for what is no such configuration, and for an architecture whose towers or
    tokenizer are not open_clip's own: they have no patch tokens to change the attention of, or ask
    a hub even for local weights.
    """
    if model.kind == "openai_file":
        return openai_file.architecture(Path(str(model.path)))
    local = model.kind == "local"
    file = Path(str(model.path), CONFIG) if local else _known_models() / f"{model.name}.json"
    where = str(file) if local else f"model.name={model.name}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config = content["model_cfg"] if local else content
        vision, text = config["vision_cfg"], config.get("text_cfg", {})
        fault = _unusual(vision, text)
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        raise UserError(f"{where}: not a configuration of a CLIP that open_clip wrote") from None
    if fault:
        raise UserError(f"{where}: not a plain ViT with CLIP's own text tower: {fault}; {CURE}")
    return dict(config)


def _unusual(vision: Tree, text: Tree) -> str:
    """In what an architecture differs from those that can be segmented with; "" for nothing."""
    layers = vision.get("layers", 12)
    if timm := vision.get("timm_model_name"):  # SigLIP, EVA, ConvNeXt, MobileCLIP, …
        return f"its image tower is {timm}, of timm"
    if not isinstance(layers, int):
        return "its image tower is a ResNet, which has no patches"
    if vision.get("attentional_pool"):
        return "its image tower pools by attention, as CoCa's"
    if not isinstance(vision["patch_size"], int):
        return f"its patches of {vision['patch_size']} pixels are not squares"
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if key in text:
            return f"its text tower or tokenizer is {text[key]}, of Hugging Face"
    return ""


@functools.cache
def _known_models() -> Path:
    """Where open_clip keeps the JSON of every model that it knows."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("open_clip_torch is not installed; run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "model_configs"
