"""Every usual kind of file becomes the RGB picture it shows, or the labels it stores."""

import io
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from cliptrase.data.read.images import limit_pixels, read_header, read_image, read_label
from cliptrase.errors import UserError, exit_on_user_error

PHOTO = load_sample_images().images[0][100:180, 200:310]  # (80, 110, 3) uint8


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits, written by hand: Pillow writes no small ones."""
    height, width = values.shape
    rows = b""
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    content = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", content), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + kind + data
        png += struct.pack(">I", zlib.crc32(kind + data))
    return png


def tiff(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """An uncompressed TIFF of (H, W[, C]) numbers of any type, written by hand."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    tags = {256: [pixels.shape[1]], 257: [pixels.shape[0]]}
    tags |= {258: [8 * pixels.dtype.itemsize] * channels, 259: [1], 262: [1 + (channels > 2)]}
    tags |= {273: [8], 274: [orientation], 277: [channels], 278: [pixels.shape[0]]}
    tags |= {279: [pixels.nbytes], 338: [0] * max(0, channels - 3)}
    tags[339] = ["_uif".index(pixels.dtype.kind)] * channels
    entries, more = b"", b""
    start = 8 + pixels.nbytes
    tags = {tag: values for tag, values in sorted(tags.items()) if values}
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}H" if len(values) > 1 else "<I", *values)
        if len(packed) > 4:
            place = struct.pack("<I", start + 6 + 12 * len(tags) + len(more))
            packed, more = place, more + packed
        entries += struct.pack("<HHI", tag, 3 if len(values) > 1 else 4, len(values))
        entries += packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start) + pixels.tobytes()
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + more


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_files_give_their_pixels(file_format: str, options: dict) -> None:
    content = encoded(Image.fromarray(PHOTO), file_format, **options)
    assert np.array_equal(np.asarray(read_image(content)), PHOTO)


def test_a_jpeg_gives_what_pillow_decodes(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPG"
    path.write_bytes(encoded(Image.fromarray(PHOTO), "JPEG", quality=90))
    decoded = np.asarray(read_image(path))
    assert np.array_equal(decoded, np.asarray(Image.open(path)))
    assert np.abs(decoded.astype(int) - PHOTO).mean() < 8


# What must be done to the stored pixels, by the EXIF standard's table of orientations.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "lzw", "tiff"])
def test_header_and_pixels_agree_upright_and_as_stored(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "lzw": {"compression": "tiff_lzw"}}.get(kind, {})
    for stored in (PHOTO, PHOTO[..., 0], PHOTO[..., 0].astype(np.uint16) * 257):
        if kind == "WEBP" and stored.ndim == 2:
            continue
        if kind == "tiff" or (orientation in (0, 9) and kind == "lzw"):
            content = tiff(stored, orientation)
        else:
            file_format = "TIFF" if kind == "lzw" else kind
            content = encoded(Image.fromarray(stored), file_format, exif=exif, **options)
        for as_stored in (False, True):
            want = stored if as_stored else UPRIGHT.get(orientation, UPRIGHT[1])(stored)
            header = read_header(content, as_stored=as_stored)
            assert header.size == (want.shape[1], want.shape[0])
            assert header.orientation == (orientation if 0 < orientation < 9 else 1)
            if stored.ndim == 3:
                assert np.array_equal(np.asarray(read_image(content, as_stored=as_stored)), want)
            else:
                assert np.array_equal(read_label(content, as_stored=as_stored), want)


def test_a_picture_with_broken_exif_is_shown_as_stored() -> None:
    content = encoded(Image.fromarray(PHOTO), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(np.asarray(read_image(content)), PHOTO)


def test_grey_and_one_bit_pictures_become_rgb() -> None:
    grey = Image.fromarray(PHOTO).convert("L")
    want = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    assert np.array_equal(np.asarray(read_image(encoded(grey, "PNG"))), want)
    bits = grey.point(lambda value: 255 * (value > 99), mode="1")
    shown = np.asarray(read_image(encoded(bits, "PNG")))
    assert set(np.unique(shown)) == {0, 255}
    assert np.array_equal(shown[..., 0] > 0, np.asarray(bits))


def test_transparent_pixels_lie_on_white() -> None:
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    assert np.array_equal(np.asarray(read_image(encoded(Image.fromarray(rgba), "PNG"))), PHOTO)
    rgba[:40, :, 3] = 0
    rgba[40:, :, 3] = 128
    shown = np.asarray(read_image(encoded(Image.fromarray(rgba), "PNG")))
    assert (shown[:40] == 255).all()
    want = PHOTO[40:] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(shown[40:] - want).max() <= 1
    grey = Image.fromarray(rgba).convert("LA")
    assert (np.asarray(read_image(encoded(grey, "PNG")))[:40] == 255).all()


def test_a_palette_shows_its_colours_and_its_transparency() -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    palette = Image.fromarray(indices, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    shown = np.asarray(read_image(encoded(palette, "PNG")))
    assert np.array_equal(shown, np.eye(3, dtype=np.uint8)[indices] * 255)
    shown = np.asarray(read_image(encoded(palette, "PNG", transparency=1)))
    assert (shown[indices == 1] == 255).all()
    assert np.array_equal(shown[indices == 2][0], [0, 0, 255])


def test_cmyk_shows_the_colours_of_the_picture() -> None:
    content = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    assert np.abs(np.asarray(read_image(content)).astype(int) - PHOTO).mean() < 8


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut(file_format: str) -> None:
    deep = np.array([[0, 257, 25700, 65535, 65534, 128, 129]], dtype=np.uint16)
    shown = np.asarray(read_image(encoded(Image.fromarray(deep), file_format)))
    assert shown[0, :, 0].tolist() == [0, 1, 100, 255, 255, 0, 1]


def test_arrays_and_pil_images_are_taken() -> None:
    assert np.array_equal(np.asarray(read_image(PHOTO)), PHOTO)
    assert np.array_equal(np.asarray(read_image(Image.fromarray(PHOTO))), PHOTO)
    assert np.array_equal(np.asarray(read_image(PHOTO[..., :1]))[..., 2], PHOTO[..., 0])
    assert np.array_equal(np.asarray(read_image(PHOTO.astype(np.uint16) * 257)), PHOTO)
    for wrong in (PHOTO / 255, PHOTO.transpose(2, 0, 1), PHOTO[:0], PHOTO[None]):
        with pytest.raises(UserError, match=r"image: an array of shape .* give uint8"):
            read_image(wrong)


def test_the_callers_picture_is_left_as_it_was() -> None:
    mine = Image.fromarray(PHOTO)
    read_image(mine).paste((0, 0, 0), (0, 0, 50, 50))
    assert np.array_equal(np.asarray(mine), PHOTO)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_masks_of_any_depth_give_their_stored_values(bits: int) -> None:
    values = np.arange(5 * 13).reshape(5, 13) * (997 if bits == 16 else 1) % (1 << bits)
    assert np.array_equal(read_label(grey_png(values, bits)), values)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_palette_masks_give_indices_never_colours(file_format: str) -> None:
    indices = np.array([[0, 1, 2, 20, 255]], dtype=np.uint8)
    mask = Image.fromarray(indices, "P")
    mask.putpalette(bytes(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8)))
    label = read_label(encoded(mask, file_format))
    assert label.dtype == np.int32 and np.array_equal(label, indices)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palette_masks_give_indices(bits: int) -> None:
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6) % (1 << bits)
    mask = Image.fromarray(indices, "P")
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0] + [7] * 39)
    assert np.array_equal(read_label(encoded(mask, "PNG", bits=bits)), indices)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_sixteen_bit_masks_are_read_in_full(file_format: str, options: dict) -> None:
    values = np.array([[0, 255, 256, 458, 846, 32768, 65535]], dtype=np.uint16)
    content = encoded(Image.fromarray(values), file_format, **options)
    assert read_label(content).tolist() == values.tolist()


