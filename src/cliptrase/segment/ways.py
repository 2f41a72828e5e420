"""The two ways to compute what follows the encoder: one map after the other, or a batch at once.

Whatever has two asks here, so that a test can take the way of a GPU on a CPU.
"""

import torch


def one_by_one(device: torch.device) -> bool:
    """Whether one map of one image follows the other: on a CPU, whose cache they fit into, and
    where no bit may depend on the company. A GPU would be idle most of the time."""
    return device.type == "cpu"
