"""Methods whose patches change one another's logits, written out patch by patch in float64."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csc_matrix, linalg
from slow_slide import upsampled
from tests.objects import changed, method
from tests.parity.test_peers import (
    PATCH,
    array,
    clip_block,
    cliper_layers,
    norm,
    pixels,
    random_clip,
    softmax,
    unit_rows,
)
from tests.unit.model.test_dino import split, write_folder

from cliptrase import config
from cliptrase.config.method import Method, Unsupervised
from cliptrase.errors import UserError
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.protocols import Slide
from cliptrase.model import vision
from cliptrase.model.backbones import load_networks
from cliptrase.model.dino import tokens
from cliptrase.model.fused import contrasted
from cliptrase.model.load import Clip
from cliptrase.runs.provenance import Stages
from cliptrase.segment.diffusion import affinity, diffused

CLIPER = method("cliper")
NAMES = ("cliper", "lposs")
OWNER = torch.tensor([0, 1, 1, 2, 3, 3])  # three classes, and words for the background


def words(graph: Graph, background: int | None) -> Text:
    """Names that are each like some patch of the first picture, so that they compete."""
    patches = graph.patches(method("clip"))[0]
    some = patches[torch.linspace(0, len(patches) - 1, len(OWNER)).long()]
    return Text(F.normalize(some - 0.9 * patches.mean(dim=0), dim=-1), OWNER, background)


def logits(graph: Graph, chosen: Method, text: Text, scale: float = 100.0) -> torch.Tensor:
    return graph.logits(chosen, text, f"words {text.background}", scale)


# ---------------------------------------------------------------- CLIPer


def slow_layers(clip: Clip, first: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """Unit features (N, E) of every layer and the last attention (N, N) between patches, of one
    picture; `first` (L, D) are the tokens entering block 1."""
    blocks, entering = list(clip.blocks), [array(first)]
    for block in blocks:
        entering.append(clip_block(block, entering[-1]))
    layers, attention = cliper_layers(blocks, entering)
    visual, features = clip.visual, []
    for layer in layers:
        joint = np.stack([norm(token, visual.ln_post) @ array(visual.proj) for token in layer])
        features.append(unit_rows(joint)[1:])
    return features, attention[1:, 1:]


def slow_cliper(layers: list[np.ndarray], attention: np.ndarray, text: Text) -> np.ndarray:
    """Scores (M, N) of one picture."""
    names, owners = array(text.features), text.owner.tolist()
    mean = sum(n for n, owner in zip(names, owners, strict=True) if owner != text.background)
    asked = [*names, mean / math.sqrt(mean @ mean)]
    maps = []
    for features in layers:
        rows = [softmax([100 * float(name @ patch) for name in asked]) for patch in features]
        maps.append(np.array(rows).T[:-1])
    for row in maps[-1]:
        row[row < 0.1 * max(row)] = 0
    scores = np.zeros_like(maps[-1])
    for (name, j), _ in np.ndenumerate(scores):
        spread = sum(maps[-1][name, i] * attention[i, j] for i in range(len(attention)))
        scores[name, j] = spread + sum(each[name, j] for each in maps) / len(maps)
    return scores


@pytest.mark.parametrize(("depth", "grid"), [(12, (4, 4)), (6, (5, 7))])
@torch.inference_mode()
def test_cliper(depth, grid):
    clip = random_clip(depth)
    graph = Graph(clip, pixels(grid))
    slow = [slow_layers(clip, tokens) for tokens in vision.embed_tokens(clip, pixels(grid))]
    scores = []
    for background in (None, 3):
        text = words(graph, background)
        scores.append(logits(graph, CLIPER, text))
        expected = np.stack([slow_cliper(*each, text) for each in slow])
        np.testing.assert_allclose(scores[-1].flatten(2), expected, atol=1e-5, rtol=0)
        assert torch.equal(logits(graph, CLIPER, text, 1.0), scores[-1])  # it has its own scale
    assert (scores[0] - scores[1]).abs().max() > 1e-3  # background words are not in the mean


def test_a_token_above_no_mean_attends_to_itself():
    even = torch.full((1, 1, 4, 4), 0.25)
    assert torch.equal(contrasted(even)[0, 0], torch.eye(4))
    even[0, 0, 0, 0] = 0.5
    rows = contrasted(even)[0, 0]
    assert torch.equal(rows[0], torch.eye(4)[0]) and torch.equal(rows.sum(dim=1), torch.ones(4))


# ---------------------------------------------------------------- LPOSS


@pytest.fixture(scope="module", params=["dino", "dinov2"])
def beside(request, tmp_path_factory) -> Beside:
    """A random DINO whose patches are CLIP's, of 8 pixels, and one with patches of 14."""
    folder = tmp_path_factory.mktemp("networks") / request.param
    theirs = write_folder(folder, request.param)
    overrides = ["benchmark=voc20", "model=vit_b16", "method=lposs"]
    chosen = config.resolve([*overrides, f"method.dino=local-dir:{folder}"]).method
    return Beside(chosen, theirs, load_networks(chosen.networks, "cpu"))


