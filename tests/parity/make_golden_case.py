"""Writes golden_case.npz: what the slow oracle computes of the random model and its picture.

    PYTHONPATH=src:tests/oracles:. python tests/parity/make_golden_case.py [FILE]

Nothing of it is computed by the package, which is held to it by test_golden_case.py. Remake it only
where golden_case.py changes; it refuses a case whose integer maps float rounding could change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from slow_reference import CLASSES, COLUMNS, PATCH, ROWS, WORDS, Reference, unit, vote
from tests.objects import changed
from tests.parity.golden_case import checksum, make_clip, make_pixels, make_text

from cliptrase.config.method import Method

FILE = Path(__file__).with_name("golden_case.npz")
PLAIN: dict[str, Any] = {
    "first_block": 12, "last_block": 12, "residual": True, "ffn": True, "omega": None,
    "heads": "mean",
}  # fmt: skip
WRITTEN: dict[str, dict[str, Any]] = {  # eps: not used, the oracle's `gap` is stored
    "cliptrase": {
        "attention": {"kind": "softmax", "terms": ["qq", "kk", "vv"], "row_sum": "none", **PLAIN},
        "regions": {
            "correlation": {"block": 11, "kind": "cosine", "heads": "mean"}, "cluster": "rows",
            "l2_rows": False, "denoise": "cls", "passes": 1, "eps": 1.0, "min_samples": 3,
            "upsample": 4, "median": 7, "vote": "hard",
        },
        "cls_logits": False,
    },
    "cliptrase_paper": {
        "attention": {"kind": "cosine", "terms": ["qq", "kk", "vv"], "row_sum": 1, **PLAIN},
        "regions": {
            "correlation": {"block": 12, "kind": "cosine", "heads": "mean"}, "cluster": "rows",
            "l2_rows": True, "denoise": "eq7", "passes": 2, "eps": 1.0, "min_samples": 3,
            "upsample": 1, "median": 1, "vote": "hard",
        },
        "cls_logits": False,
    },
}  # fmt: skip
METHODS = {name: Method.model_validate({"name": name, **parts}) for name, parts in WRITTEN.items()}
IGNORED = 255


def truth() -> np.ndarray:
    """(H, W) uint8: bands of every class, a frame that is not scored."""
    rows, columns = np.indices((ROWS * PATCH, COLUMNS * PATCH))
    labels = ((rows + 2 * columns) // 17 % (CLASSES + 1)).astype(np.uint8)
    labels[:3], labels[:, -5:] = IGNORED, IGNORED
    return labels


def counted(labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    for true, predicted in zip(labels.ravel(), prediction.ravel(), strict=True):
        if true != IGNORED:
            matrix[true, predicted] += 1
    return matrix


def margin(maps: np.ndarray) -> float:
    ordered = np.sort(maps, axis=0)
    return float((ordered[-1] - ordered[-2]).min())


def computed(clip: Any, pixels: np.ndarray, text: np.ndarray, name: str) -> dict[str, np.ndarray]:
    method = METHODS[name]
    reference = Reference(clip, pixels, text, method, fit_eps=True)
    maps = np.stack(reference.maps)
    rows = reference.w[1:, 1:]
    if method.regions.denoise == "cls":
        rows = np.maximum(rows - reference.w[0, 1:], 0)
    rows = unit(rows) if method.regions.l2_rows else rows
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    names = np.stack([*reference.logits[:CLASSES], reference.logits[CLASSES:].max(axis=0)])
    margins = {
        "eps": float(abs(distances - reference.eps).min()),
        "regions": margin(maps),
        "classes": margin(names),
    }
    print(name, len(maps), "regions;", ", ".join(f"{k} {v:.1e}" for k, v in margins.items()))
    if min(margins["eps"], margins["regions"]) < 1e-5 or margins["classes"] < 1e-4:
        raise SystemExit("values tie too closely: another SEED in golden_case.py")
    regions = maps.argmax(axis=0)
    prediction = vote(reference.before, regions)
    logits = 100 * text.astype(float) @ reference.features[1:].T
    return {
        "patch_features": reference.features[1:].astype(np.float32),
        "cls_feature": reference.features[0].astype(np.float32),
        "correlation": reference.w.astype(np.float32),
        "patch_logits": logits.reshape(WORDS, ROWS, COLUMNS).astype(np.float32),
        "eps": np.array(reference.eps),
        "cluster_labels": reference.labels.astype(np.int8),
        "regions": regions.astype(np.int8),
        "prediction_before_vote": reference.before.astype(np.uint8),
        "prediction": prediction.astype(np.uint8),
        "confusion": counted(truth(), prediction),
    }


def main(path: Path) -> None:
    clip, pixels = make_clip(), make_pixels()[0]
    text = make_text(clip, pixels, changed(METHODS["cliptrase"], {"regions": None}))
    out = {
        "weights": np.array(checksum(clip)),
        "pixels": pixels,
        "text_features": text,
        "truth": truth(),
    }
    for name in METHODS:
        for key, value in computed(clip, pixels, text, name).items():
            out[f"{name}/{key}"] = value
    np.savez_compressed(path, **out)  # type: ignore[arg-type]
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
