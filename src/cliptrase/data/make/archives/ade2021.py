"""ADE20K full, validation: class (R // 10) · 256 + G of the RGB masks, short side at most 512.

The images are those of the released preparation (MaskFormer's): resized where both sides are longer
than 512, and written as JPEG of quality 75 in any case.
"""

import contextlib
import io
import math
import threading

import numpy as np
from PIL import Image

from cliptrase.data.make.archives import common
from cliptrase.data.make.archives.common import Pair
from cliptrase.data.make.records import Record, png
from cliptrase.data.read.images import decoding, read_header, read_image
from cliptrase.data.read.opencv import linear, nearest
from cliptrase.errors import UserError

SHORT, QUALITY = 512, 75
LARGE = 4_000_000  # pixels: of pictures beyond, one at a time is in memory
_ONE = threading.Lock()
_ROOT = r"(?:[^/]+/)?images/ADE/validation/(?:.+/)?"


def converted(pair: Pair) -> Record:
    """An image and its raw labels as the released preparation stores them."""
    header = read_header(pair.image, pair.image_name, as_stored=True)
    common.check_photograph(header, pair.image_name)
    with _ONE if math.prod(header.size) > LARGE else contextlib.nullcontext():
        with decoding(pair.image_name), Image.open(io.BytesIO(pair.image)) as opened:
            image = np.asarray(opened if opened.mode == "L" else opened.convert("RGB"))
        raw = classes(pair.label, pair.label_name)
        common.check_sizes(pair, image.shape[1::-1], raw.shape[::-1])
        height, width = stored_size(*raw.shape)
        if (height, width) != raw.shape:
            image = linear(image, height, width)
            raw = nearest(raw, height, width)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
        return Record(pair.id, file.getvalue(), png(raw))


def classes(mask: bytes, name: str) -> np.ndarray:
    """(H, W) uint16 raw class index of an RGB mask's bytes. Raises UserError naming it."""
    header = read_header(mask, name, as_stored=True)
    if (header.format, header.mode) != ("PNG", "RGB"):
        raise UserError(
            f"{name}: a {header.format} of mode {header.mode}, where masks are RGB PNGs"
        )
    colours = np.asarray(read_image(mask, name, as_stored=True))
    return colours[..., 0].astype(np.uint16) // 10 * 256 + colours[..., 1]


def stored_size(height: int, width: int) -> tuple[int, int]:
    """Height and width as stored: short side 512 where it was longer, the other one rounded."""
    if min(height, width) <= SHORT:
        return height, width
    if width >= height:
        return SHORT, round(width / height * SHORT)
    return round(height / width * SHORT), SHORT


records = common.reader(
    (rf"{_ROOT}(ADE_val_\d+)\.jpg", "photographs images/ADE/validation/**/*.jpg"),
    (rf"{_ROOT}(ADE_val_\d+)_seg\.png", "masks images/ADE/validation/**/*_seg.png"),
    convert=converted,
)
