"""Pictures as RGB and masks as integers, from every usual kind of file, or one clear message."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cliptrase.errors import UserError

# What decoders of pictures and archives raise on files that are cut off or hold nonsense.
_BUILT_IN = (OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, RuntimeError)
DAMAGE = (*_BUILT_IN, EOFError, struct.error, zlib.error)
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "GIF")
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258


@dataclass(frozen=True)
class Header:
    """What a file says before any pixel is decoded. size: (width, height). mode: Pillow's."""

    format: str
    mode: str
    size: tuple[int, int]

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
    with decoding(name or str(source)), Image.open(_file(source)) as image:
        sideways = not as_stored and _orientation(image) in _SIDEWAYS
        size = image.size[::-1] if sideways else image.size
        return Header(image.format or "", image.mode, size)


def check_mask(header: Header, name: str) -> None:
    """Refuse a file that cannot be a mask, by its header. Raises UserError naming it."""
    if header.format in _LOSSY:
        raise UserError(
            f"{name}: a {header.format} file does not keep label values; save the mask as PNG"
        )
    if not header.single:
        raise UserError(
            f"{name}: a mask must hold one label a pixel, and this is a picture of mode "
            f"{header.mode}; save it as grey or palette PNG, 8 or 16 bits, with class indices"
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
    with decoding(name), contextlib.ExitStack() as opened:
        if not isinstance(source, Image.Image):
            source = opened.enter_context(Image.open(_file(source)))
        source.load()
        return _colours(source if as_stored else _upright(source), name)


def read_label(source: Path | str | bytes, name: str | None = None) -> np.ndarray:
    """The stored values of a mask, (H, W) int32 in 0..65535: a path or a file's bytes.

    Palette files give their indices, never their colours; PNGs of 1, 2 and 4 bits their stored
    values, which Pillow would scale to 255. 16-bit PNG and TIFF are read in full.

    Raises UserError naming the file (or `name`): colours, JPEG or WebP, a damaged file.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "mask")
    with decoding(name), Image.open(_file(source)) as image:
        check_mask(Header(image.format or "", image.mode, image.size), name)
        scale = _scale_of_few_bits(image, name)
        image.load()
        label = np.asarray(image).astype(np.int32)
    if scale > 1:
        label //= scale
    if label.size and (label.min() < 0 or label.max() > 65535):
        stray = label.min() if label.min() < 0 else label.max()
        raise UserError(f"{name}: label {stray} is outside 0 to 65535; save it as unsigned 16 bit")
    return label


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn every error of decoding into a UserError about the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{name}: a folder, not an image") from None
    except PermissionError:
        raise UserError(f"{name}: may not be read; check its permissions") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name}: too large to be decoded ({error}); shrink it first") from error
    except UnidentifiedImageError:
        raise UserError(
            f"{name}: not an image that can be read; give JPEG, PNG, WebP, TIFF or BMP"
        ) from None
    except MemoryError as error:
        raise UserError(f"{name}: too large for this machine's memory; shrink it first") from error
    except DAMAGE as error:
        raise UserError(f"{name}: truncated or damaged ({error}); replace it") from error


def _file(source: Path | str | bytes) -> Path | str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where the file has none or a broken one."""
    with contextlib.suppress(*DAMAGE):
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _upright(image: Image.Image) -> Image.Image:
    if _orientation(image) != 1:
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
        raise UserError(f"{name}: more than 16 bits a pixel; save it with 8 or 16")
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
        if image.mode != "P" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise UserError(
                f"{name}: a TIFF that counts white as zero, its labels are unclear; save it as PNG"
            )
        if image.mode == "L":
            bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
    return {2: 85, 4: 17}.get(bits, 1)