class Beside(NamedTuple):
    method: Method
    theirs: Any  # timm's network
    networks: dict[Any, Any]

    def nodes(self, graph: Graph, images: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values (N, D) of each image, as they come, and its CLIP features (N, E)."""
        (dino,) = self.networks.values()
        seen = tokens(dino, dino.normalise(graph.clip.denormalise(images)))
        values = split(self.theirs, len(self.theirs.blocks) - 1, seen.last)[2][:, :, 1:]
        made = []
        for v, patches in zip(values, graph.patches(self.method).double().numpy(), strict=True):
            if seen.grid != graph.grid:
                square = np.moveaxis(patches.reshape(*graph.grid, -1), 2, 0)
                patches = upsampled(square, *seen.grid).reshape(len(square), -1).T
            made.append((np.moveaxis(v, 0, 1).reshape(v.shape[1], -1), unit_rows(patches)))
        return made

    def centres(self, height: int, width: int) -> list[tuple[float, float]]:
        """Of the patches of a picture of this size, in the pixels that the network sees."""
        (dino,) = self.networks.values()
        rows, columns = dino.grid(height, width)
        each = itertools.product(range(rows), range(columns))
        return [((y + 0.5) * dino.patch, (x + 0.5) * dino.patch) for y, x in each]


def slow_affinity(values: np.ndarray, places, neighbours: int) -> np.ndarray:
    count, v = len(values), unit_rows(values)
    strength = np.zeros((count, count))
    for i in range(count):
        ranked = sorted((-float(v[i] @ v[j]), j) for j in range(count))
        for negative, j in ranked[:neighbours]:
            apart = math.dist(places[i], places[j])
            strength[i, j] = max(-negative, 0) ** 3 * math.exp(-0.01 * apart)
    weights = strength + strength.T
    for i in range(count):
        weights[i, i] = 0
    sums = [sum(row) or 1 for row in weights]
    for i, j in itertools.product(range(count), repeat=2):
        weights[i, j] /= math.sqrt(sums[i] * sums[j])
    return weights


def slow_lposs(values: np.ndarray, places, seeds: np.ndarray, solver: str) -> np.ndarray:
    """Z (N, M) of seeds (N, M)."""
    system = np.eye(len(values)) - 0.95 * slow_affinity(values, places, 400)
    if solver == "exact":
        return linalg.spsolve(csc_matrix(system), seeds)
    each = [linalg.cg(system, column, rtol=1e-6, atol=0, maxiter=10)[0] for column in seeds.T]
    return np.stack(each, axis=1)


@pytest.mark.parametrize("solver", ["cg10", "exact"])
@pytest.mark.parametrize("grid", [(4, 4), (5, 7)], ids=str)
@torch.inference_mode()
def test_lposs(beside, grid, solver):
    images, chosen = pixels(grid), changed(beside.method, {"solver": solver})
    graph = Graph(random_clip(6), images, networks=beside.networks)
    text = words(graph, 3)
    ours = logits(graph, chosen, text).flatten(2).double().numpy()
    places = beside.centres(*images.shape[-2:])
    for image, (values, patches) in enumerate(beside.nodes(graph, images)):
        seeds = 100 * patches @ array(text.features).T
        expected = slow_lposs(values, places, seeds, solver).T
        np.testing.assert_allclose(ours[image], expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("batch_size", [1, 4])
@torch.inference_mode()
def test_the_windows_of_a_picture_are_one_graph(beside, batch_size):
    """3 × 2 windows of 5 × 5 patches; the last ones are moved back to end at the border."""
    clip, picture = random_clip(6), pixels((9, 7), 1)[0, :, :68]
    text = words(Graph(clip, picture[None, :, :64, :56]), 3)
    job = Job(beside.method, 1.0, "", "words", text, networks=beside.networks)
    sliding = Slide(40, 68, 24)
    windows = sliding._windows(clip, picture, {"": job}, batch_size, Stages())[""]
    corners = [(y, x) for y in (0, 24, 28) for x in (0, 16)]
    assert [window.place for window in windows] == corners
    values, patches, places = [], [], []
    for y, x in corners:
        image = picture[None, :, y : y + 40, x : x + 40]
        ((own, features),) = beside.nodes(Graph(clip, image), image)
        values += [*own]
        patches += [*features]
        scale = 42 / 40 if len(own) == 9 else 1  # the second DINO sees 3 × 3 patches of 14
        places += [(y * scale + row, x * scale + column) for row, column in beside.centres(40, 40)]
    seeds = np.stack(patches) @ array(text.features).T
    expected = slow_lposs(np.stack(values), places, seeds, "cg10").reshape(len(corners), -1, 6)
    ours = torch.stack([window.logits for window in windows]).flatten(2).double().numpy()
    np.testing.assert_allclose(
        ours, np.moveaxis(expected, 1, 2), atol=2e-5 * np.abs(expected).max()
    )
    if batch_size > 1:
        alone = sliding._windows(clip, picture, {"": job}, 1, Stages())[""]
        for window, other in zip(windows, alone, strict=True):
            assert torch.equal(window.logits, other.logits)


def test_neighbours_are_the_likest_and_of_equal_ones_the_first():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 6))
    values[20:30] = values[0]  # ten that are equal, more than there are neighbours
    places = rng.uniform(0, 99, (40, 2))
    for neighbours in (1, 5, 39, 400):
        ours = affinity(
            F.normalize(torch.from_numpy(values), dim=-1), torch.from_numpy(places), neighbours
        )
        np.testing.assert_allclose(ours, slow_affinity(values, places, neighbours), atol=1e-12)


def test_ten_steps_are_not_all():
    """On a chain of patches, where each step reaches one patch further."""
    count, seeds = 60, np.random.default_rng(0).normal(size=(60, 3))
    chain = np.diag(np.full(count - 1, 0.5), 1) + np.diag(np.full(count - 1, 0.5), -1)
    system = np.eye(count) - 0.95 * chain
    made = {
        solver: diffused(torch.from_numpy(chain), torch.from_numpy(seeds), solver).numpy()
        for solver in ("cg10", "exact")
    }
    np.testing.assert_allclose(made["exact"], np.linalg.solve(system, seeds), atol=1e-12)
    steps = [linalg.cg(system, each, rtol=1e-6, atol=0, maxiter=10)[0] for each in seeds.T]
    np.testing.assert_allclose(made["cg10"], np.stack(steps, axis=1), atol=1e-12)
    assert np.abs(made["cg10"] - made["exact"]).max() > 0.01


def test_a_column_that_is_done_stays_while_others_go_on():
    graph = torch.zeros(4, 4, dtype=torch.float64)
    graph[2, 3] = graph[3, 2] = 1.0
    seeds = torch.tensor([[1.0, 0, 0], [2, 0, 0], [0, 0, 1], [0, 0, 3]])
    made = diffused(graph, seeds, "cg10")
    torch.testing.assert_close(made, diffused(graph, seeds, "exact"))
    assert torch.equal(made[:, :2], seeds[:, :2].double())  # alone, and nothing at all


# ---------------------------------------------------------------- whatever the method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention.kind": "identity"}, "propagate=cliper: goes with .*kind=cliper, and it is id"),
        ({"solver": "exact"}, "solver=exact: method.propagate=cliper solves no equations"),
        ({"propagate": "lposs"}, "propagate=lposs: needs method.dino="),
        ({"unsupervised": Unsupervised(clusters="K")}, "propagate=cliper: with method.unsuperv"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        changed(CLIPER, change)


def test_regions_of_a_window_do_not_vote_on_logits_of_all(tmp_path, monkeypatch):
    text = (config.files.CONF / "method" / "cliptrase.yaml").read_text()
    (tmp_path / "method").mkdir()
    mine = "name: mine\npropagate: lposs\ndino: shapes_dino\n"
    (tmp_path / "method" / "mine.yaml").write_text(text.replace("name: cliptrase\n", mine))
    monkeypatch.setenv(config.files.OWN, str(tmp_path))
    run = ["benchmark=shapes", "method=mine", "protocol=slide", "image_size=112"]
    assert config.resolve(run).method.propagate == "lposs"
    assert config.resolve(run[:2]).method.regions.vote == "hard"
    with pytest.raises(UserError, match=r"vote=soft: .*=lposs is of all windows .*take .*=none"):
        config.resolve([*run, "method.regions.vote=soft"])


def test_no_background_threshold_applies():
    overrides = ["benchmark=shapes_bg", "protocol=slide", "image_size=112"]
    for name, threshold in (("clip", 0.1), ("cliper", 0), ("lposs", 0)):
        run = config.resolve([*overrides, f"method={name}"])
        assert Job.of(run, "words", Text(torch.eye(2), torch.arange(2))).threshold == threshold


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_of_a_picture_are_the_same_in_a_batch_and_whenever_words_are_known(beside, name):
    chosen = beside.method if name == "lposs" else method(name)
    clip, images = random_clip(6), torch.cat([pixels((5, 7)), pixels((5, 7)).flip(2)])
    graph = Graph(clip, images, networks=beside.networks)
    text = words(graph, 3)
    together = logits(graph, chosen, text)
    for index, image in enumerate(images):
        alone = Graph(clip, image[None], networks=beside.networks)
        encoded = alone.encode(chosen)
        assert torch.equal(logits(alone, chosen, text)[0], together[index])
        expected = alone.prediction(chosen, text, "words 3")
        assert torch.equal(encoded.classify(text), expected)
        assert (encoded.classify(replace(text, features=text.features.flip(0))) != expected).any()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_picture_of_one_patch_and_one_of_equal_patches(beside, name):
    chosen = beside.method if name == "lposs" else method(name)
    clip, grey = random_clip(6), torch.full((1, 3, 5 * PATCH, 7 * PATCH), 0.3)
    clip.visual.positional_embedding[1:] = clip.visual.positional_embedding[1].clone()
    for images in (pixels((1, 1)), grey):
        graph = Graph(clip, images, networks=beside.networks)
        made = logits(graph, chosen, words(graph, None))
        assert made.isfinite().all() and made.shape[:2] == (len(images), len(OWNER))
