"""A golden case of our own: every variant of the method against a slow reference.

The reference below is NumPy in float64 with scikit-learn's DBSCAN and SciPy's median, written from
the paper and the description of the released code, and shares no line with the package. The model
is random with a fixed seed, the picture has a few flat shapes, so that clusters form.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from scipy.ndimage import median_filter
from sklearn.cluster import DBSCAN

from cliptrase.evaluate.graph import Graph, Text
from cliptrase.model.load import Clip

PATCH, WIDTH, HEADS, LAYERS, EMBED = 8, 48, 3, 12, 32
TRAINED, ROWS, COLUMNS = 7, 9, 10  # trained on 7 × 7 patches, tested on 9 × 10
CLASSES, WORDS = 5, 8  # 5 classes and 3 background words

CLIPTRASE: dict[str, Any] = {
    "attention": {
        "kind": "softmax", "terms": ["qq", "kk", "vv"], "first_block": 12, "last_block": 12,
        "residual": True, "ffn": True,
    },
    "regions": {
        "correlation": {"block": 11, "kind": "cosine"}, "cluster": "rows", "denoise": "cls",
        "eps": None, "min_samples": 3, "upsample": 4, "median": 7, "vote": "hard",
    },
    "cls_logits": False,
}  # fmt: skip


def variant(changes: dict[str, Any]) -> dict[str, Any]:
    method = copy.deepcopy(CLIPTRASE)
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = method
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return method


VARIANTS: dict[str, dict[str, Any]] = {
    "cliptrase": {},
    "cls logits": {"cls_logits": True},
    "clip": {"attention.terms": ["qk"], "regions": None},
    "sclip": {"attention.terms": ["qq", "kk"], "regions": None},
    "+SCR": {"regions.vote": "none"},
    "+PC": {"regions.denoise": "none"},
    "inner product": {"regions.correlation.kind": "inner_product"},
    "features": {"regions.cluster": "features"},
    "block 12": {"regions.correlation.block": 12},
    "layer 9": {"attention.first_block": 9},
    "layer 9, direct": {"attention.first_block": 9, "attention.last_block": 9},
    "layer 11, direct, qk": {
        "attention.terms": ["qk"], "attention.first_block": 11, "attention.last_block": 11,
    },
    "cosine attention": {"attention.kind": "cosine", "cls_logits": True},
    "inner product attention": {"attention.kind": "inner_product", "attention.first_block": 11},
    "no residual": {"attention.residual": False},
    "no FFN": {"attention.ffn": False, "attention.residual": False, "attention.first_block": 10},
    "other filter": {"regions.upsample": 3, "regions.median": 5, "regions.min_samples": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(11)
    model = CLIP(
        EMBED,
        {
            "image_size": TRAINED * PATCH, "layers": LAYERS, "width": WIDTH,
            "head_width": WIDTH // HEADS, "patch_size": PATCH,
        },
        {"width": 16, "heads": 1, "layers": 1},
        quick_gelu=True,
    ).eval().requires_grad_(False)  # fmt: skip
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 1.5 if "in_proj" in name else 0.5
            parameter.copy_(noise * gain * parameter.shape[-1] ** -0.5)
        else:
            parameter.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    model.visual.conv1.weight.mul_(1.5)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "random", mean, std)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(2, 3, H, W) float32: flat shapes with a little noise."""
    rng = np.random.default_rng(5)
    out = np.empty((2, 3, ROWS * PATCH, COLUMNS * PATCH))
    for image in out:
        image[:] = rng.normal(0, 1, (3, 1, 1))
        for _ in range(4):
            top, left = rng.integers(0, ROWS * PATCH - 24), rng.integers(0, COLUMNS * PATCH - 24)
            image[:, top : top + 32, left : left + 24] = rng.normal(0, 1.5, (3, 1, 1))
        image += rng.normal(0, 0.05, image.shape)
    return out.astype(np.float32)


@pytest.fixture(scope="module")
def text(clip, pixels) -> np.ndarray:
    """(8, E) normalised: what sets eight far patches apart from the average one, and noise."""
    features = Reference(clip, pixels[0], np.eye(WORDS, EMBED), variant({"regions": None})).features
    apart = features - features.mean(axis=0)
    chosen = [int(np.linalg.norm(apart, axis=1).argmax())]
    while len(chosen) < WORDS:
        nearest = (unit(apart) @ unit(apart[chosen]).T).max(axis=1)
        chosen.append(int(nearest.argmin()))
    noise = np.random.default_rng(6).normal(0, 0.5 / EMBED**0.5, (WORDS, EMBED))
    return unit(unit(apart[chosen]) + noise).astype(np.float32)


