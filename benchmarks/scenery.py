"""What is timed: a model with random weights, pictures with realistic clusters, words, truths.

Speed does not need trained weights, but it needs the work that they would make. So pictures are
patchworks of 6 to 18 textures, and eps is set where it leaves as many patches noise as a trained
model's does. The counts of clusters and of classes that cannot be dropped are measured and written
beside the times.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from cliptrase import config
from cliptrase.config.method import Method
from cliptrase.config.method_regions import Regions
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.keys import clustering_key
from cliptrase.evaluate.protocols import Crop, Shown
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model import vision
from cliptrase.model.affinity import squared_distances
from cliptrase.model.load import Clip
from cliptrase.runs.counts import GroundTruth

SIZES = (224, 336)
CLASSES = (20, 171, 847)
NOISE = 0.45  # of the patches have no min_samples others within eps, at the released eps
NOISE_BY_EPS = 0.35  # how much that share falls while eps doubles
MODEL = "ViT-B-16-quickgelu"
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 6, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


@dataclass(frozen=True)
class Models:
    """The same weights, as CLIPtrase takes them and as open_clip takes them at each size."""

    clip: Clip
    encoders: dict[int, CLIP]  # by image size: `encode_image` is the bare encoder


def models(tiny: bool, device: str = "cpu", sizes: Sequence[int] = SIZES) -> Models:
    """ViT-B/16 (or a tiny ViT) with random weights, the same ones every time."""
    shape = TINY if tiny else open_clip.get_model_config(MODEL)
    torch.manual_seed(0)
    module = _clip(shape, sizes[0], shape["text_cfg"]).to(device)
    tokenizer = open_clip.get_tokenizer(MODEL)
    clip = Clip(module, tokenizer, torch.device(device), "random", MEAN, STD)
    encoders: dict[int, CLIP] = {sizes[0]: module}
    for size in sizes[1:]:
        encoder = _clip(shape, size, {**shape["text_cfg"], "layers": 1}).to(device)
        weights = dict(module.visual.state_dict())
        side = size // clip.patch
        weights["positional_embedding"] = vision.position_embedding(clip, side, side)
        encoder.visual.load_state_dict(weights)
        encoders[size] = encoder
    return Models(clip, encoders)


def _clip(shape: dict[str, Any], size: int, text: dict[str, Any]) -> CLIP:
    image = {**shape["vision_cfg"], "image_size": size}
    model = CLIP(shape["embed_dim"], vision_cfg=image, text_cfg=text, quick_gelu=True)
    return model.eval().requires_grad_(False)


@functools.cache
def patchwork(index: int, size: int, textures: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Picture (size, size, 3) uint8 and the number of the texture of each pixel (size, size) int64.

    `textures` of them, by default 6 to 18, in the cells of random points.
    """
    rng = np.random.default_rng([7, index])
    count = int(rng.integers(6, 19)) if textures is None else textures
    y, x = np.mgrid[:size, :size] / size
    points = rng.random((count, 2))
    away = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
    cell = away.argmin(axis=-1)
    colours = rng.random((count, 2, 3))
    angle, waves = rng.random(count) * np.pi, rng.choice([2, 5, 12, 28], count)
    along = x * np.cos(angle[cell]) + y * np.sin(angle[cell])
    mix = (0.5 + 0.5 * np.sin(2 * np.pi * waves[cell] * along))[..., None]
    rgb = colours[cell, 0] * mix + colours[cell, 1] * (1 - mix)
    rgb = np.clip(rgb + rng.normal(0, 0.06, rgb.shape), 0, 1)
    return (255 * rgb).astype(np.uint8), cell


@functools.cache
def words(names: int, width: int, device: str) -> torch.Tensor:
    """Text features (names, width) in random directions.

    They make more work than real words do: of 73 classes the embedded CLIP's logits let 73 % be
    dropped before they are upsampled, these let about 26 % of 171 and 36 % of 847.
    """
    drawn = torch.randn(names, width, generator=torch.Generator().manual_seed(names))
    return F.normalize(drawn, dim=-1).to(device)


