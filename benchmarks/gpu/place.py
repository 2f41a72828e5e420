"""Where the parts of `make gpu` are measured, how much, and what a part says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.environments import METHODS
from benchmarks.pixels import Pixel
from benchmarks.scenery import SIZES


@dataclass(frozen=True)
class Scale:
    """How much is measured. seconds: that a part may take; one is left out where less are left."""

    images: int
    batch: int
    rounds: int
    matrix: int  # rows of the products that say what the GPU can do
    sizes: tuple[int, ...]
    methods: tuple[str, ...]
    tiny: bool
    seconds: float = 60.0


FULL = Scale(64, 64, 5, 8192, SIZES, METHODS, tiny=False)
QUICK = Scale(2, 2, 1, 256, (224,), ("clip", "cliptrase"), tiny=True)


@dataclass(frozen=True)
class Place:
    """Where it is measured. data: a data folder with the embedded scenes."""

    device: torch.device
    scale: Scale
    data: Path

    @property
    def name(self) -> str:
        return str(self.device)


@dataclass
class Part:
    """What a part has measured, as lines of a table; faults: what is not as it must be."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)  # what, measured, goal
    faults: list[str] = field(default_factory=list)
    pixels: list[Pixel] = field(default_factory=list)

    def must(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)
