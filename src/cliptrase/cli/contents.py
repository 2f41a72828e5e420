"""What `cliptrase segment` writes of a picture: labels, a report, and an overlay for people."""

import functools
import io
import itertools
import json
import logging
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from cliptrase.errors import UserError

if TYPE_CHECKING:
    from cliptrase.segmenter import Segmentation, Segmenter

log = logging.getLogger(__name__)
PAPER, INK = (255, 255, 255), (40, 40, 40)
STRENGTH = 0.55  # how much of a pixel is its class's colour
LEGEND_LIMIT = 40  # entries; what is left becomes "and N more"
SIDES = {"WEBP": 16_383, "JPEG": 65_500}  # the most pixels that a side of such a file can have

# Okabe and Ito's colours first: told apart by colour-blind people too.
_FIRST = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#F0E442", "#8B5A2B")


def labels_png(labels: np.ndarray, names: int) -> bytes:
    """(H, W) uint16 labels as a grey PNG whose values are the labels: 16 bit over 255 names."""
    kind = "uint8" if names <= 255 else "uint16"
    file = io.BytesIO()
    Image.fromarray(labels.astype(kind)).save(file, "PNG", optimize=False)
    return file.getvalue()


def report(image: Path, segmenter: "Segmenter", segmentation: "Segmentation") -> bytes:
    """What was found and with what, as JSON."""
    height, width = segmentation.labels.shape
    content = {
        "image": str(image),
        "width": width,
        "height": height,
        "model": segmenter.model.label,
        "precision": segmenter.model.precision,
        "weights_sha256": segmenter.model.weights_sha256,
        "method": segmentation.method.model_dump(mode="json"),
        "backbones": {
            each.role: each.model_dump(mode="json") for each in segmentation.method.networks
        },
        "crop": segmenter.crop,
        "image_size": segmenter.image_size,
        "network_width": segmentation.network_size[1],
        "network_height": segmentation.network_size[0],
        "background": segmentation.background,
        "classes": [
            {"index": index, "name": name, "pixels": pixels, "share": pixels / (height * width)}
            for index, (name, pixels) in enumerate(_pixels(segmentation))
        ],
        "regions": _regions(segmentation),
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(
        errors="backslashreplace"  # JSON's own spelling of what is no UTF-8 in a file's name
    )


def shares(image: Path, segmentation: "Segmentation") -> str:
    """The picture's size and the share of each class, largest first."""
    height, width = segmentation.labels.shape
    pixels = sorted(_pixels(segmentation), key=lambda pair: -pair[1])
    wide = max(len(name) for name, _ in pixels)
    lines = [f"{image}: {width} × {height}"]
    lines += [f"  {name:<{wide}}  {100 * n / (width * height):5.1f} %" for name, n in pixels]
    return "\n".join(lines)


def _regions(segmentation: "Segmentation") -> list[dict[str, Any]]:
    """Every region that occurs: its number, size, and the class that most of its pixels have."""
    listed = []
    for index in np.unique(segmentation.regions[segmentation.regions >= 0]):
        inside = segmentation.labels[segmentation.regions == index]
        name = segmentation.names[np.bincount(inside).argmax()]
        share = inside.size / segmentation.labels.size
        size = {"pixels": inside.size, "share": share}
        listed.append({"index": int(index), "name": name} | size)
    return listed


def _pixels(segmentation: "Segmentation") -> Sequence[tuple[str, int]]:
    """The number of pixels of each name, in the order of the labels."""
    counts = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    return list(zip(segmentation.names, counts.tolist(), strict=True))


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8, a colour a class; a class's colour does not hang on how many there are."""
    from matplotlib.colors import hsv_to_rgb  # of no use without an overlay

    first = [ImageColor.getrgb(code) for code in _FIRST]
    i = np.arange(max(0, count - len(first)))  # hues a golden ratio apart, in three tones
    tones = np.array([(0.85, 0.9), (0.55, 0.95), (0.95, 0.6)])[i % 3]
    others = hsv_to_rgb(np.column_stack([(0.11 + i * 0.61803398875) % 1, tones]))
    return np.concatenate([first, np.rint(255 * others)])[:count].astype(np.uint8)


def overlay(path: Path, seen: Image.Image, segmentation: "Segmentation") -> bytes:
    """The picture that was segmented, painted with its labels, as a file of the kind of `path`."""
    file = io.BytesIO()
    page = paint(seen, segmentation.labels, segmentation.names, segmentation.background)
    try:
        page.save(file, _format(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error}); write .png") from error
    return file.getvalue()


def check_overlay(path: Path, size: tuple[int, int], names: Sequence[str]) -> None:
    """Raise UserError where a file of the kind of `path` may not hold the overlay of a picture of
    `size` (width, height), with all of its names in the legend."""
    texts = [_entry(index, name, 1) for index, name in enumerate(names)]
    count = min(len(names), LEGEND_LIMIT + 1)
    page = _layout(size[0], texts, count)
    width, height = page.width, size[1] + page.legend
    most = SIDES.get(_format(path), max(width, height))
    if max(width, height) > most:
        raise UserError(
            f"{path}: {width} × {height} pixels with the legend, but a side of a "
            f"{path.suffix} file has {most:,} at most; write .png"
        )


def _format(path: Path) -> str:
    return Image.registered_extensions()[path.suffix.lower()]


def paint(
    image: Image.Image, labels: np.ndarray, names: Sequence[str], background: int | None = None
) -> Image.Image:
    """The RGB `image` under its `labels` (H, W), class borders drawn, legend below.

    `names[i]` belongs to label i; `background` is the label left unpainted and grey. The legend
    lists the classes that occur, largest share first. The result is as wide as the picture (and
    at least 160 pixels) and taller by the legend.
    """
    photo = np.asarray(image.convert("RGB"), dtype=np.float32)
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"picture {photo.shape[:2]} and labels {labels.shape} differ in size")
    table = colours(len(names))
    painted = (1 - STRENGTH) * photo + STRENGTH * table[labels].astype(np.float32)
    if background is not None:
        grey = photo.mean(axis=2, keepdims=True)
        painted = np.where((labels == background)[..., None], 0.7 * grey + 20, painted)
        table[background] = (128, 128, 128)
    painted[_borders(labels, width=1 + min(labels.shape) // 400)] = PAPER
    body = Image.fromarray(painted.clip(0, 255).astype(np.uint8))
    return _with_legend(body, _entries(labels, names), table)


def _borders(labels: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: the pixels within `width` before a change of label, right of or below them."""
    edge = np.zeros(labels.shape, dtype=bool)
    for step in range(1, width + 1):
        edge[:, :-step] |= labels[:, :-step] != labels[:, step:]
        edge[:-step] |= labels[:-step] != labels[step:]
    return edge


def _entries(labels: np.ndarray, names: Sequence[str]) -> list[tuple[int | None, str]]:
    """What the legend says, in order: (label, text); no label for the line "and N more"."""
    pixels = np.bincount(labels.ravel(), minlength=len(names))
    order = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i]]
    listed: list[tuple[int | None, str]] = [
        (i, _entry(i, names[i], pixels[i] / labels.size)) for i in order[:LEGEND_LIMIT]
    ]
    if len(order) > LEGEND_LIMIT:
        listed.append((None, f"and {len(order) - LEGEND_LIMIT} more"))
    for i in order[:LEGEND_LIMIT]:
        if not _is_writable(names[i]):
            _say_unwritable(i, names[i])
    return listed


def _entry(label: int, name: str, share: float) -> str:
    """A line of the legend; the number of the label in the place of what no font here can write."""
    if not _is_writable(name):
        name = f"#{label}"
    return f"{name}  {100 * share:.1f} %"


def _is_writable(name: str) -> bool:
    return None not in map(_font, name)


@functools.cache  # once a name
def _say_unwritable(label: int, name: str) -> None:
    log.warning(
        "overlay: no font on this machine has all of %r; its legend shows #%d, the number of the "
        "label; install one that has, as Noto Sans CJK or Noto Emoji",
        name,
        label,
    )


class _Layout(NamedTuple):
    """Of a legend. All in pixels, but for `columns`. width: of the page; legend: its height."""

    width: int
    size: int  # of letters and swatches
    gap: int
    columns: int
    line: int
    legend: int


def _layout(picture: int, texts: Sequence[str], count: int) -> _Layout:
    """Of `count` entries, `texts` or some of them, in as many columns as fit below a picture of
    that width."""
    width = max(picture, 160)
    size = min(max(12, width // 45), 48)
    gap, line = size // 2, round(1.6 * size)
    cell = max(sum(length for *_, length in _runs(text, size)) for text in texts) + size + 3 * gap
    columns = max(1, min(count, (width - gap) // cell))
    return _Layout(width, size, gap, columns, line, math.ceil(count / columns) * line + gap)


def _with_legend(
    body: Image.Image, entries: list[tuple[int | None, str]], table: np.ndarray
) -> Image.Image:
    """`body` above rows of swatches and texts."""
    texts = [text for _, text in entries]
    width, size, gap, columns, line, legend = _layout(body.width, texts, len(texts))
    page = Image.new("RGB", (width, body.height + legend), PAPER)
    page.paste(body, ((width - body.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    for number, (label, text) in enumerate(entries):
        x = gap + (number % columns) * ((width - gap) // columns)
        y = body.height + gap // 2 + (number // columns) * line + (line - size) // 2
        if label is not None:
            swatch = tuple(int(value) for value in table[label])
            draw.rectangle((x, y, x + size, y + size), fill=swatch, outline=INK)
        x += size + gap
        for run, font, length in _runs(text, size):
            draw.text((x, y + size / 2), run, fill=INK, font=font, anchor="lm")
            x += length
    return page


def _runs(text: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont, int]]:
    """A text cut where its font changes: each part, its font, and its length in pixels."""
    runs = []
    for path, part in itertools.groupby(text, lambda character: _font(character) or _fonts()[0]):
        run, font = "".join(part), ImageFont.truetype(path, size)
        runs.append((run, font, math.ceil(font.getlength(run))))
    return runs


@functools.cache
def _font(character: str) -> str | None:
    """The first font that has a character; the main one for what is invisible, None for none."""
    fonts = _fonts()
    invisible = unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"
    has = (path for path in fonts if invisible or ord(character) in _characters(path))
    return next(has, None)


@functools.cache
def _fonts() -> list[str]:
    """DejaVu Sans, which ships with a dependency and knows most of the alphabets, and what is
    installed, plain fonts first."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    def adorned(path: str) -> tuple[bool, str]:
        name = Path(path).stem.lower()
        return any(word in name for word in ("bold", "italic", "oblique", "mono", "light")), path

    main = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return [str(main), *sorted(findSystemFonts(), key=adorned)]


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The characters of a font; none of one that has only pictures of a fixed size."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 12)
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