def test_a_big_endian_tiff_is_read_in_full(tmp_path: Path) -> None:
    values = np.array([[1, 256, 513]], dtype=">u2")
    tags = [(256, 4, 3), (257, 4, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, 1), (279, 4, 6)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    directory = struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0)
    path = tmp_path / "big.tif"
    path.write_bytes(b"MM\0*" + struct.pack(">I", 14) + values.tobytes() + directory)
    assert read_label(path).tolist() == [[1, 256, 513]]
    assert read_header(path).bits == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.fromarray(PHOTO), "PNG"), "m.png: a mask must hold one label a pixel.*RGB"),
        (encoded(Image.fromarray(PHOTO).convert("LA"), "PNG"), "one label a pixel.*LA"),
        (encoded(Image.fromarray(PHOTO).convert("L"), "JPEG"), "m.png: a JPEG file does not keep"),
        (encoded(Image.fromarray(PHOTO), "WEBP"), "a WEBP file does not keep"),
        (encoded(Image.fromarray(PHOTO[..., 0].astype(np.float32)), "TIFF"), "mode F"),
        (encoded(Image.fromarray(np.array([[-1]], np.int32)), "TIFF"), "label -1 is outside"),
        (encoded(Image.fromarray(np.array([[70000]], np.int32)), "TIFF"), "label 70000 is outside"),
        (
            encoded(Image.fromarray(PHOTO).convert("L"), "TIFF", tiffinfo={262: 0}),
            "counts white as zero",
        ),
    ],
)
def test_what_is_no_mask_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_label(content, "m.png")


def whole_files() -> dict[str, bytes]:
    photo = Image.fromarray(PHOTO)
    return {
        "jpeg": encoded(photo, "JPEG"),
        "png": encoded(photo, "PNG"),
        "webp": encoded(photo, "WEBP"),
        "tiff": encoded(photo, "TIFF"),
        "bmp": encoded(photo, "BMP"),
        "gif": encoded(photo.quantize(16), "GIF"),
        "mask": encoded(Image.fromarray(PHOTO[..., 0]), "PNG"),
        "deep": encoded(Image.fromarray(PHOTO[..., 0].astype(np.uint16)), "TIFF"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", whole_files())
@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.5, 0.9, 0.98])
def test_a_cut_off_file_is_named_never_decoded(kind: str, share: float) -> None:
    content = whole_files()[kind]
    cut = content[: int(share * len(content))]
    with pytest.raises(UserError, match=r"^here\.x: (truncated or damaged|not an image)"):
        read_image(cut, "here.x")
    with pytest.raises(UserError, match=r"^here\.x: "):
        read_label(cut, "here.x")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", whole_files())
