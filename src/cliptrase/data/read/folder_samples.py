"""The samples of a user's folders; wrong sizes, colours and swapped folders are found at once."""

from pathlib import Path

import numpy as np

from cliptrase.data.read.folder import SWAPPED, Pair, pairs
from cliptrase.data.read.images import check_mask, read_header, read_image, read_label
from cliptrase.data.read.labels import Lookup, apply
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.errors import UserError


class FolderSamples(Samples):
    """The samples of a folder; with a `lookup`, a mask with a value that is no class is refused.

    Headers are all read now, pixels when a sample is asked for. Raises UserError naming the file:
    all of `pairs`, a mask of another size than its picture, a mask with colours, folders swapped.
    """

    def __init__(
        self, images: Path | str, labels: Path | str, lookup: Lookup | None = None
    ) -> None:
        self._pairs, self._lookup = pairs(images, labels), lookup
        self.ids = [pair.id for pair in self._pairs]
        _refuse_swapped(self._pairs[0])
        for pair in self._pairs:
            image, mask = read_header(pair.image), read_header(pair.mask)
            check_mask(mask, str(pair.mask))
            _check_sizes(pair, image.size, mask.size)

    def load(self, index: int) -> Sample:
        pair = self._pairs[index]
        image, label = read_image(pair.image), read_label(pair.mask)
        _check_sizes(pair, image.size, (label.shape[1], label.shape[0]))
        if self._lookup is not None:
            try:
                apply(self._lookup, label, str(pair.mask))
            except UserError as error:
                if _looks_like_a_photograph(label):
                    raise UserError(f"{error} (it looks like a photograph: {SWAPPED})") from None
                raise
        return Sample(pair.id, image, label)


def _check_sizes(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> None:
    if image != mask:
        raise UserError(
            f"{pair.mask}: {mask[0]} × {mask[1]} pixels, but {pair.image.name} has "
            f"{image[0]} × {image[1]} as shown (EXIF rotation applied); make them equal"
        )


def _refuse_swapped(pair: Pair) -> None:
    """Raise UserError where a picture is a label map and its mask a photograph."""
    image, mask = read_header(pair.image), read_header(pair.mask)
    swapped = image.single and not mask.single
    if image.single and mask.single:
        grey, values = (
            np.asarray(read_image(path).convert("L")) for path in (pair.image, pair.mask)
        )
        swapped = _equal_neighbours(grey) > 0.9 and _looks_like_a_photograph(values)
    if swapped:
        raise UserError(
            f"{pair.mask} looks like a photograph and {pair.image} like a label map: {SWAPPED}"
        )


# Photographs here: less than half of the neighbours equal, 150 values and more. Masks: 0.95, 25.
def _looks_like_a_photograph(values: np.ndarray) -> bool:
    return _equal_neighbours(values) < 0.8 and len(np.unique(values)) > 50


def _equal_neighbours(values: np.ndarray) -> float:
    """The share of horizontal neighbours that are equal."""
    return float((values[:, 1:] == values[:, :-1]).mean()) if values.shape[1] > 1 else 1.0
