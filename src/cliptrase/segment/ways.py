"""The two ways to compute what follows the encoder: one image after the other, or a batch at once.

Both select and add up the same values. Whatever chooses between them asks `one_by_one`, so that a
test can take the way of a GPU on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def one_by_one(device: torch.device) -> bool:
    """Whether one map of one image follows the other: on a CPU, whose cache they fit into, and
    where no bit may depend on the company. A GPU would be idle most of the time."""
    return device.type == "cpu"


def uploaded(values: NDArray[Any], device: torch.device) -> Tensor:
    """`values` on the device, without waiting for what a GPU is doing."""
    host = torch.from_numpy(values)
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)
