"""Pictures as RGB and masks as integers, from every usual kind of file, or one clear message."""

import contextlib
import functools
import importlib
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
)

from cliptrase.errors import UserError

with contextlib.suppress(ImportError):  # HEIC, where the package is installed
    importlib.import_module("pillow_heif").register_heif_opener()

log = logging.getLogger(__name__)

# What decoders of pictures and archives raise on files that are cut off or hold nonsense.
_BUILT_IN = (OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, RuntimeError)
DAMAGE = (*_BUILT_IN, EOFError, struct.error, zlib.error)
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_TURN_BACK = {  # EXIF orientation → what makes the stored pixels of those that are shown
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "GIF")
_STRICT = ("error", Image.DecompressionBombWarning)  # how `limit_pixels` refuses
_WHITE_IS_ZERO = 0
_SIGNED = 2
_NUMBERS = {1: "whole numbers", _SIGNED: "signed whole numbers", 3: "floating-point numbers"}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class Header:
    """What a file says before any pixel is decoded. size: (width, height). mode: Pillow's.

    orientation: how EXIF turns the stored pixels, 1 to 8; 1: not at all.
    """

    format: str
    mode: str
    size: tuple[int, int]
    orientation: int = 1

    @property
    def bits(self) -> int:
        """16 for label maps of more than a byte a pixel, else 8."""
        return 16 if self.mode.startswith("I") else 8

    @property
    def single(self) -> bool:
        """Whether a pixel is one number: a grey value or a palette index."""
        return self.mode in ("1", "L", "P") or self.mode.startswith("I")


def read_header(
    source: Path | str | bytes, name: str | None = None, *, as_stored: bool = False
) -> Header:
    """Format, mode and size as shown (EXIF rotation applied) or `as_stored`, of a path or bytes.

    Raises UserError naming the file (or `name`).
    """
    with decoding(name or str(source), source), Image.open(_file(source)) as image:
        orientation, size = _orientation(image), image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # its size may be as shown already
            size = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        sideways = not as_stored and orientation in _SIDEWAYS
        size = size[::-1] if sideways else size
        return Header(image.format or "", image.mode, size, orientation)


def check_mask(header: Header, name: str, *, coloured: bool = False) -> None:
    """Refuse a file that cannot be a mask, by its header. Raises UserError naming it.

    coloured: a mask of colours, which a table says the meaning of.
    """
    if header.format in _LOSSY:
        raise UserError(
            f"{name}: a {header.format} file does not keep label values; save the mask as PNG"
        )
    if coloured and (header.bits == 16 or header.mode == "F"):
        raise UserError(
            f"{name}: holds no colours of 8 bits a channel; leave out benchmark.colours"
        )
    if not header.single and not coloured:
        raise UserError(
            f"{name}: a mask must hold one label a pixel, and this is a picture of mode "
            f"{header.mode}{' (floating-point numbers)' * (header.mode == 'F')}; save it as grey "
            "or palette PNG, 8 or 16 bits, with class indices"
        )


def read_image(
    source: Path | str | bytes | Image.Image | np.ndarray,
    name: str | None = None,
    *,
    as_stored: bool = False,
) -> Image.Image:
    """A picture as shown, in RGB with 8 bits: a path, a file's bytes, a PIL image or an array.

    EXIF rotation is applied; transparent pixels lie on white; 16-bit grey is scaled to 8; CMYK,
    palettes and one-bit pictures are converted. Arrays: uint8 or uint16, (H, W), (H, W, 1 | 3 | 4).
    as_stored: without EXIF rotation, as the masks of datasets are drawn.

    Raises UserError naming the file (or `name`).
    """
    name = name or (str(source) if isinstance(source, str | Path) else "image")
    if isinstance(source, np.ndarray):
        source = _from_array(source, name)
    with decoding(name, source), contextlib.ExitStack() as opened:
        if not isinstance(source, Image.Image):
            source = opened.enter_context(Image.open(_file(source)))
            if source.width * source.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
                _say_large(name, source.width * source.height)
        return _colours(_loaded(source, name, as_stored), name)


def limit_pixels(most: int) -> None:
    """Refuse pictures of more than `most` pixels in this process, whatever Pillow's limit was.

    Raises UserError for a limit below 1.
    """
    if most < 1:
        raise UserError(f"--max-pixels {most}: must be 1 or more")
    Image.MAX_IMAGE_PIXELS = most
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def read_label(
    source: Path | str | bytes, name: str | None = None, *, as_stored: bool = False
) -> np.ndarray:
    """The stored values of a mask, (H, W) int32 in 0..65535: a path or a file's bytes.

    Palette files give their indices, never their colours; PNGs of 1, 2 and 4 bits their stored
    values, which Pillow would scale to 255. 16-bit PNG and TIFF are read in full. EXIF rotation is
    applied, as to the picture, unless `as_stored`.

    Raises UserError naming the file (or `name`): colours, JPEG or WebP, a damaged file.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "mask")
    with decoding(name, source), Image.open(_file(source)) as image:
        check_mask(Header(image.format or "", image.mode, image.size), name)
        scale = _scale_of_few_bits(image, name)
        label = np.asarray(_loaded(image, name, as_stored)).astype(np.int32)
    if scale > 1:
        label //= scale
    if label.size and (label.min() < 0 or label.max() > 65535):
        stray = label.min() if label.min() < 0 else label.max()
        raise UserError(f"{name}: label {stray} is outside 0 to 65535; save it as unsigned 16 bit")
    return label


def read_coloured_label(
    source: Path | str | bytes, name: str, *, as_stored: bool = False
) -> np.ndarray:
    """The colours of a mask, (H, W, 3) uint8, as they are stored: whatever lies in alpha.

    Raises UserError naming the file: JPEG or WebP, more than 8 bits, a damaged file.
    """
    with decoding(name, source), Image.open(_file(source)) as image:
        check_mask(Header(image.format or "", image.mode, image.size), name, coloured=True)
        return np.asarray(_loaded(image, name, as_stored).convert("RGB"))


@contextlib.contextmanager
def decoding(name: str, source: object = None) -> Iterator[None]:
    """Turn every error of decoding into a UserError about the file.

    source: its path or bytes, for what can be said of a file that Pillow does not know.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: a folder, not an image") from None
    except PermissionError:
        raise UserError(f"{name}: may not be read; check its permissions") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition(",")[0]  # less the warning of an attack
        if any(entry[::2][:2] == _STRICT for entry in warnings.filters):  # Pillow names its double
            size = re.sub(r"limit of \d+", f"limit of {Image.MAX_IMAGE_PIXELS}", size)
        raise UserError(
            f"{name}: too large to be decoded ({size}); shrink it, or raise the limit: "
            "--max-pixels of cliptrase segment, PIL.Image.MAX_IMAGE_PIXELS in Python"
        ) from error
    except UnidentifiedImageError:
        raise UserError(f"{name}: {_unknown(source)}") from None
    except MemoryError as error:
        raise UserError(f"{name}: too large for this machine's memory; shrink it first") from error
    except DAMAGE as error:
        if "not available" in str(error) or "not support" in str(error):  # a decoder, of Pillow's
            raise UserError(f"{name}: cannot be decoded here ({error}); save it as PNG") from error
        raise UserError(f"{name}: truncated or damaged ({error}); replace it") from error


