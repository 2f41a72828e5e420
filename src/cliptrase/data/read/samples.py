"""What every data set gives: a sequence of pictures with their raw label maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its ground truth.

    id: unique in its data set. image: RGB. label: (H, W) int32, raw values, the picture's size.
    """

    id: str
    image: Image.Image
    label: np.ndarray


class Samples(Sequence[Sample]):
    """Samples in the order of their ids, each decoded when it is asked for.

    Several threads may read at once; nothing is kept, so memory does not grow.
    """

    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Part(self, range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.load(index % len(self))

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Decode sample `index`, 0..len-1. Raises UserError naming the file."""


class Part(Samples):
    """Some samples of another data set, as `limit=10` asks for."""

    def __init__(self, whole: Samples, indices: range) -> None:
        self._whole, self._indices = whole, indices
        self.ids = [whole.ids[index] for index in indices]

    def load(self, index: int) -> Sample:
        return self._whole.load(self._indices[index])