def cliptrase_method(size: int) -> Method:
    """CLIPtrase at an image size, with its defaults."""
    return config.resolve(["benchmark=ade150", "method=cliptrase", f"image_size={size}"]).method


def with_eps(method: Method, eps: float) -> Method:
    """A copy of a method that has regions."""
    regions = method.regions.model_copy(update={"eps": eps})
    return method.model_copy(update={"regions": regions})


class Eps:
    """eps for random weights: where it leaves the share of noise that the released one should."""

    def __init__(self, clip: Clip, size: int, pictures: int) -> None:
        drawn = [patchwork(index, size)[0] for index in range(pictures)]
        self.size, self.patches = size, (size // clip.patch) ** 2
        self._graphs = [Graph(clip, clip.normalise(picture[None])) for picture in drawn]
        self._reaches: dict[Any, np.ndarray] = {}  # sorted distances to the last needed neighbour

    @torch.inference_mode()
    def fitted(self, method: Method) -> Method:
        """`method` with another eps, where it has one."""
        regions = method.regions
        if regions is None:
            return method
        usual, needed = config.dbscan_defaults(self.patches)
        key = (clustering_key(method, regions).rows, needed)
        if key not in self._reaches:
            distances = [
                squared_distances(_clustered(graph, method, regions))[0] for graph in self._graphs
            ]
            reach = [squared.sqrt().sort(dim=1).values[:, needed - 1] for squared in distances]
            self._reaches[key] = np.sort(torch.cat(reach).cpu().numpy())
        share = NOISE - NOISE_BY_EPS * (regions.eps / usual - 1)
        eps = _clear_quantile(self._reaches[key], 1 - min(max(share, 0.05), 0.95))
        return with_eps(method, eps)


def _clustered(graph: Graph, method: Method, regions: Regions) -> torch.Tensor:
    """The vectors (1, N, …) that `method` clusters."""
    if regions.cluster == "features":
        return graph.patches(method)
    rows = graph.patch_rows(regions)
    return F.normalize(rows, dim=-1) if regions.l2_rows else rows


def _clear_quantile(values: np.ndarray, share: float) -> float:
    """A number that about `share` of sorted `values` are below, in the widest gap near there: two
    ways to compute distances then agree about who is within it."""
    first = min(max(int(share * len(values)) - 10, 0), len(values) - 2)
    near = values[first : first + 21]
    gap = int(np.diff(near).argmax())
    return float(near[gap] + near[gap + 1]) / 2


@dataclass(frozen=True)
class Patchworks(Loader):
    """Pictures that are in memory already, with one ground truth for each key and K."""

    loaded: tuple[Loaded, ...] = ()

    @classmethod
    def draw(cls, size: int, indices: Sequence[int], classes: dict[str, int]) -> Patchworks:
        """`classes`: K by key of a ground truth."""
        loaded = []
        for position, index in enumerate(indices):
            pixels, texture = patchwork(index, size)
            truths: dict[str, GroundTruth | None] = {
                key: GroundTruth.of((texture * 7 + index) % k, k) for key, k in classes.items()
            }
            loaded.append(Loaded(position, Shown(pixels, (size, size)), truths))
        return cls([], "patchworks", Crop(size), {}, loaded=tuple(loaded))

    def __call__(self, position: int) -> Loaded:
        return self.loaded[position]


def job(method: Method, clip: Clip, classes: int, owner: Sequence[int] = ()) -> Job:
    """`method` with random words, scored in the ground truth of key str(classes).

    `owner`: the class of each name, where classes have several.
    """
    features = words(len(owner) or classes, clip.embed_dim, str(clip.device))
    owners = torch.tensor(owner or range(classes), device=clip.device)
    key = f"{len(features)} {hash(tuple(owner))}"
    return Job(method, 100.0, str(classes), key, Text(features, owners))
