"""The samples of a user's folders; wrong sizes, colours and swapped folders are found at once."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cliptrase.config.schema import Folder
from cliptrase.data.read.colours import read_colours
from cliptrase.data.read.folder import SWAPPED, Pair, contents, digest_of, pairs
from cliptrase.data.read.images import (
    Header,
    check_mask,
    decoding,
    read_coloured_label,
    read_header,
    read_image,
    read_label,
)
from cliptrase.data.read.labels import Lookup, apply
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.errors import UserError
from cliptrase.files import known_sha256

log = logging.getLogger(__name__)

CHANGED = "changed since the run began; start it again when nothing writes to its folder"


class FolderSamples(Samples):
    """The samples of a folder; with a `lookup`, a mask with a value that is no class is refused.

    Headers are all read now, pixels when a sample is asked for. classes: the names of each class,
    for a table of colours. Raises UserError naming the file: all of `pairs`, a mask of another size
    than its picture, a mask with colours and no table of them, folders swapped, a file that is not
    the one of `folder.digest`.
    """

    def __init__(
        self, folder: Folder, lookup: Lookup | None = None, classes: Sequence[Sequence[str]] = ()
    ) -> None:
        self._pairs, self._lookup = pairs(*folder.names), lookup
        self._stored, self._colours = folder.orientation == "stored", None
        if folder.colours_path is not None:
            ignore = 65535 if lookup is None else lookup.ignore
            self._colours = read_colours(folder.colours_path, classes, ignore)
        self.ids = [pair.id for pair in self._pairs]
        self._sha256 = contents(self._pairs)
        names = folder.images_path, folder.labels_path
        if digest_of(self._sha256, self._pairs, *names) != folder.digest:
            raise UserError(f"{folder.images_path} or {folder.labels_path}: {CHANGED}")
        if folder.colours_path and known_sha256(Path(folder.colours_path)) != folder.colours:
            raise UserError(f"{folder.colours_path}: {CHANGED}")
        if self._colours is None:
            _refuse_swapped(self._pairs[0])
        either = list[Path]()  # the files that their EXIF data turn
        for pair in self._pairs:
            image, mask = (
                read_header(path, as_stored=self._stored) for path in (pair.image, pair.mask)
            )
            self._check_mask(mask, str(pair.mask))
            self._check_sizes(pair, image, mask.size)
            if image.orientation != mask.orientation and _turned(image) == _turned(mask):
                either.append(pair.image if image.orientation > 1 else pair.mask)
        if either and not self._stored:
            more = f" (as do {len(either) - 1} more)" if len(either) > 1 else ""
            log.warning(
                "%s: its EXIF data turn it%s, and picture and mask fit each other turned or not; "
                "it is turned. If masks were drawn on the pixels as stored, give "
                "benchmark.orientation=stored",
                *(either[0], more),
            )

    def load(self, index: int) -> Sample:
        pair = self._pairs[index]
        name, stored = str(pair.mask), self._stored
        image = read_image(self._read(pair.image), str(pair.image), as_stored=stored)
        if self._colours is None:
            label = read_label(self._read(pair.mask), name, as_stored=stored)
        else:
            rgb = read_coloured_label(self._read(pair.mask), name, as_stored=stored)
            label = self._colours.labels_of(rgb, name)
        self._check_sizes(pair, Header("", "", image.size), (label.shape[1], label.shape[0]))
        if self._lookup is not None:
            try:
                apply(self._lookup, label, name)
            except UserError as error:
                if _looks_like_a_photograph(label):
                    raise UserError(f"{error} (it looks like a photograph: {SWAPPED})") from None
                raise
        return Sample(pair.id, image, label)

    def _check_mask(self, mask: Header, name: str) -> None:
        try:
            check_mask(mask, name, coloured=self._colours is not None)
        except UserError as error:
            if mask.mode not in ("RGB", "RGBA"):
                raise
            raise UserError(f"{error}, or say what its colours mean: benchmark.colours") from None

    def _read(self, path: Path) -> bytes:
        """The bytes that the folder's digest is of."""
        with decoding(str(path)):
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self._sha256[path]:
            raise UserError(f"{path}: {CHANGED}")
        return content

    def _check_sizes(self, pair: Pair, image: Header, mask: tuple[int, int]) -> None:
        if image.size == mask:
            return
        shown = "as stored" if self._stored else "as shown (EXIF rotation applied)"
        cure = "make them equal"
        if image.orientation > 1 and _turned(image) == mask:
            cure = f"give benchmark.orientation={'exif' if self._stored else 'stored'}"
        raise UserError(
            f"{pair.mask}: {mask[0]} × {mask[1]} pixels, but {pair.image.name} has "
            f"{image.size[0]} × {image.size[1]} {shown}; {cure}"
        )


def _turned(image: Header) -> tuple[int, int]:
    """The other size that a picture has: as stored, or as shown."""
    return image.size[::-1] if image.orientation >= 5 else image.size


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
