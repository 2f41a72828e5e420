"""CorrCLIP against its formula: SAM's released code, scikit-learn's DBSCAN, loops over patches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from random_dinos import random_dino
from random_sams import SIDE, random_sam, released
from segment_anything import SamPredictor
from sklearn.cluster import DBSCAN
from slow_patches import resized_patches
from tests.objects import changed, listed_text, method
from tests.parity.test_own_grids import (
    DINO,
    GRIDS,
    SAM,
    blocks_of,
    dino_tokens,
    graph_of,
    pictures,
)
from tests.parity.test_peers import (
    array,
    head_parts,
    inner_blocks,
    norm,
    project_out,
    random_clip,
    scale_of,
    softmax,
    unit_rows,
    with_ffn,
)

from cliptrase.config import resolve
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model.dino import Dino
from cliptrase.model.load import Clip
from cliptrase.model.sam import Sam, embed, frame
from cliptrase.segment import grid_masks
from cliptrase.segment.sam_regions import whole_masks
from cliptrase.segment.scopes import merged_masks, scoped_attention

Grid = tuple[int, int]


def corrclip(**changes):
    return changed(method("corrclip"), {"dino": DINO, "sam": SAM, **changes})


@pytest.fixture(scope="module", params=[2, 12], ids=["2 blocks", "12 blocks"])
def clip(request) -> Clip:
    return random_clip(request.param)


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def grid(request) -> Grid:
    return request.param


@pytest.fixture(scope="module")
def sam() -> Sam:
    """Some of its masks are good enough and stable, and some are not."""
    sam = random_sam(1)
    decoder = sam.model.mask_decoder
    last = decoder.output_hypernetworks_mlps[0].proj_out
    last.weight *= 25
    last.bias *= 25
    decoder.iou_prediction_head.proj_out.bias += 0.3
    return sam


def discs(sam: Sam, embedding: torch.Tensor, points: torch.Tensor, labels: torch.Tensor) -> tuple:
    """In the place of `decode`: around each point a disc. Its size, its score and how clear its
    border is depend on the point and on the picture."""
    assert labels.shape == points.shape[:2] == (len(points), 1) and (labels == 1).all()
    x, y = (points[:, 0].double() + 0.5).T.view(2, -1, 1, 1)
    places = (torch.arange(SIDE // 4) + 0.5) * 4
    away = ((places - x) ** 2 + (places.view(-1, 1) - y) ** 2).sqrt()
    some = 1e3 * (x + 1.7 * y).flatten() + 10 * embedding[0, :3, 0, 0].sum()
    size, score, clear = ((some * prime).sin() / 2 + 0.5 for prime in (3, 7, 11))
    logits = (1 + 8 * clear.view(-1, 1, 1)) * (1 - away / (4 + 20 * size.view(-1, 1, 1) ** 3))
    return logits.float(), score.float()


@pytest.fixture
def of_discs(monkeypatch) -> None:
    """The masks of a random SAM are all of the whole picture: these are apart, and overlap."""
    monkeypatch.setattr(grid_masks, "decode", discs)


# ---------------------------------------------------------------- the oracle


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max(), ys.max()


def overlap(one: tuple, other: tuple) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both) if sum(areas) > both else 0.0


def points_of(seen: np.ndarray) -> tuple[list[torch.Tensor], Grid]:
    """The centres (1, 1, 2) of 8 × 8 parts of a picture in SAM's frame, and its size there."""
    height, width = (int(side * SIDE / max(seen.shape[:2]) + 0.5) for side in seen.shape[:2])
    centres = [
        torch.tensor([[[(column + 0.5) * width / 8 - 0.5, (row + 0.5) * height / 8 - 0.5]]])
        for row in range(8)
        for column in range(8)
    ]
    return centres, (height, width)


