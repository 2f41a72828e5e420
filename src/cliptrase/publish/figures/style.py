"""How figures look, and how they are written: the same bytes from the same numbers."""

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from cliptrase.errors import on_one_line
from cliptrase.files import atomic_write

Numbers = dict[str, NDArray[Any]]  # arrays of a figure, by name

INK, GREY, PALE = "#24292f", "#8c959f", "#eaeef2"
ACCENT = "#d1242f"
PLAIN = "#4c9bd6"
ROWS = {"CLIP": "#a9b4c0", "SCLIP": PLAIN, "CLIPtrase": "#e8743b"}  # baseline, rival, ours
OTHER_ROWS = (
    *("#54a24b", "#9467bd", "#8c6d31", "#d67ab1", "#17a2a2", "#b5a82c", "#b5485d", "#5b6fb5"),
    *("#8fb573", "#c49c94", "#2f6f4f", "#7a5195"),
)
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
    "font.size": 9.5,
    "text.parse_math": False,  # a $ in a name is a $
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "cliptrase",  # ids that do not change from run to run
    "svg.fonttype": "path",
}
PNG_DPI = 160


EDGE = 0.08  # inches around what stands above the axes
NOTHING, MISSING = "no finished run", "\N{EN DASH}"  # of a whole figure or panel; of one number


def row_colour(name: str) -> str:
    """The colour of a row, by its name alone: it stays when rows are added."""
    digest = hashlib.sha256(name.encode()).digest()
    return ROWS.get(name, OTHER_ROWS[digest[0] % len(OTHER_ROWS)])


def inches_of(text: str, size: float, weight: str = "normal") -> float:
    """How wide one line of text is; `size` in points."""
    font = FontProperties(family=SETTINGS["font.family"], size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """The text in lines that are no wider than `inches`; a word that is wider is broken."""
    lines = [""]
    for width in range(int(inches * 72 / (0.27 * size)) + 1, 0, -1):  # an i is 0.28 em wide
        lines = textwrap.wrap(text, width)
        if max((inches_of(line, size, weight) for line in lines), default=0) <= inches:
            break
    return "\n".join(lines)


def shortened(text: str, most: int) -> str:
    """The text on one line, without its middle where it is longer than `most` characters."""
    text, half = on_one_line(text), (most - 3) // 2
    return text if len(text) <= most else f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


def legend_of(owner: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> Legend:
    """A legend of a figure or of axes; matplotlib alone leaves out a name that begins with _."""
    made: Legend = owner.legend(handles, [str(place) for place in range(len(names))], **options)
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)
    return made


def headed(
    figure: Figure, title: str, about: str, legend: float = 0.0, size: float = 11
) -> tuple[float, float]:
    """Grow a figure at its top by a bold title (`size` in points), grey facts below it, and
    `legend` inches. Returns where a legend begins, as fractions of the figure."""
    width, height = figure.get_size_inches()
    used, texts = EDGE, []
    for text, points, weight, colour in ((title, size, "bold", INK), (about, 8.5, "normal", GREY)):
        if text:
            lines = wrapped(text, width - 2 * EDGE, points, weight)
            style: Any = {"fontsize": points, "fontweight": weight, "color": colour}
            texts.append((used, lines, style))
            used += (lines.count("\n") + 1) * points * 1.3 / 72 + 0.04
    whole = height + used + legend
    figure.set_size_inches(width, whole)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, height / whole))
    for top, lines, style in texts:
        figure.text(EDGE / width, 1 - top / whole, lines, va="top", ha="left", **style)
    return EDGE / width, 1 - used / whole


def headed_with_legend(
    figure: Figure, title: str, about: str, handles: Sequence[Any], names: Sequence[str]
) -> Legend:
    """`headed`, and a legend between the facts and the axes in as few lines as it needs."""
    across = int((figure.get_figwidth() - 0.2) / (max(inches_of(n, 9.5) for n in names) + 0.6))
    columns = -(-len(handles) // -(-len(handles) // max(1, across)))
    room = 0.22 * -(-len(handles) // columns) + 0.1
    options: Any = {"loc": "upper left", "frameon": False, "borderpad": 0, "borderaxespad": 0}
    options |= {"bbox_to_anchor": headed(figure, title, about, legend=room)}
    options |= {"bbox_transform": figure.transFigure}
    legend = legend_of(figure.axes[0], handles, names, ncols=columns, **options)
    legend.set_in_layout(False)
    return legend


def image_grid(
    heads: Sequence[Sequence[str]], cell: tuple[float, float], about: str, legend: float = 0.0
) -> tuple[Figure, NDArray[Any]]:
    """A figure of images under their heads, (rows, columns), and its axes; "" for no head.

    `cell`: inches of an image, across and down; `legend`: inches left below them.
    """
    width, height = cell
    lines = [[wrapped(head, width - 0.1, 9.5, "bold") for head in row] for row in heads]
    above = sum(0.17 * (max(head.count("\n") for head in row) + 1) * any(row) for row in lines)
    size = width * len(heads[0]) + 0.2, height * len(heads) + above + legend
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(heads), len(heads[0]), squeeze=False)
    for ax, head in zip(grid.flat, (head for row in lines for head in row), strict=True):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(head, fontsize=9.5, fontweight="bold", loc="center")
    headed(figure, "", about)
    return figure, grid


def save(figure: Figure, folder: Path, name: str, numbers: Numbers | None = None) -> list[Path]:
    """Write <folder>/<name>.svg and .png, and its numbers as .npz, without dates or versions."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    paths = []
    with matplotlib.rc_context(SETTINGS):
        # not by savefig, which draws everything twice: once for the layout, which a drawing does
        with atomic_write(svg := folder / f"{name}.svg") as file:
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
        figure.dpi = PNG_DPI
        with atomic_write(png := folder / f"{name}.png") as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    paths = [svg, png]
    if numbers is not None:
        paths.append(folder / f"{name}.npz")
        with atomic_write(paths[-1]) as file:
            arrays: Any = numbers
            np.savez_compressed(file, **arrays)
    return paths
