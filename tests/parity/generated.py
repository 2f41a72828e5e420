"""Generated pictures on the parity model: what the slow oracle computes of them, in generated.npz.

    PYTHONPATH=src:tests/oracles:. python tests/parity/generated.py [FILE]

Two pictures at each size, with the released code's own text features (released/stages.npz): 20
classes with the [CLS] factor, 20 with background words, 171 and 150. Nothing of it is computed by
the package, which is held to it by test_generated.py. Where two values are so close that rounding
decides, the pixel is stored as not clear.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from slow_reference import Reference, vote
from tests.objects import changed, local_model
from tests.parity import parity_model
from tests.parity.golden_case import noise, uniform
from tests.parity.make_golden_case import METHODS

from cliptrase.config.method import Method
from cliptrase.model.load import load_clip

FILE = Path(__file__).with_name("generated.npz")
STAGES = Path(__file__).with_name("released") / "stages.npz"
DBSCAN = {
    224: {"regions.eps": 0.7, "regions.min_samples": 3},
    336: {"regions.eps": 1.1, "regions.min_samples": 7},
}
PICTURES = {224: (0, 1), 336: (0, 1)}
WORDS = {  # the released text features, and how many of the names are classes
    "voc20": ("2007_000346_voc20_224", 20),
    "voc21": ("2007_000661_voc21_336", 20),
    "coco_stuff": ("000000000139_coco_stuff_224", 171),
    "ade150": ("ADE_val_00000001_ade150_336", 150),
}
CASES = [
    (benchmark, size, index)
    for size, indices in PICTURES.items()
    for index in indices
    for benchmark in WORDS
]
CLEAR = 1e-3  # logits, 100 × cosine, this far apart are ordered alike in float32
CLEAR_EPS, CLEAR_REGION = 1e-5, 1e-4  # distances from eps, values of prototype maps


def picture(index: int, size: int) -> np.ndarray:
    """(3, size, size) float32: rectangles on a ground, with noise; the same bits everywhere."""
    name = f"picture {index}, {size} px"
    image = np.empty((3, size, size))
    image[:] = noise(f"{name}: ground", (3, 1, 1))
    for number in range(10):
        top, left = uniform(f"{name}: place {number}", (2,)) * 0.85 * size
        height, width = (0.1 + 0.4 * uniform(f"{name}: extent {number}", (2,))) * size
        rows, columns = slice(int(top), int(top + height)), slice(int(left), int(left + width))
        image[:, rows, columns] = 1.5 * noise(f"{name}: colour {number}", (3, 1, 1))
    return (image + 0.2 * noise(f"{name}: grain", image.shape)).astype(np.float32)


def text_features(benchmark: str) -> np.ndarray:
    """(names, E) float32, as the released code computed them."""
    with np.load(STAGES) as file:
        return file[f"{WORDS[benchmark][0]}/text_features"]


def method_of(benchmark: str, size: int) -> Method:
    """The released method."""
    return changed(METHODS["cliptrase"], DBSCAN[size] | {"cls_logits": benchmark == "voc20"})


def clear(values: np.ndarray, margin: float) -> np.ndarray:
    """Where the largest of values (n, H, W) is more than `margin` above the others."""
    if len(values) == 1:
        return np.ones(values.shape[1:], bool)
    second, first = np.partition(values, len(values) - 2, axis=0)[-2:]
    return first - second > margin


def computed(clip: Any, benchmark: str, size: int, index: int) -> dict[str, np.ndarray]:
    """What is stored of a case. Raises ValueError where rounding could change its clusters."""
    method, classes = method_of(benchmark, size), WORDS[benchmark][1]
    pixels, text = picture(index, size), text_features(benchmark)
    slow = Reference(clip, pixels, text, method, classes=classes)
    rows = np.maximum(slow.w[1:, 1:] - slow.w[0, 1:], 0)
    squared = (rows**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * rows @ rows.T, 0))
    if (near := np.abs(distances - slow.eps).min()) < CLEAR_EPS:
        raise ValueError(f"picture {index} at {size} px: a distance is {near:.1e} from eps")
    maps = np.stack(slow.maps)
    regions = maps.argmax(axis=0)
    logits = slow.logits[:classes]
    if len(slow.logits) > classes:
        logits = np.concatenate([logits, slow.logits[classes:].max(axis=0)[None]])
    scale = np.abs(logits).max() / 100  # with the [CLS] factor logits are larger
    clear_class, clear_region = clear(logits, CLEAR * scale), clear(maps, CLEAR_REGION)
    may_be, clear_vote = maps >= maps.max(axis=0) - CLEAR_REGION, clear_region.copy()
    for region in np.unique(regions):
        inside = regions == region
        counts = np.sort(np.bincount(slow.before[inside], minlength=2))
        unclear = (inside & ~clear_class) | (may_be[region] & ~clear_region)
        if counts[-1] - counts[-2] <= 2 * unclear.sum():
            clear_vote[inside] = False
    return {
        "cluster_labels": slow.labels.astype(np.int8),
        "regions": regions.astype(np.int8),
        "clear/regions": np.packbits(clear_region),
        "prediction_before_vote": slow.before.astype(np.uint8),
        "clear/prediction_before_vote": np.packbits(clear_class),
        "prediction": vote(slow.before, regions).astype(np.uint8),
        "clear/prediction": np.packbits(clear_vote),
    }


def main(path: Path) -> None:
    """Write all cases."""
    with tempfile.TemporaryDirectory() as folder:
        parity_model.write(Path(folder))
        clip = load_clip(local_model(folder))
    stored = {
        f"{benchmark} {size} {index}/{key}": value
        for benchmark, size, index in CASES
        for key, value in computed(clip, benchmark, size, index).items()
    }
    np.savez_compressed(path, **stored)  # type: ignore[arg-type]
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
