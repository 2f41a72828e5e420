"""What a run costs on one image by itself, in floating-point operations as torch counts them.

torch counts matrix products, convolutions and attention, not elementwise work, sorting or resizing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cliptrase.config.schema import Method

UNCOUNTED = {"eps", "min_samples"}  # decide labels, not the shape of any product


def counted(compute: Callable[[], Any]) -> int:
    """Floating-point operations of `compute()`; a multiplication and an addition are two.

    Attention runs as plain products: the counter does not know the CPU's fused kernel.
    """
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        compute()
    return int(counter.get_total_flops())


def method_key(method: Method) -> str:
    """The same for methods that cost the same: the cells of a grid over eps and min_samples."""
    return repr(method.model_dump(exclude={"regions": UNCOUNTED}))
