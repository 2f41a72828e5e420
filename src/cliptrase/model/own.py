"""Kinds of attention that are a function of their own, where no choice of terms says it.

A function takes the unmodified model on a batch of images, the blocks to replace (0-based, in a
row) and all of `method.attention`; it returns the tokens (B, L, D) that go to the joint space. A
new kind is a line here and its name in checks.py: docs/add_method.md.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cliptrase.model import two_paths
from cliptrase.model.vision import Attention, Original

OWN: dict[str, Callable[[Original, range, Attention], Tensor]] = {
    "clip_surgery": two_paths.clip_surgery,
    "gem": two_paths.gem,
}
