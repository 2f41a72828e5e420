"""The pictures of a page: which are chosen, the file that keeps them, what the page says of them.

Loads no torch: `predict_pictures` makes the file.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptrase.errors import UserError
from cliptrase.files import atomic_write, sha256_text
from cliptrase.publish.run_folders import Facts
from cliptrase.runs import finished
from cliptrase.runs.label_files import GREY, PAPER, colours, labels_png

EACH = 4  # pictures that are best, worst, and drawn
DRAWN = "2026"  # what draws: the seed before an image's id
STEPS = 255  # of a quantised number
NO_CLASS = -1
BEST, WORST, BY_LOT = "best", "worst", "drawn"


@dataclass(frozen=True, eq=False)
class Kept:
    """The pictures of one benchmark, P of them, of H × W pixels and N patches, seen by R runs.

    about: what JSON holds of them: `benchmark`, `runs` (row, run, sha256 of its counts by image),
    `names`, `background`, `pictures` (id, why it was chosen, each run's own mIoU).
    attention: of the last block, mean over heads, shares of `attention_top` of each picture in
    STEPS. correlation: of block 11, −1..1 in STEPS.
    """

    about: Facts
    pixels: NDArray[np.uint8]  # (P, H, W, 3)
    truth: NDArray[np.int16]  # (P, H, W), NO_CLASS where nothing is scored
    maps: NDArray[np.int16]  # (R, P, H, W)
    attention: NDArray[np.uint8]  # (P, N, N), from each patch to all
    attention_top: NDArray[np.float32]  # (P,)
    correlation: NDArray[np.uint8]  # (P, N, N)


def chosen(ids: list[str], by_image: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Positions of the pictures of a page, each with why: EACH that are best, EACH worst, by
    their own mIoU in `by_image` (NaN: none), and of the others EACH drawn by a fixed seed."""
    scored = [int(place) for place in np.flatnonzero(~np.isnan(by_image))]
    ranked = sorted(scored, key=lambda place: -by_image[place])
    best = ranked[:EACH]
    worst = ranked[EACH:][::-1][:EACH]
    others = [place for place in scored if place not in {*best, *worst}]
    drawn = sorted(others, key=lambda place: sha256_text(f"{DRAWN} {ids[place]}"))[:EACH]
    kinds = ((BEST, best), (WORST, worst), (BY_LOT, drawn))
    return [(place, why) for why, places in kinds for place in places]


def file_of(results: Path, suite: str, benchmark: str) -> Path:
    """Where the pictures of a benchmark are kept."""
    return results / suite / "pictures" / f"{benchmark}.npz"


def write(path: Path, kept: Kept) -> None:
    """Write the file, whole."""
    arrays = {key: value for key, value in vars(kept).items() if key != "about"}
    with atomic_write(path) as file:
        np.savez_compressed(file, about=np.array(json.dumps(kept.about)), **arrays)


def read(path: Path) -> Kept:
    """Raises UserError for a file that is missing or damaged."""
    if not path.is_file():
        raise UserError("none are kept; `cliptrase pictures SUITE` keeps them")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
            return Kept(json.loads(str(arrays.pop("about"))), **arrays)
    except Exception as error:  # what NumPy, zlib and JSON raise
        raise UserError(f"{path.name} is damaged; `cliptrase pictures SUITE` makes it") from error


def counts_digest(folder: Path) -> str:
    """sha256 of a run's counts by image, as its provenance says."""
    made = finished.read_provenance(folder)
    return str((made.get("files") or {}).get(finished.PREDICTED[1]))


def shown(results: Path, suite: str, benchmark: str, folders: Mapping[str, Path]) -> Facts:
    """What the page says of a benchmark's pictures; `folders`: of the finished runs, by name.

    Without pictures, `gone` is the reason.
    """
    try:
        kept = read(file_of(results, suite, benchmark))
    except UserError as error:
        return {"benchmark": benchmark, "gone": str(error), "pictures": []}
    for each in kept.about["runs"]:
        folder = folders.get(each["run"])
        if folder is None or counts_digest(folder) != each["counts"]:
            gone = "those that are kept are of other runs; `cliptrase pictures SUITE` keeps them"
            return {"benchmark": benchmark, "gone": gone, "pictures": []}
    return {
        "benchmark": benchmark,
        "gone": "",
        "runs": [{"row": each["row"], "run": each["run"]} for each in kept.about["runs"]],
        "names": kept.about["names"],
        "colours": _colours(kept).tolist(),
        "grid": kept.about["grid"],
        "size": kept.truth.shape[1:],
        "pictures": list(_pictures(kept)),
    }


def less_thumbs(benchmark: Facts) -> Facts:
    """The same for the script, less what stands in the page itself."""
    pictures = [
        {key: value for key, value in picture.items() if key not in ("picture", "classes")}
        for picture in benchmark["pictures"]
    ]
    return benchmark | {"pictures": pictures}


def _colours(kept: Kept) -> NDArray[np.uint8]:
    table = colours(len(kept.about["names"]))
    if kept.about["background"] is not None:
        table[kept.about["background"]] = GREY
    return table


def _pictures(kept: Kept) -> Iterator[Facts]:
    table, names = _colours(kept), kept.about["names"]
    for place, about in enumerate(kept.about["pictures"]):
        labels = [kept.truth[place], *kept.maps[:, place]]
        sizes = np.bincount(kept.truth[place][kept.truth[place] >= 0], minlength=len(names))
        yield about | {
            "picture": _uri(Image.fromarray(kept.pixels[place]), "JPEG", quality=90),
            "maps": [_coloured(each, table) for each in labels],
            "classes": [int(each) for each in np.argsort(-sizes, kind="stable") if sizes[each]],
            "seen": sorted({int(each) for each in np.unique(labels) if each >= 0}),
            "attention": _uri(Image.fromarray(kept.attention[place]), "PNG", optimize=True),
            "top": float(kept.attention_top[place]),
            "correlation": _uri(Image.fromarray(kept.correlation[place]), "PNG", optimize=True),
        }


def _coloured(labels: NDArray[np.int16], table: NDArray[np.uint8]) -> str:
    """A label map (H, W) as a PNG in the colours of its classes, white where there is none."""
    if len(table) <= STEPS:
        return _address("png", labels_png(np.where(labels < 0, STEPS, labels), len(table), table))
    return _uri(Image.fromarray(np.vstack([table, PAPER]).astype(np.uint8)[labels]), "PNG")


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return _address(kind.lower(), file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