def _file(source: Path | str | bytes) -> Path | str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _unknown(source: object) -> str:
    """What a file is that Pillow cannot identify, and what to do about it."""
    with contextlib.suppress(*DAMAGE), contextlib.ExitStack() as opened:
        if isinstance(source, bytes):
            file: IO[bytes] = io.BytesIO(source)
        else:
            file = opened.enter_context(open(source, "rb"))  # type: ignore[call-overload]
        head = file.read(16)
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
            return "a HEIC picture; `pip install pillow-heif` to read it, or save it as JPEG"
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            tags = TiffImagePlugin.ImageFileDirectory_v2(head if b"+" in head[:4] else head[:8])
            file.seek(tags.next)
            tags.load(file)
            numbers = _NUMBERS.get(tags.get(SAMPLEFORMAT, (1,))[0], "numbers")
            return (
                f"a TIFF of {tags.get(SAMPLESPERPIXEL, 1)} × {tags[BITSPERSAMPLE][0]}-bit "
                f"{numbers} a pixel, which Pillow does not read; save a picture as RGB of 8 bits "
                "a channel, a mask as grey PNG"
            )
    return "not an image that can be read; give JPEG, PNG, WebP, TIFF or BMP"


@functools.cache  # once a file
def _say_large(name: str, pixels: int) -> None:
    log.warning("%s: %.0f megapixels; this takes long and much memory", name, pixels / 1e6)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where the file has none or a broken one."""
    with contextlib.suppress(*DAMAGE):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in _TURN_BACK else 1
    return 1


def _loaded(image: Image.Image, name: str, as_stored: bool) -> Image.Image:
    """The same with its pixels, upright or as they are stored."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    orientation = _orientation(image) if is_tiff or not as_stored else 1
    image.load()
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        signed = image.mode == "L" and _SIGNED in image.tag_v2.get(SAMPLEFORMAT, ())
        if signed and np.asarray(image).max(initial=0) > 127:
            raise UserError(f"{name}: signed bytes below zero; save it as unsigned 8 or 16 bit")
        # Pillow has turned it
        return image.transpose(_TURN_BACK[orientation]) if as_stored and orientation > 1 else image
    if orientation > 1:
        with contextlib.suppress(*DAMAGE):
            return ImageOps.exif_transpose(image)
    return image


def _colours(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _rgb_of_16_bits(np.asarray(image), name)
    if image.mode == "F":
        raise UserError(f"{name}: floating-point pixels; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _rgb_of_16_bits(pixels: np.ndarray, name: str) -> Image.Image:
    """(H, W) or (H, W, 3) of 0..65535 to 8 bits, rounded: 65535 becomes 255, 257 becomes 1."""
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        stray = pixels.min() if pixels.min() < 0 else pixels.max()
        raise UserError(
            f"{name}: a pixel of {stray}, outside 0 to 65535; save it with 8 bits, or unsigned "
            "with 16"
        )
    eight = ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(eight).convert("RGB")


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    colours = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    depth = pixels.dtype in (np.uint8, np.uint16)
    if not pixels.size or not depth or not (pixels.ndim == 2 or colours):
        raise UserError(
            f"{name}: an array of shape {array.shape} and type {array.dtype}; "
            "give uint8 of shape (H, W, 3), (H, W, 4) or (H, W)"
        )
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _scale_of_few_bits(image: Image.Image, name: str) -> int:
    """By how much Pillow multiplies the grey values of a file of 2 or 4 bits: 85 or 17, else 1."""
    bits = 8
    if image.format == "PNG" and image.mode == "L":
        tiles = getattr(image, "tile", None)  # until they are decoded, how pixels are packed
        packing = tiles[0][3] if tiles else ""
        bits = {"L;2": 2, "L;4": 4}.get(packing if isinstance(packing, str) else packing[0], 8)
    elif image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if image.mode != "P" and tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
            raise UserError(
                f"{name}: a TIFF that counts white as zero, its labels are unclear; save it as PNG"
            )
        if image.mode == "L":
            bits = tags.get(BITSPERSAMPLE, (8,))[0]
    return {2: 85, 4: 17}.get(bits, 1)
