"""Windows that slide over a picture: where they lie, and the picture's logits out of theirs.

All names at all pixels of a large picture would not fit into memory: a few names exist at a time.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cliptrase.segment import ways
from cliptrase.segment.logits import CHUNK
from cliptrase.segment.tiles import Size, bilinear
from cliptrase.segment.vote import region_means

AT_ONCE = 2**25  # logits of a picture that a GPU averages at once: bounds memory


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows begin along one side; the last is moved back to end at the border."""
    count = max(length - window + stride - 1, 0) // stride + 1
    ends = [min(index * stride + window, length) for index in range(count)]
    return [max(end - window, 0) for end in ends]


def places(size: Size, window: int, stride: int) -> list[Size]:
    """(top, left) of every window, row by row."""
    tops, lefts = (starts(length, window, stride) for length in size)
    return [(top, left) for top in tops for left in lefts]


def padded(pixels: Tensor, window: int, patch: int) -> Tensor:
    """Normalised pixels (…, H, W) with zeros below and to the right of a side that is shorter than
    the window, up to a multiple of `patch`; a longer side stays as it is."""
    down, right = (-side % patch if side < window else 0 for side in pixels.shape[-2:])
    return F.pad(pixels, (0, right, 0, down))


@dataclass(frozen=True, eq=False)
class Window:
    """What one window of a picture says, its classes not yet decided."""

    place: Size  # (top, left) in the picture
    size: Size
    logits: Tensor  # (M, h, w) of every name on the patch grid
    regions: Tensor | None  # (size), −1 where there is none; where the method votes softly
    means: Tensor | None  # (R, M) logits of each region

    @classmethod
    def each(
        cls, places: Sequence[Size], size: Size, logits: Tensor, regions: Tensor | None
    ) -> list[Self]:
        """The windows of a batch, of their logits (B, M, h, w) and regions (B, *size)."""
        if regions is None or int(regions.max()) < 0:
            plain = zip(places, logits, strict=True)
            return [cls(place, size, window, None, None) for place, window in plain]
        parts = zip(places, logits, regions, region_means(logits, regions), strict=True)
        return [cls(place, size, *window) for place, *window in parts]

    def maps(self, names: slice) -> Tensor:
        """Logits (k, height, width) of some names at every pixel; where there are regions, each
        region's mean in the place of its pixels."""
        pixels = bilinear(self.logits[None, names], self.size)[0]
        if self.regions is None or self.means is None:
            return pixels
        means = self.means[:, names].T[:, self.regions.clamp_min(0)]
        return torch.where(self.regions >= 0, means, pixels)


def covered(windows: Sequence[Window]) -> Size:
    """(H, W) of the picture that some windows cover."""
    ends = [(each.place[0] + each.size[0], each.place[1] + each.size[1]) for each in windows]
    return max(down for down, _ in ends), max(across for _, across in ends)


def averaged(
    windows: Sequence[Window],
    size: Size,
    seen: Size,
    out_size: Size,
    refine: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Logits (1, k, H, W) of a few names after the others: the mean of the windows at every pixel
    of a picture of `size`, of which the part `seen` is resized to `out_size` (H, W). refine: what
    changes that part (k, *seen) before."""
    names, device = len(windows[0].logits), windows[0].logits.device
    counts = torch.zeros(size, device=device)
    for window in windows:
        _at(counts, window).add_(1)
    step = CHUNK if ways.one_by_one(device) else max(CHUNK, AT_ONCE // math.prod(size))
    for start in range(0, names, step):
        some = slice(start, min(start + step, names))
        total = torch.zeros((some.stop - some.start, *size), device=device)
        for window in windows:
            _at(total, window).add_(window.maps(some))
        mean = total.div_(counts)[:, : seen[0], : seen[1]]
        yield bilinear((refine(mean) if refine else mean)[None], out_size)


class LargestProbability:
    """Of the most likely name at each pixel: softmax over names that come a few at a time."""

    def __init__(self, scales: Iterable[float]) -> None:
        """`scales`: what the logits are multiplied by, one softmax each."""
        self._best: Tensor | None = None  # (B, H, W), of the unscaled logits
        # by scale: Σ exp(scale · (logit − best)), (B, H, W)
        self._sums: dict[float, Tensor] = dict.fromkeys(scales, torch.zeros(()))

    def watching(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same logits (B, k, H, W), taken into account as they pass."""
        for chunk in chunks:
            if self._sums:
                self._add(chunk)
            yield chunk

    def __call__(self, scale: float) -> Tensor:
        """(B, H, W) in 0..1, of all names that have passed."""
        return 1 / self._sums[scale]

    def _add(self, chunk: Tensor) -> None:
        before, best = self._best, chunk.amax(dim=1)
        if before is not None:
            best = torch.maximum(best, before)
        for scale, earlier in self._sums.items():
            total = torch.exp((chunk - best.unsqueeze(1)).mul_(scale)).sum(dim=1)
            if before is not None:
                total += earlier * torch.exp((before - best).mul_(scale))
            self._sums[scale] = total
        self._best = best


def _at(picture: Tensor, window: Window) -> Tensor:
    """The part of a picture (…, H, W) that a window sees."""
    (top, left), (height, width) = window.place, window.size
    return picture[..., top : top + height, left : left + width]
