"""A batch as a GPU computes it, here on the CPU: no loop over images, and what each image gives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from tests import objects
from tests.objects import listed_text
from torch.utils._python_dispatch import TorchDispatchMode

from cliptrase.config.method import Method
from cliptrase.evaluate import graph as module
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.model.load import Clip
from cliptrase.segment import ways
from cliptrase.segment.clustering import without

SIDE, PATCH = 64, 8
METHODS = {
    "hard": {},
    "soft": {"vote": "soft"},
    "features": {"cluster": "features", "eps": 0.2},
    "eq7": {
        "correlation.kind": "inner_product", "denoise": "eq7", "eps": 9.0,
        "min_samples": 2,
    },
    "eq7 twice": {
        "correlation.kind": "inner_product", "denoise": "eq7", "eps": 9.0,
        "min_samples": 2, "passes": 2,
    },
}  # fmt: skip


def method(**changes: Any) -> Method:
    """CLIPtrase with other `regions`."""
    regions = {"eps": 0.3, **changes}
    return objects.method("cliptrase", {f"regions.{key}": regions[key] for key in regions})


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(0)
    cfg = {"image_size": SIDE, "layers": 12, "width": 48, "head_width": 16, "patch_size": PATCH}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(24, cfg, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for parameter in model.visual.parameters():
        if parameter.ndim > 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    half = (0.5, 0.5, 0.5)
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "tiny", half, half)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(7, 3, 64, 64) of more and fewer tiles, so that the numbers of clusters differ; the fourth is
    noise and has none."""
    generator = torch.Generator().manual_seed(1)

    def tiled(tiles: int, noise: float) -> torch.Tensor:
        flat = torch.randn(3, tiles, tiles, generator=generator)
        fine = flat.repeat_interleave(SIDE // tiles, 1).repeat_interleave(SIDE // tiles, 2)
        return fine + noise * torch.randn(3, SIDE, SIDE, generator=generator)

    first = [tiled(1, 0.05), tiled(2, 0.2), tiled(4, 0.1)]
    nothing = 3 * torch.randn(3, SIDE, SIDE, generator=generator)
    return torch.stack([*first, nothing, tiled(2, 0.1), tiled(8, 0.05), tiled(4, 0.02)])


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU."""
    monkeypatch.setattr(ways, "one_by_one", lambda device: False)


def text(names: int, seed: int = 0) -> Text:
    features = torch.randn(names, 24, generator=torch.Generator().manual_seed(seed))
    return listed_text(F.normalize(features, dim=-1), names - 2)


class Operations(TorchDispatchMode):
    """What torch is asked for: on a GPU every one is at least a launch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def alone(clip, pixels) -> dict[str, torch.Tensor]:
    """The label map of every image by each method, computed as a CPU does."""
    found = {}
    for name, changes in METHODS.items():
        graphs = [Graph(clip, one[None], (100, 90)) for one in pixels]
        maps = [graph.prediction(method(**changes), text(40), "words") for graph in graphs]
        found[name] = torch.cat(maps)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_gives_what_its_images_give(name, clip, pixels, alone, together):
    """Also without a cluster, and with one: on a CPU the same to the last pixel."""
    graph, chosen = Graph(clip, pixels, (100, 90)), method(**METHODS[name])
    maps = graph.prediction(chosen, text(40), "words")
    numbers = (graph.clusters(chosen).amax(dim=1) + 1).tolist()
    if name in ("hard", "soft"):
        assert numbers[0] == 1 and numbers[3] == 0 and len(set(numbers)) >= 5
    assert max(numbers) > 1
    assert int((maps != alone[name]).sum()) == 0
    assert len(maps.unique()) > 5


@pytest.mark.parametrize("name", METHODS)
def test_the_number_of_operations_does_not_grow_with_the_batch(name, clip, pixels, together):
    """2 and 16 images that are copies of the same, whose numbers of clusters differ."""
    chosen, words = method(**METHODS[name]), text(40)

    def operations(batch: torch.Tensor) -> Counter[str]:
        graph = Graph(clip, batch)
        with Operations() as counted:
            graph.prediction(chosen, words, "words")
        return counted.found

    operations(pixels)  # what is made once, on the first batch
    for pair in ([1, 6], [0, 3], [3, 2]):
        few, many = (operations(pixels[pair].repeat(times, 1, 1, 1)) for times in (1, 8))
        assert few == many
        assert sum(few.values()) > 100
        assert few["aten._local_scalar_dense.default"] < 10  # where the CPU waits for a number


def test_a_grid_shares_the_maps_of_each_set_of_patches(clip, pixels, together, monkeypatch):
    """Of each image of a batch, whichever cell of the grid it comes from."""
    made: list[int] = []

    def noted(rows, labels, images, clusters):
        made.extend(images)
        return original(rows, labels, images, clusters)

    original = module.prototypes
    monkeypatch.setattr(module, "prototypes", noted)
    graph = Graph(clip, pixels)
    sets, clusters, cells = set(), 0, {}
    for eps in (0.2, 0.25, 0.3, 0.35):
        for least in (2, 3, 4, 5):
            cell = method(eps=eps, min_samples=least)
            cells[eps, least] = graph.prediction(cell, text(9), "words")
            for image, labels in enumerate(graph.clusters(cell)):
                own = range(int(labels.max()) + 1)
                sets |= {(image, (labels == cluster).numpy().tobytes()) for cluster in own}
                clusters += len(own)
    assert len(made) == len(sets) < clusters / 3
    for (eps, least), found in cells.items():
        fresh = Graph(clip, pixels).prediction(method(eps=eps, min_samples=least), text(9), "words")
        assert torch.equal(found, fresh)


def test_clusters_that_lose_all_their_points_are_gone():
    labels = torch.tensor([[0, 1, 1, 2, -1, 2], [0, 0, 1, 1, 2, -1], [-1, -1, -1, 0, 0, 0]])
    kept = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    expected = [[-1, 0, 0, -1, -1, 1], [-1, -1, -1, 0, 1, -1], [-1] * 6]
    assert without(labels, kept).tolist() == expected