def test_a_file_of_flipped_bytes_raises_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(7)
    content = np.frombuffer(whole_files()[kind], np.uint8)
    for _ in range(40):
        damaged = content.copy()
        damaged[rng.integers(0, min(len(content), 150), 5)] = rng.integers(0, 256, 5)
        for read in (read_image, read_label):
            try:
                read(damaged.tobytes(), "here.x")
            except UserError as error:
                assert str(error).startswith("here.x: ")


def test_paths_that_are_no_image_are_named(tmp_path: Path) -> None:
    page = tmp_path / "photo.jpg"
    page.write_text("<html>404 Not Found</html>")
    for read in (read_image, read_label, read_header):
        with pytest.raises(UserError, match=r"photo.jpg: not an image that can be read"):
            read(page)
        with pytest.raises(UserError, match=r"absent.png: no such file"):
            read(tmp_path / "absent.png")
        with pytest.raises(UserError, match=r"a folder, not an image"):
            read(tmp_path)


def test_a_decompression_bomb_is_refused() -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + head)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(UserError, match=r"^bomb.png: too large to be decoded .*--max-pixels"):
        read_image(bomb, "bomb.png")
    with pytest.raises(UserError, match=r"^bomb.png: too large"):
        read_label(bomb, "bomb.png")


def stderr(script: str) -> str:
    """What a process of its own says: pytest has its own filters of warnings."""
    head = "import sys; from cliptrase.data.read import images; from PIL import Image\n"
    head = "import sys; sys.modules['pillow_heif'] = None\n" + head
    head += "from cliptrase.errors import exit_on_user_error\n@exit_on_user_error\ndef main():\n"
    code = head + textwrap.indent(script, "    ") + "\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


def test_a_large_picture_is_said_in_one_line() -> None:
    content = encoded(Image.fromarray(PHOTO), "TIFF")
    script = f"""
Image.MAX_IMAGE_PIXELS = 8799
for _ in range(2):
    images.read_header({content!r})
    images.read_image({content!r}, "large.tif")
"""
    assert stderr(script) == "large.tif: 0 megapixels; this takes long and much memory\n"


def test_a_limit_of_pixels_takes_the_place_of_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = encoded(Image.fromarray(PHOTO), "TIFF")
    with warnings.catch_warnings():
        with pytest.raises(UserError, match=r"^a\.tif: too large .*8800 pixels"):
            read_image(content, "a.tif")
        limit_pixels(80 * 110)
        assert read_image(content, "a.tif").size == (110, 80)
        for most in (80 * 110 - 1, 1000):  # of half the pixels, Pillow names the double
            limit_pixels(most)
            with pytest.raises(UserError, match=rf"^a\.tif: .*8800 pixels.*of {most} pixels"):
                read_image(content, "a.tif")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((3, 4, 8), np.uint8), "a TIFF of 8 × 8-bit whole numbers a pixel"),
        (np.zeros((3, 4, 4), np.int16), "a TIFF of 4 × 16-bit signed whole numbers a pixel"),
        (np.zeros((3, 4, 3), np.float32), "a TIFF of 3 × 32-bit floating-point numbers a pixel"),
        (np.zeros((3, 4), np.float16), "a TIFF of 1 × 16-bit floating-point numbers a pixel"),
        (np.zeros((3, 4), np.float32), "floating-point"),
        (np.full((3, 4), -7, np.int16), "-7.*unsigned"),
        (np.full((3, 4), -7, np.int32), "-7.*unsigned"),
        (np.full((3, 4), 70000, np.int32), "70000"),
        (np.full((3, 4), -7, np.int8), "signed bytes below zero; save it as unsigned"),
    ],
)
def test_a_tiff_of_other_numbers_is_said_to_be_one(
    pixels: np.ndarray, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    @exit_on_user_error
    def command() -> None:
        for read in (read_image, read_label):
            with pytest.raises(UserError, match=rf"^sat\.tif: .*{message}"):
                read(tiff(pixels), "sat.tif")

    command()
    assert not caplog.messages  # of Pillow, which commands silence


def test_signed_numbers_above_zero_are_what_they_are() -> None:
    for kind in (np.int8, np.int16, np.int32):
        assert np.array_equal(read_label(tiff(np.full((3, 4), 100, kind))), np.full((3, 4), 100))


def test_heic_names_the_package_that_reads_it() -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    said = stderr(f"images.read_image({content!r}, 'a.heic')")
    assert "a.heic: a HEIC picture; `pip install pillow-heif` to read it" in said


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    pytest.importorskip("pillow_heif")
    content = encoded(Image.fromarray(PHOTO), "HEIF", quality=95)
    assert np.abs(np.asarray(read_image(content)).astype(int) - PHOTO).mean() < 8
