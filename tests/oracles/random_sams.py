"""Small random SAMs of transformers' class, and the same networks as the released code has them."""

import re
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
)
from segment_anything.modeling import Sam as ReleasedSam
from torch import nn

from cliptrase.model.sam import Sam

SIDE, PATCH, WIDTH, DEPTH, HEADS, WINDOW, GLOBAL = 64, 8, 32, 3, 2, 3, (1,)

RENAMED = (  # transformers → released
    (r"^vision_encoder\.", "image_encoder."),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"image_encoder\.layers\.", "image_encoder.blocks."),
    (r"(blocks\.\d+)\.layer_norm", r"\1.norm"),
    (r"neck\.conv1", "neck.0"),
    (r"neck\.layer_norm1", "neck.1"),
    (r"neck\.conv2", "neck.2"),
    (r"neck\.layer_norm2", "neck.3"),
    (
        r"shared_embedding\.positional_embedding",
        "pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mask_decoder\.transformer\..*)layer_norm", r"\1norm"),
    (r"(mlps\.\d|prediction_head)\.layers\.0", r"\1.layers.1"),
    (r"proj_in", "layers.0"),
    (r"(mlps\.\d|prediction_head)\.proj_out", r"\1.layers.2"),
)


def random_sam(seed: int = 0, whole: tuple[int, ...] = GLOBAL) -> Sam:
    """A SAM whose every parameter is random: one left out, or taken for another, would show.
    whole: the blocks of its encoder that attend over the whole picture."""
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    vision = SamVisionConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=WIDTH, output_channels=WIDTH,
        num_hidden_layers=DEPTH, num_attention_heads=HEADS, mlp_dim=2 * WIDTH, window_size=WINDOW,
        global_attn_indexes=whole, num_pos_feats=WIDTH // 2, initializer_range=0.02,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=2 * WIDTH, num_attention_heads=HEADS, iou_head_hidden_dim=WIDTH
    )
    model = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )
    generator = torch.Generator().manual_seed(seed)
    model.eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(centre + (1.0 if "embed" in name else scale) * noise)
    return Sam(model, torch.device("cpu"), "random", SIDE)


def write_sam(folder: Path, seed: int = 0) -> Sam:
    """The same, whose folder of transformers' layout is written too."""
    sam = random_sam(seed)
    sam.model.save_pretrained(folder)
    return sam


def released(sam: Sam) -> ReleasedSam:
    """The network of `sam` as the released code builds it.

    But for the decoder's norms: eps is PyTorch's 1e-5 there, and 1e-6 in transformers.
    """
    grid = SIDE // PATCH
    model = ReleasedSam(
        ImageEncoderViT(
            img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
            mlp_ratio=2, out_chans=WIDTH, norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True, window_size=WINDOW,
            global_attn_indexes=sam.model.config.vision_config.global_attn_indexes,
        ),
        PromptEncoder(WIDTH, (grid, grid), (SIDE, SIDE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(2, WIDTH, HEADS, 2 * WIDTH),
            iou_head_hidden_dim=WIDTH,
        ),
    )  # fmt: skip
    weights = {}
    for name, values in sam.model.state_dict().items():
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        weights[name] = values
    tied = weights.pop("shared_image_embedding.positional_embedding")
    assert torch.equal(tied, weights["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"])
    model.load_state_dict(weights)
    for module in model.mask_decoder.transformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return model.eval().requires_grad_(False)
