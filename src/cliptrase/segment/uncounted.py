"""Functions that are operations of their own to torch: evaluate/jobs.py counts the products in them
as little as any other resizing."""

from collections.abc import Callable

import torch
from torch import Tensor

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def uncounted(function: Operation) -> Operation:
    """`function`, of three tensors, as torch.ops.cliptrase.<its name>, which no other may have;
    without gradients.

    `torch.library.custom_op` would do, but imports torch's compiler, which doubles a start.
    """
    name = f"cliptrase::{function.__name__}"
    torch.library.define(name, "(Tensor one, Tensor two, Tensor three) -> Tensor")
    torch.library.impl(name, ("cpu", "cuda"), function)
    operation: Operation = getattr(torch.ops.cliptrase, function.__name__)
    return operation
