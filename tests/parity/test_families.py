"""Every ViT that open_clip knows by name: computed as open_clip computes it, or refused.

open_clip is the oracle: its own module, built from the same architecture and the same random
weights, with our position embedding where the grid is not the one trained on.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.objects import changed, method
from torch import Tensor

from cliptrase import config
from cliptrase.config.weights import CONFIG, WEIGHTS
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.load import Clip, load_clip
from cliptrase.model.text import encode_tokens

# What the code claims: plain ViTs of OpenAI, LAION, DataComp, MetaCLIP, DFN and untrained ones.
CLAIMED = [
    "ViT-B-16", "ViT-B-16-plus", "ViT-B-16-plus-240", "ViT-B-16-quickgelu", "ViT-B-32",
    "ViT-B-32-256", "ViT-B-32-plus-256", "ViT-B-32-quickgelu", "ViT-H-14", "ViT-H-14-378",
    "ViT-H-14-378-quickgelu", "ViT-H-14-quickgelu", "ViT-H-16", "ViT-L-14", "ViT-L-14-280",
    "ViT-L-14-336", "ViT-L-14-336-quickgelu", "ViT-L-14-quickgelu", "ViT-L-16", "ViT-L-16-320",
    "ViT-M-16", "ViT-M-16-alt", "ViT-M-32", "ViT-M-32-alt", "ViT-S-16", "ViT-S-16-alt", "ViT-S-32",
    "ViT-S-32-alt", "ViT-bigG-14", "ViT-bigG-14-quickgelu", "ViT-e-14", "ViT-g-14",
]  # fmt: skip
# What no name of open_clip's has, and a folder may: a text tower of its own with biases, no
# normalisation before the blocks, fixed positions, a picture trained on that is no square.
FOLDERS: dict[str, dict[str, Any]] = {
    "own text tower": {
        "custom_text": True, "text_cfg": {"proj_bias": True, "final_ln_after_pool": True},
    },
    "no ln_pre": {"vision_cfg": {"no_ln_pre": True, "final_ln_after_pool": True}},
    "layer scale, other eps": {
        "vision_cfg": {"ls_init_value": 0.1, "norm_kwargs": {"eps": 1e-2}, "mlp_ratio": 2.5},
    },
    "sines and cosines": {"vision_cfg": {"pos_embed_type": "sin_cos_2d"}},
    "rectangle": {"vision_cfg": {"image_size": [64, 112]}},
    "tokens out, dropout": {"vision_cfg": {"output_tokens": True, "patch_dropout": 0.5}},
}  # fmt: skip
METHOD = method("clip")
MODEL = config.resolve(["model=shapes_clip"]).model


def small(architecture: dict[str, Any], layers: int = 3, heads: int | None = 2) -> dict[str, Any]:
    """The architecture with few layers and heads (None: all of them); patch, picture, head and
    activation as they are."""
    made = copy.deepcopy(architecture)
    tower = made["vision_cfg"]
    tower["layers"] = layers
    if heads is not None:
        tower["width"] = heads * tower.get("head_width", 64)
        made["embed_dim"] = 48
    for name in ("text_cfg", "multimodal_cfg"):
        made.get(name, {}).update(width=16, heads=1, layers=1, vocab_size=49408)
    return made


def built(architecture: dict[str, Any], seed: int) -> Any:
    """open_clip's own model of the architecture, every parameter random: nothing left out can pass
    unseen."""
    custom = architecture.get("custom_text", False)
    parts = {key: value for key, value in architecture.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    if "multimodal_cfg" in parts:
        kind = open_clip.CoCa
    model = kind(**copy.deepcopy(parts)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "token_embedding" not in name and parameter.ndim:
            noise = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if ".ln" in name and name.endswith("weight") else 0.0
            scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(centre + scale * noise)
    return model


def loaded(folder: Path, architecture: dict[str, Any], weights: dict[str, Tensor] | None) -> Clip:
    """Our model from an open_clip folder written here."""
    (folder / CONFIG).write_text(json.dumps({"model_cfg": architecture, "preprocess_cfg": {}}))
    if weights is None:
        (folder / WEIGHTS).write_bytes(b"")
    else:
        save_file(weights, str(folder / WEIGHTS))
    try:
        return load_clip(changed(MODEL, {"path": str(folder)}))
    finally:
        (folder / WEIGHTS).unlink()  # up to 350 MB, that pytest would keep


def pictures(model: Any, rows: int, columns: int, count: int = 2) -> Tensor:
    patch = model.visual.patch_size[0]
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, rows * patch, columns * patch, generator=generator)


def compare(clip: Clip, model: Any, grid: tuple[int, int], count: int = 2) -> None:
    """[CLS] and all tokens, of every block and in the joint space, equal the oracle's.

    Both compute in float64, so that nothing but the mathematics can differ: in float32 the rounding
    of twelve blocks reaches 1e-5 on some processors.
    """
    pixels = pictures(model, *grid, count=count).double()
    model.double()
    clip.model.double()
    clip.positions.clear()
    trained = model.visual.positional_embedding
    model.visual.positional_embedding = torch.nn.Parameter(
        vision.position_embedding(clip, *grid).clone(), requires_grad=False
    )
    entering, leaving = [], []
    hooks = []
    for block in model.visual.transformer.resblocks:
        hooks.append(block.register_forward_pre_hook(lambda _, given: entering.append(given[0])))
        hooks.append(block.register_forward_hook(lambda _, __, out: leaving.append(out)))
    expected = model.encode_image(pixels)
    for hook in hooks:
        hook.remove()
    everything = model.visual.ln_post(leaving[-1]) @ model.visual.proj
    model.visual.positional_embedding = trained
    if isinstance(expected, tuple):  # an architecture that hands its patches out too
        expected = expected[0]
    assert_close(everything[:, 0], expected)
    assert 0.1 < expected.abs().max() < 100 and everything.std(dim=1).min() > 1e-3

    graph = Graph(clip, pixels)
    assert graph.grid == grid
    assert_close(vision.embed_tokens(clip, pixels), entering[0])
    for index, (before, after) in enumerate(zip(entering, leaving, strict=True)):
        assert_close(vision.block(clip, index, before), after)
        assert_close(graph.entering(index + 1), after)
    assert_close(vision.project(clip, graph.entering(clip.depth)), everything)
    assert_close(graph.cls(METHOD), F.normalize(expected, dim=-1))
    assert_close(graph.patches(METHOD), F.normalize(everything[:, 1:], dim=-1))


def assert_close(ours: Tensor, expected: Tensor) -> None:
    exact = ours.dtype == torch.float64
    torch.testing.assert_close(
        ours, expected, atol=1e-10 if exact else 1e-5, rtol=1e-10 if exact else 1e-6
    )


@pytest.mark.parametrize("name", open_clip.list_models())
def test_a_model_of_open_clips_is_computed_as_it_does_or_refused(name, tmp_path):
    architecture = open_clip.get_model_config(name)
    model = None
    if not foreign(architecture):
        architecture = small(architecture)
        model = built(architecture, seed=len(name))
    try:
        clip = loaded(tmp_path, architecture, model and model.state_dict())
    except UserError as error:
        message = str(error)
        assert name not in CLAIMED, message
        assert "not a plain ViT" in message or "not CLIP's causal transformer" in message
        assert "model=shapes_clip" in message and "\n" not in message
    else:
        compare(clip, model, clip.visual.grid_size)
        compare(clip, model, (3, 5))


def foreign(architecture: dict[str, Any]) -> bool:
    """Whether a tower or tokenizer comes from another library, or is a ResNet."""
    keys = {*architecture["vision_cfg"], *architecture["text_cfg"]}
    others = {"timm_model_name", "hf_model_name", "hf_tokenizer_name"}
    return bool(keys & others) or isinstance(architecture["vision_cfg"]["layers"], list)


def test_every_family_that_is_claimed_exists():
    assert set(CLAIMED) <= set(open_clip.list_models())


@pytest.mark.parametrize("change", FOLDERS.values(), ids=FOLDERS)
def test_folders_of_other_plain_vits(change, tmp_path):
    architecture = small(open_clip.get_model_config("ViT-B-16-quickgelu"))
    for key, value in change.items():
        if isinstance(value, dict):
            architecture[key].update(value)
        else:
            architecture[key] = value
    model = built(architecture, seed=1)
    clip = loaded(tmp_path, architecture, model.state_dict())
    rows, columns = clip.visual.grid_size
    for grid in ((rows, columns), (columns + 2, rows), (21, 21), (1, 3)):
        compare(clip, model, grid)
    prompts = open_clip.tokenize(["a photo of a cat.", "many"])
    model.float(), clip.model.float()
    assert_close(encode_tokens(clip, prompts), model.encode_text(prompts))


@pytest.mark.parametrize(
    ("name", "layers", "grid"),
    [
        ("ViT-B-16-quickgelu", 12, (14, 14)),
        ("ViT-L-14", 4, (16, 21)),
    ],
)
def test_real_widths(name, layers, grid, tmp_path):
    architecture = small(open_clip.get_model_config(name), layers, heads=None)
    model = built(architecture, seed=2)
    clip = loaded(tmp_path, architecture, model.state_dict())
    attn = clip.blocks[0].attn
    assert (attn.embed_dim, attn.num_heads) in {(768, 12), (1024, 16)} and clip.depth == layers
    compare(clip, model, grid, count=1)
