"""Numbers on their way to the device of a model."""

from typing import Any

import torch
from torch import Tensor


def uploaded(values: Any, device: torch.device) -> Tensor:
    """A copy on `device` of an array or of numbers, without waiting for what a GPU is doing."""
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values, pin_memory=True).to(device, non_blocking=True)
