"""CLIPtrase and its options, slowly: NumPy in float64, scikit-learn's DBSCAN, SciPy's median.

Written from the paper and the description of the released code; shares no line with the package.
Takes any ViT of open_clip with square patches; the constants are the shape of the small random one.
"""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from sklearn.cluster import DBSCAN

PATCH, WIDTH, HEADS, LAYERS, EMBED = 8, 48, 3, 12, 32
TRAINED, ROWS, COLUMNS = 7, 9, 10  # trained on 7 × 7 patches, tested on 9 × 10
CLASSES, WORDS = 5, 8  # 5 classes and 3 background words


def layer_norm(x: np.ndarray, ln: Any) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + ln.eps)
    return x * array(ln.weight) + array(ln.bias)


def array(parameter: Any) -> np.ndarray:
    return parameter.detach().double().numpy()


def cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def positions(trained: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The released code's resize: the given scale, (h + 0.1) / h0, sets where it samples."""
    side = math.isqrt(len(trained) - 1)
    if rows == columns == side:
        return trained
    grid = trained[1:].reshape(side, side, -1)
    resized = np.zeros((rows, columns, grid.shape[2]))
    for row in range(rows):
        y = (row + 0.5) * side / (rows + 0.1) - 0.5
        for column in range(columns):
            x = (column + 0.5) * side / (columns + 0.1) - 0.5
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    source = grid[min(max(i, 0), side - 1), min(max(j, 0), side - 1)]
                    resized[row, column] += cubic(y - i) * cubic(x - j) * source
    return np.concatenate([trained[:1], resized.reshape(rows * columns, -1)])


def grid_of(visual: Any, image: np.ndarray) -> tuple[int, int]:
    """Rows and columns of patches."""
    side = visual.conv1.weight.shape[-1]
    return image.shape[1] // side, image.shape[2] // side


def tokens_of(visual: Any, image: np.ndarray) -> np.ndarray:
    kernel = array(visual.conv1.weight)
    (rows, columns), side = grid_of(visual, image), kernel.shape[-1]
    patches = [
        np.einsum("ochw,chw->o", kernel, image[:, r : r + side, c : c + side])
        for r in range(0, rows * side, side)
        for c in range(0, columns * side, side)
    ]
    x = np.stack([array(visual.class_embedding), *patches])
    trained = array(visual.positional_embedding)
    return layer_norm(x + positions(trained, rows, columns), visual.ln_pre)


def heads_of(block: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """q, k, v: (heads, L, d)."""
    joint = layer_norm(x, block.ln_1) @ array(block.attn.in_proj_weight).T
    joint = joint + array(block.attn.in_proj_bias)
    by_head = joint.reshape(len(x), 3, block.attn.num_heads, -1).transpose(1, 2, 0, 3)
    return dict(zip("qkv", by_head, strict=True))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def alike(a: np.ndarray, b: np.ndarray, kind: str, heads: str) -> np.ndarray:
    """(L, L) of two (heads, L, d)."""
    if heads == "concatenated":
        a, b = np.concatenate(list(a), axis=1)[None], np.concatenate(list(b), axis=1)[None]
    if kind == "cosine":
        a, b = unit(a), unit(b)
    return np.mean([np.einsum("id,jd->ij", x, y) for x, y in zip(a, b, strict=True)], axis=0)


def run_block(block: Any, x: np.ndarray, a: Any) -> np.ndarray:
    parts = heads_of(block, x)
    heads, _, width = parts["q"].shape
    scale = width**-0.5
    attention = np.zeros((heads, len(x), len(x)))
    for first, second in a.terms:
        if a.kind == "softmax":
            scores = scale * parts[first] @ parts[second].transpose(0, 2, 1)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            attention += scores / scores.sum(axis=-1, keepdims=True)
        else:
            shared = alike(parts[first], parts[second], a.kind, a.heads)
            attention += shared / len(a.terms)
    if a.row_sum != "none":
        attention *= a.row_sum / np.abs(attention).sum(axis=-1, keepdims=True)
    mixed = (attention @ parts["v"]).transpose(1, 0, 2).reshape(len(x), heads * width)
    out = mixed @ array(block.attn.out_proj.weight).T + array(block.attn.out_proj.bias)
    out = out + x if a.residual else out
    if a.ffn:
        hidden = layer_norm(out, block.ln_2) @ array(block.mlp.c_fc.weight).T
        hidden = hidden + array(block.mlp.c_fc.bias)
        hidden = hidden / (1 + np.exp(-1.702 * hidden))
        out = out + hidden @ array(block.mlp.c_proj.weight).T + array(block.mlp.c_proj.bias)
    return out


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(…, h, w) → (…, *size), align_corners=False."""
    for axis, new in ((-2, size[0]), (-1, size[1])):
        old = image.shape[axis]
        place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.minimum(place.astype(int), old - 1)
        matrix = np.zeros((new, old))
        np.add.at(matrix, (np.arange(new), low), 1 - (place - low))
        np.add.at(matrix, (np.arange(new), np.minimum(low + 1, old - 1)), place - low)
        image = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
    return image


PLAIN = SimpleNamespace(kind="softmax", terms=("qk",), residual=True, ffn=True, row_sum="none")


class Reference:
    """Everything of one image and method, in the order of the paper's section 4."""

    def __init__(
        self,
        clip: Any,
        image: np.ndarray,
        text: np.ndarray,
        method: Any,
        fit_eps: bool = False,
        classes: int = CLASSES,
    ):
        """fit_eps: cluster with an eps that no distance is near, not the method's. classes: names
        of `text` before the words for the background."""
        visual = clip.visual
        rows, columns = grid_of(visual, image)
        blocks = visual.transformer.resblocks
        entering = [tokens_of(visual, image)]
        for block in blocks:
            entering.append(run_block(block, entering[-1], PLAIN))
        a = method.attention
        x = entering[a.first_block - 1]
        for number in range(a.first_block, a.last_block + 1):
            x = run_block(blocks[number - 1], x, a)
        self.features = unit(layer_norm(x, visual.ln_post) @ array(visual.proj))
        cosines = self.features @ text.astype(float).T
        logits = 100 * cosines[1:].T
        if method.cls_logits:
            logits = logits * (100 * cosines[0])[:, None]
        self.logits = bilinear(logits.reshape(len(text), rows, columns), image.shape[1:])
        self.before = np.minimum(self.logits.argmax(axis=0), classes)
        r = method.regions
        self.votes = self.votes_in(method)
        if not self.votes:
            return
        c = r.correlation
        parts = heads_of(blocks[c.block - 1], entering[c.block - 1])
        self.w = np.mean([alike(p, p, c.kind, c.heads) for p in parts.values()], axis=0)
        m = self.w[1:, 1:]
        if r.denoise == "cls":
            m = np.maximum(m - self.w[0, 1:], 0)
        clustered = self.features[1:] if r.cluster == "features" else m
        if r.l2_rows:
            clustered = unit(clustered)
        self.eps = gap(clustered) if fit_eps else r.eps
        first = self.clustered(clustered, r)
        kept = np.ones(len(m), bool)
        if r.denoise == "eq7":
            kept = np.array([m[i].mean() - m[i, i] <= 1e-9 for i in range(len(m))])
        self.dropped = int((~kept).sum())
        if r.passes == 1:
            left = sorted(set(first[kept]) - {-1})
            self.labels = np.array(
                [left.index(c) if k and c >= 0 else -1 for c, k in zip(first, kept, strict=True)]
            )
        else:
            kept &= first >= 0
            self.labels = np.full(len(m), -1)
            self.labels[kept] = self.clustered(clustered[kept], r)
        self.maps = []
        for cluster in range(self.labels.max() + 1):
            mean = m[self.labels == cluster].mean(axis=0).reshape(rows, columns)
            fine = bilinear(mean, (rows * r.upsample, columns * r.upsample))
            fine = median_filter(fine, size=r.median)  # SciPy's default mode, "reflect"
            self.maps.append(bilinear(fine, image.shape[1:]))

    def clustered(self, rows: np.ndarray, r: Any) -> np.ndarray:
        if not len(rows):
            return np.zeros(0, int)
        found = DBSCAN(eps=self.eps, min_samples=r.min_samples).fit(rows.astype(np.float32))
        return found.labels_

    @staticmethod
    def votes_in(method: Any) -> bool:
        return method.regions is not None and method.regions.vote != "none"


def gap(rows: np.ndarray) -> float:
    """An eps that no distance is near, with about a fifteenth of the pairs inside it."""
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    ordered = np.sort(distances[np.triu_indices(len(rows), 1)])
    few = ordered[len(ordered) // 20 : len(ordered) // 12]
    widest = np.argmax(np.diff(few))
    return float(few[widest : widest + 2].mean())


def soft_vote(classes: np.ndarray, logits: np.ndarray, regions: np.ndarray) -> np.ndarray:
    out = classes.copy()
    for region in np.unique(regions):
        own = regions == region
        out[own] = min(int(logits[:, own].mean(axis=1).argmax()), CLASSES)
    return out


def vote(classes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    out = classes.copy()
    for region in np.unique(regions):
        counts = Counter(classes[regions == region].tolist())
        out[regions == region] = min(counts, key=lambda c: (-counts[c], c))
    return out
