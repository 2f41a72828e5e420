"""Label maps as PNGs, a colour for each label, and a legend of their names."""

import functools
import io
import itertools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

PAPER, INK, GREY = (255, 255, 255), (40, 40, 40), (128, 128, 128)  # grey: the background
WIDTH, LONGEST = 800, 32  # pixels of a legend by itself, characters of a name in it

# Okabe and Ito's colours first: told apart by colour-blind people too.
_FIRST = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#F0E442", "#8B5A2B")


def labels_png(labels: np.ndarray, names: int, table: np.ndarray | None = None) -> bytes:
    """(H, W) labels as a PNG whose values are the labels: 16 bit and grey over 255 names.

    table: colours (names, 3) uint8 for a PNG of 8 bits, which is grey without; what is no label is
    white.
    """
    eight = names <= 255
    image = Image.fromarray(labels.astype("uint8" if eight else "uint16"))
    if table is not None and eight:
        image.putpalette(np.pad(table, ((0, 256 - names), (0, 0)), constant_values=255).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False)
    return file.getvalue()


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8, a colour a class; a class's colour does not hang on how many there are."""
    from matplotlib.colors import hsv_to_rgb  # of no use without an overlay

    first = [ImageColor.getrgb(code) for code in _FIRST]
    i = np.arange(max(0, count - len(first)))  # hues a golden ratio apart, in three tones
    tones = np.array([(0.85, 0.9), (0.55, 0.95), (0.95, 0.6)])[i % 3]
    others = hsv_to_rgb(np.column_stack([(0.11 + i * 0.61803398875) % 1, tones]))
    return np.concatenate([first, np.rint(255 * others)])[:count].astype(np.uint8)


def legend_png(labels: Iterable[int], names: Sequence[str], table: np.ndarray | None) -> bytes:
    """Number and name of some labels, each with its colour where they have one, `table` (names, 3).

    A name that no font here can write is left out, a long one cut.
    """
    entries: list[tuple[int | None, str]] = []
    for label in labels:
        name = names[label] if is_writable(names[label]) else ""
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        entries.append((None if table is None else label, f"{label} {name}"))
    file = io.BytesIO()
    with_legend(Image.new("RGB", (WIDTH, 0)), entries, table).save(file, "PNG")
    return file.getvalue()


def is_writable(name: str) -> bool:
    """Whether a font of this machine has each of its characters."""
    return None not in map(_font, name)


class Layout(NamedTuple):
    """Of a legend. All in pixels, but for `columns`. width: of the page; legend: its height."""

    width: int
    size: int  # of letters and swatches
    gap: int
    columns: int
    line: int
    legend: int


def layout(picture: int, texts: Sequence[str], count: int) -> Layout:
    """Of `count` entries, `texts` or some of them, in as many columns as fit below a picture of
    that width."""
    width = max(picture, 160)
    size = min(max(12, width // 45), 48)
    gap, line = size // 2, round(1.6 * size)
    longest = max((sum(length for *_, length in _runs(text, size)) for text in texts), default=0)
    cell = longest + size + 3 * gap
    columns = max(1, min(count, (width - gap) // cell))
    return Layout(width, size, gap, columns, line, math.ceil(count / columns) * line + gap)


def with_legend(
    body: Image.Image, entries: list[tuple[int | None, str]], table: np.ndarray | None
) -> Image.Image:
    """`body` above rows of texts, before those with a label a swatch of its colour in `table`."""
    texts = [text for _, text in entries]
    width, size, gap, columns, line, legend = layout(body.width, texts, len(texts))
    page = Image.new("RGB", (width, body.height + legend), PAPER)
    page.paste(body, ((width - body.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    for number, (label, text) in enumerate(entries):
        x = gap + (number % columns) * ((width - gap) // columns)
        y = body.height + gap // 2 + (number // columns) * line + (line - size) // 2
        if label is not None and table is not None:
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
