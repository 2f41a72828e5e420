"""PASCAL Context val: VOC 2010's photographs, MATLAB label maps of 1..459, and a list of ids."""

import io

import numpy as np
import scipy.io

from cliptrase.data.make.archives import common
from cliptrase.data.make.archives.common import Pair
from cliptrase.data.make.records import Record, png
from cliptrase.data.read.images import DAMAGE
from cliptrase.errors import UserError

KEY = "LabelMap"


def converted(pair: Pair) -> Record:
    """An image as shipped, and its label map as PNG."""
    label = png(label_map(pair.label, pair.label_name))
    common.check_pair(pair._replace(label=label))
    return Record(pair.id, pair.image, label)


def label_map(content: bytes, name: str) -> np.ndarray:
    """(H, W) uint16 of a MATLAB file's LabelMap. Raises UserError naming the file.

    MATLAB files can hold code for MATLAB, but nothing that scipy would run.
    """
    try:
        shapes = {key: shape for key, shape, _ in scipy.io.whosmat(io.BytesIO(content))}
        shape = shapes.get(KEY)
        if shape is None or len(shape) != 2 or not 0 < shape[0] * shape[1] <= common.PIXELS:
            raise ValueError(f"{KEY} is {shape or 'absent'}")
        raw = scipy.io.loadmat(io.BytesIO(content), variable_names=[KEY])[KEY]
        label = np.asarray(raw).astype(np.uint16)
        if raw.dtype.kind not in "uif" or not np.array_equal(label, raw):
            raise ValueError(f"{KEY} holds other things than whole numbers of 0..65535")
    except (*DAMAGE, MemoryError, scipy.io.matlab.MatReadError) as error:
        raise UserError(f"{name}: no label map that can be read ({error})") from error
    return label


records = common.reader(
    (
        r"(?:[^/]+/)?(?:VOCdevkit/)?VOC2010/JPEGImages/([^/]+)\.jpg",
        "photographs VOCdevkit/VOC2010/JPEGImages/*.jpg",
    ),
    (r"(?:.+/)?(\d{4}_\d{6})\.mat", "label maps trainval/*.mat"),
    convert=converted,
    only_listed=True,
)
