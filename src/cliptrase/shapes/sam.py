"""The embedded SAM: its shape, its decoder as training needs it, and its files.

It is transformers' own SamModel, made small.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamAttention

from cliptrase.files import atomic_write, write_text

SIZE, PATCH, WIDTH = 224, 16, 128
LOW = SIZE // 4  # side of the low-resolution masks: four values a patch
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FOURIER = "shared_embedding.positional_embedding"  # the end of the tied copy's name


def new_model(seed: int) -> SamModel:
    """SamModel with random weights, 1.9 M parameters; its Fourier matrix is not learnt."""
    torch.manual_seed(seed)
    vision = SamVisionConfig(
        hidden_size=WIDTH,
        output_channels=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_dim=4 * WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        window_size=7,
        global_attn_indexes=[1, 3],
        num_pos_feats=WIDTH // 2,
        initializer_range=0.02,
    )
    # Of the Fourier frequencies: 1 as Meta has it. With transformers' own value, which loaded
    # weights replace, the codes of neighbouring points would have nothing in common.
    vision.scale = 1
    prompt = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIZE, patch_size=PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=4 * WIDTH, num_attention_heads=4, iou_head_hidden_dim=WIDTH
    )
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    model = SamModel(config)
    # Meta starts the prompt encoder and the decoder from PyTorch's own scales.
    for module in (*model.prompt_encoder.modules(), *model.mask_decoder.modules()):
        if isinstance(module, nn.Embedding | nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
    # Tokens start by attending to what is like them and near them. Otherwise the first attention,
    # which has no way around it, blurs all points into one, and finding this out takes long.
    with torch.no_grad():
        for module in model.mask_decoder.transformer.modules():
            if isinstance(module, SamAttention):
                module.q_proj.weight.mul_(2)
                module.k_proj.weight.copy_(module.q_proj.weight)
    model.shared_image_embedding.positional_embedding.requires_grad_(False)
    return model


def to_pixels(images: np.ndarray) -> Tensor:
    """(B, 224, 224, 3) uint8 RGB -> (B, 3, 224, 224) float32, normalised as SAM has it."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return ((values - mean) / std).contiguous()


def decode(
    model: SamModel, embeddings: Tensor, points: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Low-resolution logits (B, M, 4, 56, 56) and predicted IoU (B, M, 4) of all mask tokens.

    embeddings (B, 128, 14, 14), points (B, M, P, 2), labels (B, M, P). SamModel itself returns
    token 0 or the other three, never all.
    """
    sparse, dense = model.prompt_encoder(points, labels, None, None)
    decoder, (images, masks) = model.mask_decoder, sparse.shape[:2]
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(images, masks, -1, -1), sparse], dim=2)
    position = model.get_image_wide_positional_embeddings()
    out, features = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=(embeddings + dense).repeat_interleave(masks, 0),
        image_positional_embeddings=position.expand(images * masks, -1, -1, -1),
        attention_similarity=None,
    )
    side = embeddings.shape[-1]
    features = features.transpose(2, 3).reshape(images * masks, -1, side, side)
    features = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(features)))
    features = decoder.activation(decoder.upscale_conv2(features))
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(out[:, :, 1 + i]) for i, head in enumerate(heads)], dim=2)
    features = features.unflatten(0, (images, masks))
    logits = (weights @ features.flatten(3)).unflatten(3, features.shape[3:])
    return logits, decoder.iou_prediction_head(out[:, :, 0])


def export(model: SamModel, folder: Path) -> None:
    """Write transformers' layout: config.json, and model.safetensors in fp16, loaded as fp32.

    The Fourier matrix is in the file once; `from_pretrained` ties its second use to it.
    """
    state = {
        key: value.detach().half().contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith(FOURIER)
    }
    model.config.dtype = torch.float32
    model.config.architectures = ["SamModel"]
    write_text(folder / "config.json", model.config.to_json_string())
    with atomic_write(folder / "model.safetensors") as file:
        file.write(save(state, metadata={"format": "pt"}))


def load(folder: Path) -> SamModel:
    """The network of a folder that `export` wrote, in fp32, ready to be asked."""
    return SamModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    ).eval()
