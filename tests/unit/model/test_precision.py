"""The image tower in bf16 and fp16: what is rounded, how far results move, and that fp32 does not.

A number rounded to bf16 is off by at most 2⁻⁹ of itself, to fp16 by 2⁻¹²: UNIT.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.objects import local_model, method

from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.load import load_clip
from cliptrase.model.precision import DTYPES, linear, lower

UNIT = {"bf16": 2.0**-9, "fp16": 2.0**-12}


def lowered(clip, precision):
    """The same model with the image tower in another precision."""
    model = copy.deepcopy(clip.model)
    lower(model.visual, precision)
    return dataclasses.replace(clip, model=model, precision=precision, positions={})


def features(clip, pixels):
    tokens = vision.embed_tokens(clip, pixels)
    for index in range(clip.depth):
        tokens = vision.block(clip, index, tokens)
    return F.normalize(vision.project(clip, tokens), dim=-1)


def test_fp32_is_open_clips_own_layers_to_the_last_bit(tiny, pixels):
    for options in ({}, {"quick_gelu": False}, {"ls_init_value": 0.5}):
        clip = lowered(tiny(**options), "fp32")
        tokens = vision.embed_tokens(clip, pixels)
        for index, block in enumerate(clip.blocks):
            parts = vision.qkv(clip, index, tokens)
            joint = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)
            joined = torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=-1)
            assert torch.equal(joined, joint)
            mixed = vision.attend(parts, "softmax", ["qk"])
            expected = tokens + block.ls_1(block.attn.out_proj(mixed))
            expected = expected + block.ls_2(block.mlp(block.ln_2(expected)))
            tokens = vision.finish(clip, index, tokens, mixed)
            assert torch.equal(tokens, expected)


def test_only_the_linear_layers_of_blocks_are_rounded(clip):
    before = dict(clip.model.named_parameters())
    assert {each.dtype for each in before.values()} == {torch.float32}
    layers = ("attn.in_proj_", "attn.out_proj.", "mlp.c_fc.", "mlp.c_proj.")
    for precision in UNIT:
        rounded = []
        for name, parameter in lowered(clip, precision).model.named_parameters():
            if parameter.dtype == torch.float32:
                assert torch.equal(parameter, before[name])
            else:
                rounded.append(name)
                assert torch.equal(parameter, before[name].to(DTYPES[precision]))
        assert len(rounded) == 8 * clip.depth
        assert all(name.startswith("visual.transformer.resblocks.") for name in rounded)
        assert all(any(layer in name for layer in layers) for name in rounded)


@pytest.mark.parametrize("precision", UNIT)
def test_a_product_is_off_by_the_rounding_of_what_is_multiplied_and_of_its_result(precision):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(40, 70, generator=generator) for _ in range(2))
    bias, dtype, unit = torch.randn(40, generator=generator), DTYPES[precision], UNIT[precision]
    exact = F.linear(x.double(), weight.double(), bias.double())
    size = F.linear(x.double().abs(), weight.double().abs(), bias.double().abs())
    for own in (bias, None):
        rounded = None if own is None else own.to(dtype)
        found = linear(x, weight.to(dtype), rounded)
        wanted = exact if own is not None else exact - bias
        assert found.dtype == torch.float32
        assert torch.equal(found, found.to(dtype).float())
        off = (found - wanted).abs()
        assert (off <= (2 + unit) * unit * size + unit * wanted.abs() * 1.01 + 1e-5).all()
        assert off.max() > unit / 8  # and it is rounded
        theirs = F.linear(x.to(dtype), weight.to(dtype), rounded).float()
        torch.testing.assert_close(found, theirs, atol=1e-4, rtol=2.02 * unit)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.03), ("fp16", 0.004)])
def test_features_stay_close_to_those_of_fp32(clip, pixels, precision, bound):
    """Unit vectors apart by less than `bound`: 12 blocks of about 4 roundings that add up like a
    walk, √48 · 2⁻⁹ ≈ 0.014 and √48 · 2⁻¹² ≈ 0.0017, and twice that for the worst token."""
    plain, low = features(clip, pixels), features(lowered(clip, precision), pixels)
    assert low.dtype == torch.float32
    away = (plain - low).norm(dim=-1)
    assert UNIT[precision] / 2 < away.max() < bound


@pytest.mark.parametrize("precision", UNIT)
def test_what_methods_are_made_of_is_fp32(clip, pixels, precision):
    low = lowered(clip, precision)
    tokens = vision.embed_tokens(low, pixels)
    assert torch.equal(tokens, vision.embed_tokens(clip, pixels))
    parts = vision.qkv(low, 0, tokens)
    for each in (*parts, vision.block(low, 0, tokens), vision.project(low, tokens)):
        assert each.dtype == torch.float32


def test_a_number_beyond_fp16_is_refused_by_name_and_bf16_holds_it(clip, pixels):
    large = dataclasses.replace(clip, model=copy.deepcopy(clip.model), positions={})
    large.blocks[5].mlp.c_fc.bias[0] = 1e5
    assert features(large, pixels).isfinite().all()
    assert features(lowered(large, "bf16"), pixels).isfinite().all()
    refused = pytest.raises(
        UserError, match=r"model\.precision=fp16: .* take model\.precision=bf16"
    )
    for name in ("cliptrase", "gem", "clip_surgery"):
        with refused, torch.inference_mode():
            Graph(lowered(large, "fp16"), pixels).patches(method(name))


def test_damaged_weights_are_said_to_be(clip, pixels):
    damaged = dataclasses.replace(clip, model=copy.deepcopy(clip.model), positions={})
    damaged.blocks[5].mlp.c_fc.bias[0] = torch.nan
    with pytest.raises(UserError, match="not finite; its weights are damaged"):
        features(damaged, pixels)


def test_a_model_is_loaded_in_its_precision(tmp_path, clip, pixels):
    towers = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "layers": 12, "width": 48, "head_width": 16, "patch_size": 16, "image_size": 64,
        },
        "text_cfg": {"width": 32, "heads": 2, "layers": 3},
    }  # fmt: skip
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.3, 0.2]}
    content = {"model_cfg": towers, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    save_file(clip.model.state_dict(), str(tmp_path / "open_clip_model.safetensors"))
    assert torch.equal(features(load_clip(local_model(tmp_path)), pixels), features(clip, pixels))
    for precision in DTYPES:
        loaded = load_clip(local_model(tmp_path, precision=precision))
        assert loaded.precision == precision
        assert torch.equal(features(loaded, pixels), features(lowered(clip, precision), pixels))
