"""How figures look, and how they are written: the same bytes from the same numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cliptrase.files import atomic_write

INK, GREY, PALE = "#24292f", "#8c959f", "#eaeef2"
ACCENT = "#d1242f"
# baseline, rival, ours, …
ROWS = ("#a9b4c0", "#4c9bd6", "#e8743b", "#54a24b", "#9467bd", "#8c6d31")
SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
    "font.size": 9.5,
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


def image_grid(
    rows: int, heads: Sequence[str], font: float, size: tuple[float, float], title: str
) -> tuple[Figure, NDArray[Any]]:
    """A figure of images in rows under `heads`, of this font size, and its axes (rows, columns)."""
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, len(heads), squeeze=False)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, head in zip(grid[0], heads, strict=True):
        ax.set_title(head, fontsize=font, fontweight="bold", loc="center")
    figure.suptitle(title, fontsize=8.5, color=GREY, x=0.01, ha="left")
    return figure, grid


def caption(axes: Axes, title: str, about: str, above: float = 0.0) -> None:
    """A bold title and a grey line below it, `above` the axes (in axes heights)."""
    axes.set_title(f"{title}\n", fontsize=11, fontweight="bold", pad=8 + 180 * above)
    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(about, (0, 1), xytext=(0, 8 + 180 * above), fontsize=8.5, color=GREY, **place)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write <folder>/<name>.svg and .png, whole, without dates or versions."""
    kinds: Any = {"svg": {"metadata": {"Date": None, "Creator": None}}}
    kinds |= {"png": {"metadata": {"Software": None}, "dpi": PNG_DPI}}
    paths = []
    for kind, options in kinds.items():
        path = folder / f"{name}.{kind}"
        with matplotlib.rc_context(SETTINGS), atomic_write(path) as file:
            figure.savefig(file, format=kind, **options)
        paths.append(path)
    return paths
