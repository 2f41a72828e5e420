"""PASCAL Context val: VOC 2010's photographs, MATLAB label maps of 1..459, and a list of ids."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from cliptrase.data.fetch.sources import DatasetSource
from cliptrase.data.make.archives import common
from cliptrase.data.make.archives.common import Pair
from cliptrase.data.make.containers import Container
from cliptrase.data.make.expected import known_ids
from cliptrase.data.make.records import Record, png
from cliptrase.data.read.ordered import in_order
from cliptrase.data.read.prepared import prepared_folder
from cliptrase.errors import UserError

KEY = "LabelMap"
_IMAGES = r"(?:[^/]+/)?VOCdevkit/VOC2010/JPEGImages/([^/]+)\.jpg"
_LABELS = r"(?:.+/)?(\d{4}_\d{6})\.mat"


def records(source: DatasetSource, data: Path) -> Iterator[Record]:
    """The images of the list of ids, their label maps as 16-bit PNG.

    The label maps lie in a tar.gz in an order of their own: they are converted on one way through
    it, into a temporary file, and fetched from there in the order of the ids.
    """
    folder = prepared_folder(source.name, data).parent  # as large a disk as its result needs
    folder.mkdir(parents=True, exist_ok=True)
    with (
        common.opened(source, data) as (images, labels),
        tempfile.TemporaryFile(dir=folder) as spool,
    ):
        shown = common.members(images, _IMAGES, "photographs VOCdevkit/VOC2010/JPEGImages/*.jpg")
        masks = common.members(labels, _LABELS, "label maps trainval/*.mat")
        wanted = known_ids(source, data)
        ids = common.chosen(source, data, shown, masks, wanted or set(shown) & set(masks))
        members = {masks[one]: one for one in ids}
        places = {}
        for name, content in in_order(
            lambda member: (member[0], _png(labels, *member)), labels.iterate(members)
        ):
            places[members[name]] = (spool.tell(), spool.write(content))
        for one in ids:
            spool.seek(places[one][0])
            image, label = images.read(shown[one]), spool.read(places[one][1])
            names = f"{images.path}: {shown[one]}", f"{labels.path}: {masks[one]}"
            common.check_pair(Pair(one, image, label, *names))
            yield Record(one, image, label)


def label_map(content: bytes, name: str) -> np.ndarray:
    """(H, W) uint16 of a MATLAB file's LabelMap. Raises UserError naming the file.

    MATLAB files can hold code for MATLAB, but nothing that scipy would run.
    """
    try:
        found = {key: shape for key, shape, _ in scipy.io.whosmat(io.BytesIO(content))}
        shape = found.get(KEY)
        if shape is None or len(shape) != 2 or not 0 < shape[0] * shape[1] <= common.PIXELS:
            raise ValueError(f"{KEY} is {shape or 'absent'}")
        raw = scipy.io.loadmat(io.BytesIO(content), variable_names=[KEY])[KEY]
        label = np.asarray(raw).astype(np.uint16)
        if raw.dtype.kind not in "uif" or not np.array_equal(label, raw):
            raise ValueError(f"{KEY} holds other things than whole numbers of 0..65535")
    except (
        *(ValueError, TypeError, KeyError, IndexError, NotImplementedError, OSError, EOFError),
        *(zlib.error, struct.error, OverflowError, MemoryError, scipy.io.matlab.MatReadError),
    ) as error:
        raise UserError(f"{name}: no label map that can be read ({error})") from error
    return label


def _png(container: Container, member: str, content: bytes) -> bytes:
    return png(label_map(content, f"{container.path}: {member}"))
