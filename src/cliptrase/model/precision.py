"""Matrix products of the image tower in bf16 or fp16, where `model.precision` asks for it.

Only the linear layers of its blocks are: their weights are rounded once, what they multiply is
rounded before each product, which is added up in fp32, and its result rounded. All else is fp32:
the patch embedding, layer norms, the residual stream, attention itself, the projection, and all
that is made of the features. In fp32 nothing of this file rounds anything.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def lower(visual: Any, precision: str) -> None:
    """Round the weights of the linear layers of the image tower, in place; nothing in fp32."""
    for block in visual.transformer.resblocks:
        attn, mlp = block.attn, block.mlp
        for layer in (attn.out_proj, mlp.c_fc, mlp.c_proj):
            layer.to(DTYPES[precision])
        for parameter in (attn.in_proj_weight, attn.in_proj_bias):
            parameter.data = parameter.data.to(DTYPES[precision])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias in fp32, multiplied in the precision of the weights.

    A CPU has no products of fp16: there the rounded numbers are multiplied in fp32, which holds
    each of their products to the last bit, as a GPU's sums do.
    """
    dtype = weight.dtype
    if dtype == x.dtype:
        return F.linear(x, weight, bias)
    if dtype == torch.float16 and x.device.type == "cpu":
        wide = None if bias is None else bias.to(x.dtype)
        return F.linear(x.to(dtype).to(x.dtype), weight.to(x.dtype), wide).to(dtype).to(x.dtype)
    return F.linear(x.to(dtype), weight, bias).to(x.dtype)
