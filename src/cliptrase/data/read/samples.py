"""What every data set gives: a sequence of pictures with their raw label maps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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


class Samples(ABC):
    """Samples in the order of their ids, each decoded when it is asked for.

    Several threads may read at once; nothing is kept, so memory does not grow. Where `ids` are cut
    off, as by `limit=10`, so are the samples.
    """

    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.load(index % len(self))

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Decode sample `index`, 0..len-1. Raises UserError naming the file."""