def released_masks(sam: Sam, seen: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Logits (H, W) and score of the mask of each point, by SAM's released code."""
    predictor = SamPredictor(released(sam))
    predictor.set_image(seen)
    made = []
    for point in points_of(seen)[0]:
        how = {"multimask_output": False, "return_logits": True}
        logits, score, _ = predictor.predict_torch(point, torch.ones(1, 1), **how)
        made.append((logits[0, 0].numpy(), float(score)))
    return made


def disc_masks(sam: Sam, seen: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """The same of the `discs`."""
    embedding, made = embed(sam, frame(seen, SIDE)[0]), []
    centres, framed = points_of(seen)
    for point in centres:
        logits, score = discs(sam, embedding, point, torch.ones(1, 1))
        made.append((whole_masks(logits, SIDE, framed, seen.shape[:2])[0].numpy(), float(score)))
    return made


def painted(masks: list[tuple[np.ndarray, float]]) -> tuple[np.ndarray, Counter]:
    """The numbers of the masks (H, W) of one picture, and how many were left at each step."""
    made, left = [], Counter()
    for values, score in masks:
        if score > 0.4:
            left["good"] += 1
            if (values > -1).any() and (values > 1).sum() / (values > -1).sum() > 0.4:
                left["stable"] += 1
                made.append((score, values > 0))
    kept: list[np.ndarray] = []
    for _, mask in sorted(made, key=lambda pair: -pair[0]):
        if all(overlap(box_of(mask), box_of(other)) <= 0.7 for other in kept):
            kept.append(mask)
    left["apart"] = len(kept)
    numbers = np.zeros(masks[0][0].shape, int)
    for number, mask in enumerate(sorted(kept, key=lambda mask: mask.sum()), start=1):
        numbers[mask] = number
    return numbers, left


def under_middles(maps: np.ndarray, size: Grid) -> np.ndarray:
    rows, columns = (
        [int((place + 0.5) * old / new) for place in range(new)]
        for old, new in zip(maps.shape, size, strict=True)
    )
    return maps[np.ix_(rows, columns)]


def merged(numbers: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Regions of patches with these numbers and features: 0 is the lowest."""
    names = sorted(set(numbers.tolist()))
    if len(names) <= 2:
        return np.array([names.index(number) for number in numbers])
    means = unit_rows(np.array([unit[numbers == name].mean(axis=0) for name in names[1:]]))
    similar = np.array([[a @ b for b in means] for a in means])
    found = DBSCAN(eps=0.2, min_samples=1, metric="precomputed").fit(similar.max() - similar)
    regions = dict(zip(names[1:], found.labels_ + 1, strict=True)) | {names[0]: 0}
    return np.array([regions[number] for number in numbers])


def scoped(similar: np.ndarray, regions: np.ndarray) -> np.ndarray:
    rows, mean = [], similar.mean()
    for i, row in enumerate(similar):
        scores = []
        for j, value in enumerate(row):
            if 0 in (regions[i], regions[j]):
                attended = value > mean or i == j
            else:
                attended = regions[i] == regions[j]
            scores.append(4 * value if attended else -np.inf)
        rows.append(softmax(scores))
    return np.array(rows)


def region_cls(clip: Clip, entering: list[np.ndarray], members: np.ndarray) -> np.ndarray:
    """The copy of [CLS] that sees [CLS] and the patches (N,) that are members."""
    copy, seen = entering[0][:1], [0, *(1 + np.flatnonzero(members))]
    for block, tokens in zip(clip.blocks, entering, strict=False):
        parts = zip(head_parts(block, copy), head_parts(block, tokens), strict=True)
        heads = [
            softmax([scale_of(q) * float(q[0] @ k[j]) for j in seen])[None] @ v[seen]
            for (q, _, _), (_, k, v) in parts
        ]
        copy = with_ffn(block, copy + project_out(block, heads))
    return copy[0]


def expected_corrclip(
    clip: Clip, dino: Dino, numbers: np.ndarray, seen: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Features ([CLS], then patches of DINO's grid) of one picture, and its regions there."""
    other = (seen.shape[0] // dino.patch, seen.shape[1] // dino.patch)
    parts: list[torch.Tensor] = []
    hook = dino.model.blocks[-1].attn.qkv.register_forward_hook(lambda *out: parts.append(out[2]))
    dino_tokens(dino, seen)
    hook.remove()
    q, k, _ = np.split(array(parts[0][0, 1:]), 3, axis=1)
    unit = unit_rows(q + k)
    similar = np.array([[a @ b for b in unit] for a in unit])
    regions = merged(under_middles(numbers, other).ravel(), unit)
    weights, block = scoped(similar, regions), clip.blocks[-1]
    entering = blocks_of(clip, clip.normalise(seen[None])[0])

    def mixed(tokens: np.ndarray) -> np.ndarray:
        heads = [
            weights @ resized_patches(v[1:], grid, other) for _, _, v in head_parts(block, tokens)
        ]
        return project_out(block, heads)

    between = inner_blocks(6, 10, len(clip.blocks))
    main, spatial = mixed(entering[-2]), mixed(np.mean([entering[b] for b in between], axis=0))
    cells = under_middles(regions.reshape(other), grid)
    copies = {name: region_cls(clip, entering, cells.ravel() == name) for name in {*cells.flat}}
    semantic = [copies[name] for name in under_middles(cells, other).ravel()]
    ln, proj = clip.visual.ln_post, array(clip.visual.proj)
    joint = [norm(entering[-1][0], ln)] + [
        norm(a, ln) + norm(b, ln) + 0.5 * norm(c, ln)
        for a, b, c in zip(main, spatial, semantic, strict=True)
    ]
    return unit_rows(np.array(joint) @ proj), regions


# ---------------------------------------------------------------- the comparison


def test_the_masks_of_a_grid_of_points_are_those_of_the_released_code(sam, grid):
    seen = pictures(grid)
    graph = graph_of(random_clip(2), random_dino(4, seen.shape[1:3]), seen, sam)
    for picture, ours in zip(seen, graph.sam_masks(SAM), strict=True):
        expected, left = painted(released_masks(sam, picture))
        assert 64 > left["good"] > left["stable"] > left["apart"] > 0 and expected.any()
        assert (ours.numpy() == expected).all()


def test_masks_that_are_kept_and_how_they_are_painted(sam, of_discs):
    dropped = covered = 0
    for sides in ((32, 32), (40, 56), (64, 12)):
        seen = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
        expected, left = painted(disc_masks(sam, seen))
        ours = grid_masks.grid_masks(sam, embed(sam, frame(seen, SIDE)[0]), sides)
        assert (ours.numpy() == expected).all()
        assert 64 > left["good"] > left["stable"] > 5
        dropped += left["stable"] - left["apart"]
        covered += left["apart"] - len({*expected.flat} - {0})
    assert dropped > 2 and covered > 2


def test_corrclip(clip, sam, grid, of_discs):
    seen = pictures(grid)
    dino = random_dino(4, seen.shape[1:3])
    graph, asked = graph_of(clip, dino, seen, sam), corrclip()
    ours = torch.cat([graph.cls(asked)[:, None], graph.patches(asked)], dim=1)
    numbers = [painted(disc_masks(sam, picture))[0] for picture in seen]
    made = [expected_corrclip(clip, dino, *pair, grid) for pair in zip(numbers, seen, strict=True)]
    for each, (_, there) in zip(numbers, made, strict=True):
        assert len(np.unique(each)) > len(np.unique(there)) > 2  # some are merged, not all
    np.testing.assert_allclose(ours, np.stack([each for each, _ in made]), atol=2e-5, rtol=0)
    regions = graph.regions(asked)
    for ours, expected in zip(regions, numbers, strict=True):
        assert (ours.numpy() == np.where(expected == expected.min(), -1, expected)).all()
    text = listed_text(graph.patches(asked)[0, ::9], 4)
    before = graph.prediction(changed(asked, {"regions.vote": "none"}), text, "words").numpy()
    after = graph.prediction(asked, text, "words").numpy()
    assert (before != after).any()
    for classes, voted, where in zip(before, after, regions.numpy(), strict=True):
        for number in np.unique(where):
            inside = where == number
            winner = np.bincount(classes[inside]).argmax() if number >= 0 else classes[inside]
            assert (voted[inside] == winner).all()


def test_a_picture_in_a_batch_is_the_picture_alone_bit_for_bit(clip, sam, grid, of_discs):
    seen, asked = pictures(grid, 3), corrclip()
    dino = random_dino(4, seen.shape[1:3])
    graph = graph_of(clip, dino, seen, sam)
    text = listed_text(graph.patches(asked)[0, ::9], 4)
    for index, picture in enumerate(seen):
        alone = graph_of(clip, dino, picture[None], sam)
        assert torch.equal(alone.patches(asked)[0], graph.patches(asked)[index])
        for make in (Graph.regions, lambda g, asked: g.prediction(asked, text, "words")):
            assert torch.equal(make(alone, asked)[0], make(graph, asked)[index])


@pytest.mark.parametrize("of", ["no mask", "one mask", "one patch", "equal patches"])
def test_pictures_without_anything_to_merge(sam, grid, of, of_discs, monkeypatch):
    """Without masks all patches are unsegmented, and where one mask covers the picture as well."""
    clip, grid = random_clip(2), (1, 1) if of == "one patch" else grid
    seen = pictures(grid, 1)
    dino = random_dino(8 if of == "one patch" else 4, seen.shape[1:3])
    if of == "equal patches":
        dino.model.blocks[-1].norm1.weight.zero_()
    numbers = painted(disc_masks(sam, seen[0]))[0]
    if of in ("no mask", "one mask"):
        numbers = np.full_like(numbers, int(of == "one mask"))
        plain = torch.from_numpy(numbers)
        monkeypatch.setattr("cliptrase.evaluate.graph.grid_masks", lambda *_: plain)
    graph = graph_of(clip, dino, seen, sam)
    ours = torch.cat([graph.cls(corrclip())[:, None], graph.patches(corrclip())], dim=1)[0]
    if of == "equal patches":  # float32 decides what is above the mean of equal similarities
        assert ours.isfinite().all()
    else:
        expected, regions = expected_corrclip(clip, dino, numbers, seen[0], grid)
        assert of == "one patch" or not regions.any()
        np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=0)
    if of in ("no mask", "one mask"):
        assert (graph.regions(corrclip()) == -1).all()


def test_masks_are_merged_as_scikit_learn_does():
    """Chains too; two masks or fewer stay as they are, whatever their numbers."""
    rng, counts = np.random.default_rng(0), set()
    for _ in range(40):
        numbers = rng.integers(0, rng.integers(1, 12), 60) * 3 + 1
        unit = unit_rows(rng.normal(size=(12, 4))[numbers // 3] + 0.3 * rng.normal(size=(60, 4)))
        ours = merged_masks(torch.from_numpy(numbers), torch.from_numpy(unit)).numpy()
        assert (ours == merged(numbers, unit)).all()
        counts.add((len(np.unique(numbers)), len(np.unique(ours))))
    assert sum(before > after for before, after in counts) > 5
    assert {(1, 1), (2, 2)} <= counts


def test_scopes_of_patches_and_of_what_is_unsegmented():
    regions = torch.tensor([[0, 1, 1, 2, 0]])
    similar = torch.eye(5)[None]
    similar[0, 0, 3] = similar[0, 3, 0] = similar[0, 1, 4] = similar[0, 4, 1] = 0.5  # above 0.28
    similar[0, 1, 3] = similar[0, 3, 1] = 0.9  # of two regions
    similar[0, 1, 2] = similar[0, 2, 1] = -1  # of one region
    attended = scoped_attention(similar, regions)[0] > 0
    assert attended.tolist() == [
        [True, False, False, True, False],
        [False, True, True, False, True],
        [False, True, True, False, False],
        [True, False, False, True, False],
        [False, True, False, False, True],
    ]


def test_no_mask_is_good_enough():
    bad = random_sam(1)
    bad.model.mask_decoder.iou_prediction_head.proj_out.bias -= 10
    embedding = torch.randn(1, 32, 8, 8)
    assert not grid_masks.grid_masks(bad, embedding, (20, 30)).any()


# ---------------------------------------------------------------- configuration


def test_a_run_names_both_networks_and_under_slide_its_windows_do_not_vote():
    run = resolve(["benchmark=voc20", "model=vit_b16", "method=corrclip"])
    assert (run.backbones.sam.label, run.backbones.dino.label) == ("sam_vit_h", "dino_b8")
    assert run.method.regions.vote == "hard" and run.identity["method"]["regions"].keys() == {
        "kind", "vote",
    }  # fmt: skip
    slide = resolve(["benchmark=voc20", "model=vit_b16", "method=corrclip", "protocol=slide"])
    assert slide.method.regions.vote == "none" and len(slide.method.networks) == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dino=null", ["attention.kind=corrclip: needs method.dino=", "auto"]),
        ("sam=null", ["attention.kind=corrclip: needs method.sam=", "auto"]),
        ("sam=dino_b8", ["method.sam=dino_b8", "not a SAM"]),
        ("attention.residual=true", ["the last block alone"]),
        ("regions.kind=prototypes", ["method.regions.correlation is missing"]),
    ],
)
def test_what_cannot_be_is_one_message(override, words):
    with pytest.raises(UserError) as caught:
        resolve(["benchmark=voc20", "model=vit_b16", "method=corrclip", f"method.{override}"])
    for word in words:
        assert word in str(caught.value)