# ---------------------------------------------------------------- the reference


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


def positions(trained: np.ndarray) -> np.ndarray:
    """The released code's resize: the given scale, (h + 0.1) / h0, sets where it samples."""
    grid = trained[1:].reshape(TRAINED, TRAINED, -1)
    resized = np.zeros((ROWS, COLUMNS, WIDTH))
    for row in range(ROWS):
        y = (row + 0.5) * TRAINED / (ROWS + 0.1) - 0.5
        for column in range(COLUMNS):
            x = (column + 0.5) * TRAINED / (COLUMNS + 0.1) - 0.5
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    source = grid[min(max(i, 0), TRAINED - 1), min(max(j, 0), TRAINED - 1)]
                    resized[row, column] += cubic(y - i) * cubic(x - j) * source
    return np.concatenate([trained[:1], resized.reshape(ROWS * COLUMNS, -1)])


def tokens_of(visual: Any, image: np.ndarray) -> np.ndarray:
    kernel = array(visual.conv1.weight)
    patches = [
        np.einsum("ochw,chw->o", kernel, image[:, r : r + PATCH, c : c + PATCH])
        for r in range(0, ROWS * PATCH, PATCH)
        for c in range(0, COLUMNS * PATCH, PATCH)
    ]
    x = np.stack([array(visual.class_embedding), *patches])
    return layer_norm(x + positions(array(visual.positional_embedding)), visual.ln_pre)


