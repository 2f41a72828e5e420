"""A small file in the true format of OpenAI's CLIP: a TorchScript archive with half-precision
weights and three numbers beside them."""

import warnings
from pathlib import Path

import torch
from open_clip.model import CLIP, convert_weights_to_lp, trace_model

ARCHITECTURE = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3},
}


def small_clip() -> CLIP:
    """A random CLIP whose every weight is one that half precision has."""
    torch.manual_seed(5)
    model = CLIP(**ARCHITECTURE).eval().requires_grad_(False)
    convert_weights_to_lp(model, torch.float16)
    return model.float()


def write_openai_file(path: Path, model: CLIP) -> None:
    """As OpenAI wrote theirs: traced by `torch.jit`, then in half precision."""
    model.visual.image_size = 64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = trace_model(model, batch_size=2)
    for name, number in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
        traced._c._register_attribute(name, torch._C.TensorType.get(), torch.tensor(number))
    for name, parameter in traced.named_parameters():
        if parameter.ndim > 1 and "embedding" not in name:
            parameter.data = parameter.data.half()
    torch.jit.save(traced, path)
