"""Pixels by image and class, of which only the classes that an image has are held in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK = 256  # images that are spelled out with all their classes at a time
PARTS = ("tp", "gt", "pred")


class Table(Protocol):
    """(n, K) int32, an array or `Rows`: images are taken out of it by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, images: slice, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """One column of what `Tally` keeps, as the rows (n, K) int32 that it stands for.

    `entries` (m, 4) int32: class, tp, gt, pred; those of image i end before `ends[i]`.
    """

    entries: NDArray[np.int32]
    ends: NDArray[np.int64]  # (n,)
    part: str  # of PARTS
    classes: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n, K)."""
        return len(self.ends), self.classes

    def __getitem__(self, images: slice) -> NDArray[np.int32]:
        """Neighbouring images, one after another."""
        first, last, _ = images.indices(len(self.ends))
        rows = np.zeros((max(last - first, 0), self.classes), np.int32)
        if len(rows):
            begin = self.ends[first - 1] if first else 0
            ends = self.ends[first:last]
            some = self.entries[begin : ends[-1]]
            image = np.repeat(np.arange(len(rows)), np.diff(ends, prepend=begin))
            rows[image, some[:, 0]] = some[:, 1 + PARTS.index(self.part)]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.int32, copy=False)


@dataclass(frozen=True)
class ImageCounts:
    """Pixels by image and class: hit, in the ground truth, predicted; zeros for a skipped image."""

    ids: NDArray[np.str_]  # (n,)
    skipped: NDArray[np.bool_]  # (n,)
    tp: Table  # (n, K)
    gt: Table  # (n, K)
    pred: Table  # (n, K)

    def save(self, path: Path) -> None:
        """Write what numpy.savez_compressed would, a few images at a time."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("ids", "skipped", *PARTS):
                table = getattr(self, name)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    kind = np.lib.format.dtype_to_descr(table[:0].dtype)
                    head = {"descr": kind, "fortran_order": False, "shape": table.shape}
                    np.lib.format.write_array_header_1_0(file, head)
                    for images in blocks(len(self.ids)):
                        file.write(np.ascontiguousarray(table[images]).tobytes())


def blocks(images: int) -> Iterator[slice]:
    """All images, BLOCK at a time."""
    return (slice(start, start + BLOCK) for start in range(0, images, BLOCK))
