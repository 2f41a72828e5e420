"""What `cliptrase segment` writes of a picture: labels, a report, and an overlay for people."""

import functools
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cliptrase.errors import UserError
from cliptrase.runs.label_files import GREY, PAPER, colours, is_writable, layout, with_legend

if TYPE_CHECKING:
    from cliptrase.segmenter import Segmentation, Segmenter

log = logging.getLogger(__name__)
STRENGTH = 0.55  # how much of a pixel is its class's colour
LEGEND_LIMIT = 40  # entries; what is left becomes "and N more"
SIDES = {"WEBP": 16_383, "JPEG": 65_500}  # the most pixels that a side of such a file can have


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
    page = layout(size[0], texts, count)
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
        table[background] = GREY
    painted[_borders(labels, width=1 + min(labels.shape) // 400)] = PAPER
    body = Image.fromarray(painted.clip(0, 255).astype(np.uint8))
    return with_legend(body, _entries(labels, names), table)


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
        if not is_writable(names[i]):
            _say_unwritable(i, names[i])
    return listed


def _entry(label: int, name: str, share: float) -> str:
    """A line of the legend; the number of the label in the place of what no font here can write."""
    if not is_writable(name):
        name = f"#{label}"
    return f"{name}  {100 * share:.1f} %"


@functools.cache  # once a name
def _say_unwritable(label: int, name: str) -> None:
    log.warning(
        "overlay: no font on this machine has all of %r; its legend shows #%d, the number of the "
        "label; install one that has, as Noto Sans CJK or Noto Emoji",
        name,
        label,
    )
