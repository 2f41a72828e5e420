"""How sure a method is of its labels, at some pixels of each image: the probability that its logits
give what it predicts, and the largest logit of an object."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptrase.evaluate.encoded import Text
from cliptrase.runs.ledger import sampled
from cliptrase.segment.vote import upsampling


class Certainties(NamedTuple):
    """`Certainty` in NumPy's memory."""

    confidence: NDArray[np.float32]
    best: NDArray[np.float32] | None


class Certainty(NamedTuple):
    """Of B images at the n pixels of `sampled`, row by row.

    confidence: (B, n) the probability of the predicted class, by the softmax of the logits of all
    names. best: (B, n) the largest logit of an object; None where no class is the background.
    """

    confidence: Tensor
    best: Tensor | None

    @classmethod
    def of(cls, logits: Tensor, classes: Tensor, names: Text, scale: float = 1.0) -> "Certainty":
        """Of `logits` (B, M, n) of the names at these pixels, before they are multiplied by
        `scale`, and the predicted `classes` (B, H, W)."""
        logits = logits.float()
        chosen = _at_places(classes).unsqueeze(1)
        probability = (logits if scale == 1 else scale * logits).softmax(dim=1)
        confidence = probability.mul_(names.owner[:, None] == chosen).sum(dim=1)
        if names.background is None:
            return cls(confidence, None)
        return cls(confidence, logits.index_select(1, names.objects).amax(dim=1))

    def on_its_way(self) -> "Certainty":
        """The same in the memory of the CPU, once the device is done."""
        best = None if self.best is None else self.best.to("cpu", non_blocking=True)
        return Certainty(self.confidence.to("cpu", non_blocking=True), best)

    def numpy(self) -> Certainties:
        """The same in NumPy's memory."""
        best = None if self.best is None else self.best.cpu().numpy()
        return Certainties(self.confidence.cpu().numpy(), best)


def at_places(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, M, n) at the pixels of `sampled`, of logits (B, M, h, w) that are upsampled to
    `size` (H, W) bilinearly."""
    sides = zip(logits.shape[-2:], size, strict=True)
    rows, columns = (_weights(logits.device, logits.dtype, *side) for side in sides)
    return (rows @ logits @ columns.T).flatten(2)


@lru_cache(maxsize=64)
def _weights(device: torch.device, dtype: torch.dtype, small: int, large: int) -> Tensor:
    """The matrix that upsamples a side, for the rows, or columns, of `sampled` alone."""
    return upsampling(device, small, large)[sampled(large)].to(dtype)


class Watched:
    """Logits that pass a few names at a time, (1, k, H, W), kept at the pixels of `sampled`."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def watching(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same logits, as they pass."""
        for chunk in chunks:
            self._parts.append(_at_places(chunk))
            yield chunk

    def logits(self) -> Tensor:
        """(1, M, n) of all that have passed."""
        return torch.cat(self._parts, dim=1)


def _at_places(maps: Tensor) -> Tensor:
    """Maps (…, H, W) at the pixels of `sampled`, (…, n)."""
    rows, columns = (sampled(side) for side in maps.shape[-2:])
    return maps[..., rows, columns].flatten(-2)
