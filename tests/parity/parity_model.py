"""The parity model: a CLIP of the shape of OpenAI's ViT-B/16, only narrower, with fixed weights.

The released code ran on this model. Its weights mean nothing; they are fixed so that two programs
can be compared number by number. Depth (12 blocks), patch size (16), head width (64), QuickGELU and
the causal mask of the text tower are those of OpenAI's ViT-B/16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WIDTH, HEADS, LAYERS, PATCH, SIZE = 192, 3, 12, 16, 224
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS, VOCAB, CONTEXT = 64, 1, 2, 49408, 77
EMBED = 64


def tensors(seed: int = 7) -> dict[str, np.ndarray]:
    """The weights by their open_clip names."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def normal(*shape, std=1.0, mean=0.0):
        return (mean + std * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)

    out = {}

    def blocks(prefix, width, layers, bias=0.01):
        proj = width**-0.5 * (2 * layers) ** -0.5
        for i in range(layers):
            p = f"{prefix}.resblocks.{i}."
            # strong queries, weak mixing: patches keep their content, so clusters differ
            out[p + "attn.in_proj_weight"] = normal(3 * width, width, std=1.5 * width**-0.5)
            out[p + "attn.in_proj_bias"] = normal(3 * width, std=bias)
            out[p + "attn.out_proj.weight"] = normal(width, width, std=0.4 * width**-0.5)
            out[p + "attn.out_proj.bias"] = normal(width, std=bias)
            out[p + "mlp.c_fc.weight"] = normal(4 * width, width, std=(2 * width) ** -0.5)
            out[p + "mlp.c_fc.bias"] = normal(4 * width, std=bias)
            out[p + "mlp.c_proj.weight"] = normal(width, 4 * width, std=proj)
            out[p + "mlp.c_proj.bias"] = normal(width, std=bias)
            for ln in ("ln_1", "ln_2"):
                out[p + ln + ".weight"] = normal(width, std=0.3, mean=1.0)
                out[p + ln + ".bias"] = normal(width, std=bias)

    out["visual.class_embedding"] = normal(WIDTH, std=WIDTH**-0.5)
    out["visual.positional_embedding"] = normal(
        (SIZE // PATCH) ** 2 + 1, WIDTH, std=0.5 * WIDTH**-0.5
    )
    out["visual.proj"] = normal(WIDTH, EMBED, std=WIDTH**-0.5)
    out["visual.conv1.weight"] = normal(WIDTH, 3, PATCH, PATCH, std=0.06)
    for ln in ("visual.ln_pre", "visual.ln_post"):
        out[ln + ".weight"] = normal(WIDTH, std=0.3, mean=1.0)
        out[ln + ".bias"] = normal(WIDTH, std=0.01)
    blocks("visual.transformer", WIDTH, LAYERS)
    out["positional_embedding"] = normal(CONTEXT, TEXT_WIDTH, std=0.01)
    out["text_projection"] = normal(TEXT_WIDTH, EMBED, std=TEXT_WIDTH**-0.5)
    out["logit_scale"] = np.asarray(np.log(100.0), dtype=np.float32)
    out["token_embedding.weight"] = normal(VOCAB, TEXT_WIDTH, std=0.5)
    out["ln_final.weight"] = normal(TEXT_WIDTH, std=0.3, mean=1.0)
    out["ln_final.bias"] = normal(TEXT_WIDTH, std=0.05)
    blocks("transformer", TEXT_WIDTH, TEXT_LAYERS)
    return out


def config() -> dict[str, Any]:
    """The content of open_clip_config.json."""
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": SIZE,
                "layers": LAYERS,
                "width": WIDTH,
                "head_width": WIDTH // HEADS,
                "patch_size": PATCH,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": VOCAB,
                "width": TEXT_WIDTH,
                "heads": TEXT_HEADS,
                "layers": TEXT_LAYERS,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def write(folder: Path) -> None:
    """The folder that `open_clip.create_model("local-dir:…")` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config(), indent=2))
    save_file(tensors(), str(folder / "open_clip_model.safetensors"))