def heads_of(block: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """q, k, v: (heads, L, d)."""
    joint = layer_norm(x, block.ln_1) @ array(block.attn.in_proj_weight).T
    joint = joint + array(block.attn.in_proj_bias)
    split = [part.reshape(len(x), HEADS, -1).transpose(1, 0, 2) for part in np.split(joint, 3, 1)]
    return dict(zip("qkv", split, strict=True))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def run_block(
    block: Any, x: np.ndarray, kind: str, terms: list[str], residual: bool, ffn: bool
) -> np.ndarray:
    parts = heads_of(block, x)
    scale = (WIDTH // HEADS) ** -0.5
    attention = np.zeros((HEADS, len(x), len(x)))
    for first, second in terms:
        a, b = parts[first], parts[second]
        if kind == "softmax":
            scores = np.exp(scale * a @ b.transpose(0, 2, 1))
            attention += scores / scores.sum(axis=-1, keepdims=True)
        elif kind == "cosine":
            attention += (unit(a) @ unit(b).transpose(0, 2, 1)).mean(axis=0)
        else:
            attention += (a @ b.transpose(0, 2, 1)).mean(axis=0)
    if kind != "softmax":
        attention /= np.abs(attention).sum(axis=-1, keepdims=True)
    mixed = (attention @ parts["v"]).transpose(1, 0, 2).reshape(len(x), WIDTH)
    out = mixed @ array(block.attn.out_proj.weight).T + array(block.attn.out_proj.bias)
    out = out + x if residual else out
    if ffn:
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


class Reference:
    """Everything of one image and method, in the order of the paper's section 4."""

    def __init__(self, clip: Clip, image: np.ndarray, text: np.ndarray, method: dict[str, Any]):
        visual = clip.visual
        blocks = visual.transformer.resblocks
        entering = [tokens_of(visual, image)]
        for block in blocks:
            entering.append(run_block(block, entering[-1], "softmax", ["qk"], True, True))
        a = method["attention"]
        x = entering[a["first_block"] - 1]
        for number in range(a["first_block"], a["last_block"] + 1):
            x = run_block(blocks[number - 1], x, a["kind"], a["terms"], a["residual"], a["ffn"])
        self.features = unit(layer_norm(x, visual.ln_post) @ array(visual.proj))
        cosines = self.features @ text.astype(float).T
        logits = 100 * cosines[1:].T
        if method["cls_logits"]:
            logits = logits * (100 * cosines[0])[:, None]
        self.logits = bilinear(logits.reshape(WORDS, ROWS, COLUMNS), image.shape[1:])
        self.before = np.minimum(self.logits.argmax(axis=0), CLASSES)
        r = method["regions"]
        self.votes = self.votes_in(method)
        if not self.votes:
            return
        block = r["correlation"]["block"]
        parts = heads_of(blocks[block - 1], entering[block - 1])
        if r["correlation"]["kind"] == "cosine":
            parts = {key: unit(part) for key, part in parts.items()}
        self.w = np.mean([part @ part.transpose(0, 2, 1) for part in parts.values()], axis=(0, 1))
        m = self.w[1:, 1:]
        if r["denoise"] == "cls":
            m = np.maximum(m - self.w[0, 1:], 0)
        clustered = self.features[1:] if r["cluster"] == "features" else m
        self.eps = r["eps"] or gap(clustered)
        found = DBSCAN(eps=self.eps, min_samples=r["min_samples"]).fit(clustered.astype(np.float32))
        self.labels = found.labels_
        self.maps = []
        for cluster in range(self.labels.max() + 1):
            mean = m[self.labels == cluster].mean(axis=0).reshape(ROWS, COLUMNS)
            fine = bilinear(mean, (ROWS * r["upsample"], COLUMNS * r["upsample"]))
            fine = median_filter(fine, size=r["median"])  # SciPy's default mode, "reflect"
            self.maps.append(bilinear(fine, image.shape[1:]))

    @staticmethod
    def votes_in(method: dict[str, Any]) -> bool:
        return method["regions"] is not None and method["regions"]["vote"] == "hard"


def gap(rows: np.ndarray) -> float:
    """An eps that no distance is near, with about a fifteenth of the pairs inside it."""
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    ordered = np.sort(distances[np.triu_indices(len(rows), 1)])
    few = ordered[len(ordered) // 20 : len(ordered) // 12]
    widest = np.argmax(np.diff(few))
    return float(few[widest : widest + 2].mean())


def vote(classes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    out = classes.copy()
    for region in np.unique(regions):
        counts = Counter(classes[regions == region].tolist())
        out[regions == region] = min(counts, key=lambda c: (-counts[c], c))
    return out


# ---------------------------------------------------------------- the comparison


def equal_but_for_ties(ours: torch.Tensor, scores: np.ndarray, folded: int | None = None) -> None:
    """`ours` is the argmax of `scores` wherever the two best are more than 1e-4 apart."""
    best = np.sort(scores, axis=0)
    clear = np.ones(ours.shape, bool) if len(scores) == 1 else best[-1] - best[-2] > 1e-4
    expected = scores.argmax(axis=0)
    expected = expected if folded is None else np.minimum(expected, folded)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ours.numpy()[clear], expected[clear])


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(clip, pixels, text, name):
    method = variant(VARIANTS[name])
    reference = Reference(clip, pixels[0], text, method)
    if reference.votes:
        method["regions"]["eps"] = reference.eps
    elif method["regions"] is not None:
        method["regions"]["eps"] = 0.7
    graph = Graph(clip, torch.from_numpy(pixels[:1]))
    words = Text(torch.from_numpy(text), CLASSES, background=True)
    ours = graph.prediction(method, words, "words", 100.0)[0]
    close = {"atol": 1e-4, "rtol": 0}
    np.testing.assert_allclose(graph.patches(method)[0], reference.features[1:], **close)
    np.testing.assert_allclose(graph.cls(method)[0], reference.features[0], **close)
    plain = graph.prediction({**method, "regions": None}, words, "words", 100.0)[0]
    equal_but_for_ties(plain, reference.logits, CLASSES)
    assert len(np.unique(plain)) > 1
    if not reference.votes:
        assert torch.equal(ours, plain)
        return
    correlation = method["regions"]["correlation"]
    np.testing.assert_allclose(graph.correlation(**correlation)[0], reference.w, **close)
    np.testing.assert_array_equal(graph.clusters(method)[0], reference.labels)
    assert reference.labels.max() > 0 and (reference.labels == -1).any()
    regions = graph.regions(method)[0]
    equal_but_for_ties(regions, np.stack(reference.maps))
    np.testing.assert_array_equal(ours, vote(plain.numpy(), regions.numpy()))
    assert (ours != plain).any()


def test_the_variants_are_different_methods(clip, pixels, text):
    """So that a key that is ignored cannot pass for one that works."""
    words = Text(torch.from_numpy(text), CLASSES, background=True)
    seen = {}
    for name, changes in VARIANTS.items():
        method = variant(changes)
        graph = Graph(clip, torch.from_numpy(pixels))
        if method["regions"] is not None:
            m = graph.patch_rows(method["regions"])[0].numpy()
            rows = graph.patches(method)[0].numpy() if name == "features" else m
            method["regions"]["eps"] = gap(rows)
        results = [graph.patches(method), graph.prediction(method, words, "words", 100.0)]
        if Reference.votes_in(method):
            results.append(graph.regions(method))
        seen[b"".join(result.numpy().tobytes() for result in results)] = name
    assert len(seen) == len(VARIANTS)
