"""Table 4's forms of attention, and its oracle, against lists of keys: one softmax after another.

The oracle reads labels pixel by pixel, with Python's Counter; it shares no line with the package.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tests.objects import method
from tests.parity.test_peers import (
    HEADS,
    PATCH,
    WIDTH,
    array,
    clip_block,
    head_parts,
    norm,
    pixels,
    project_out,
    random_clip,
    softmax,
    unit_rows,
    with_ffn,
)

from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.attention import same_region

GRID = (3, 5)
TRUTH = "target"
IGNORED = -1
FORMS = {
    "cosine": {},
    "inner product": {"kind": "inner_product", "softmax": True, "row_sum": 3},
    "cosine under a softmax": {"kind": "cosine", "softmax": True},
    "inner product, Eq. 3": {"kind": "inner_product", "row_sum": 1},
    "cosine, Eq. 3": {"kind": "cosine", "row_sum": 1},
    "cosine of heads in a row": {"kind": "cosine", "row_sum": 1, "heads": "concatenated"},
    "without SCR, weight 3": {"terms": ["qk"], "row_sum": 3},
    "self only": {"kind": "identity", "terms": [], "row_sum": 3},
    "self only, unit weight": {"kind": "identity", "terms": []},
}
MIXED, CLS = ("majority", "any"), ("apart", "kept")


def form(changes=None, within=None, **more):
    keys = (changes or {}) | more | ({} if within is None else {"within": "truth"})
    chosen = method("cliptrase", {f"attention.{key}": value for key, value in keys.items()})
    if within is None:
        return chosen
    attention = chosen.attention.model_copy(update={"within": within})  # as `Job.of` does
    return chosen.model_copy(update={"attention": attention})


@pytest.fixture(scope="module")
def clip():
    return random_clip(12)


@pytest.fixture(scope="module")
def images():
    return pixels(GRID)


@pytest.fixture(scope="module")
def truth():
    """(2, 24, 40): patches of one class, halves of two, ignored parts, and a patch of those."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 3, (2, 2 * GRID[0], 2 * GRID[1])).repeat(4, 1).repeat(4, 2)
    labels[0, :8, :16] = 7
    labels[0, 8:16, 8:16] = labels[1, :3, :30] = labels[1, 16:, 24:] = IGNORED
    labels[1, 4:6, 3:12] = 500
    return labels


def features(graph, chosen):
    return torch.cat([graph.cls(chosen)[:, None], graph.patches(chosen)], dim=1).numpy()


# ---------------------------------------------------------------- the oracle


def keys_of(truth, mixed="majority", cls="apart"):
    """The tokens that each token attends to, in lists, of the label map (H, W) of one image."""
    bags, regions = [], []
    for top in range(0, truth.shape[0], PATCH):
        for left in range(0, truth.shape[1], PATCH):
            bag = Counter(truth[top : top + PATCH, left : left + PATCH].ravel().tolist())
            bags.append(bag)
            order = sorted(bag, key=lambda value: (-bag[value], value == IGNORED, value))
            regions.append(order[0])
    lists = [list(range(1 + len(bags)))]
    for i, bag in enumerate(bags):
        mine = set(bag) - {IGNORED}
        attended = [0] if cls == "kept" else []
        for j, other in enumerate(bags):
            theirs = set(other) - {IGNORED}
            together = regions[i] == regions[j]
            if mixed == "any" and mine and theirs:
                together = bool(mine & theirs)
            attended += [1 + j] * together
        lists.append(attended)
    return lists


def mixed_rows(parts, a, lists):
    """The values that each head mixes, of (q, k, v) by head, for `a` = method.attention."""
    scale, tokens = 1 / math.sqrt(WIDTH // HEADS), range(len(lists))
    named = [dict(zip("qkv", head, strict=True)) for head in parts]
    heads = []
    for head in named:
        rows = np.zeros_like(head["v"])
        for i in tokens:
            js = lists[i]
            if a.kind == "identity":
                rows[i] = head["v"][i] * (1 if a.row_sum == "none" else a.row_sum)
            elif a.kind == "softmax":
                for first, second in a.terms:
                    weights = softmax([scale * head[first][i] @ head[second][j] for j in js])
                    if a.row_sum != "none":
                        weights *= a.row_sum / len(a.terms)
                    rows[i] += sum(w * head["v"][j] for w, j in zip(weights, js, strict=True))
            else:
                weights = np.array([alike(named, a, i, j) for j in js])
                if a.softmax:
                    weights = softmax((scale * weights).tolist())
                if a.row_sum != "none":
                    weights = weights * a.row_sum / np.abs(weights).sum()
                rows[i] = sum(w * head["v"][j] for w, j in zip(weights, js, strict=True))
        heads.append(rows)
    return heads


def alike(named, a, i, j):
    """W_ij of kinds with one matrix for all heads."""
    found = []
    for first, second in a.terms:
        pairs = [(head[first][i], head[second][j]) for head in named]
        if a.heads == "concatenated":
            pairs = [tuple(np.concatenate(each) for each in zip(*pairs, strict=True))]
        for x, y in pairs:
            lengths = np.linalg.norm(x) * np.linalg.norm(y) if a.kind == "cosine" else 1
            found.append(float(x @ y) / lengths)
    return float(np.mean(found))


def oracle(clip, first, a, lists):
    """Normalised features (L, E) of one image, `first` (L, D) the tokens entering block 1."""
    tokens, blocks = array(first), list(clip.blocks)
    for block in blocks[:-1]:
        tokens = clip_block(block, tokens)
    heads = mixed_rows(head_parts(blocks[-1], tokens), a, lists)
    tokens = with_ffn(blocks[-1], tokens + project_out(blocks[-1], heads))
    joint = np.stack([norm(t, clip.visual.ln_post) @ array(clip.visual.proj) for t in tokens])
    return unit_rows(joint)


# ---------------------------------------------------------------- the comparison


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_the_table(name, clip, images):
    chosen = form(FORMS[name])
    everywhere = [list(range(1 + math.prod(GRID)))] * (1 + math.prod(GRID))
    first = vision.embed_tokens(clip, images)
    expected = [oracle(clip, tokens, chosen.attention, everywhere) for tokens in first]
    np.testing.assert_allclose(features(Graph(clip, images), chosen), expected, atol=2e-5)


@pytest.mark.parametrize(("mixed", "cls"), [(mixed, cls) for mixed in MIXED for cls in CLS])
@pytest.mark.parametrize("name", list(FORMS)[:6])
def test_within_ground_truth(name, mixed, cls, clip, images, truth):
    """Each softmax is over the region alone; of their sum, scaled to 3, nothing else is true."""
    chosen = form(FORMS[name], TRUTH, within_mixed=mixed, within_cls=cls)
    lists = [keys_of(labels, mixed, cls) for labels in truth]
    first = vision.embed_tokens(clip, images)
    expected = [
        oracle(clip, tokens, chosen.attention, own)
        for tokens, own in zip(first, lists, strict=True)
    ]
    graph = Graph(clip, images, truths={TRUTH: torch.from_numpy(truth)})
    np.testing.assert_allclose(features(graph, chosen), expected, atol=2e-5)
    other = form(FORMS[name])
    assert np.abs(features(graph, other) - features(graph, chosen)).max() > 1e-3


@pytest.mark.parametrize(("mixed", "cls"), [(mixed, cls) for mixed in MIXED for cls in CLS])
def test_the_oracles_of_the_test_are_four(mixed, cls, truth):
    """So that the comparison above tells them apart, and regions by label from all patches."""
    found = keys_of(truth[1], mixed, cls)
    for other in {(m, c) for m in MIXED for c in CLS} - {(mixed, cls)}:
        assert keys_of(truth[1], *other) != found
    assert len({len(keys) for keys in found[1:]}) > 2


def one_patch(*values):
    """A patch of 16 × 16 of these values, equally many pixels each."""
    return np.repeat(values, 256 // len(values)).reshape(16, 16)


@pytest.mark.parametrize(
    ("patch", "label"),
    [
        (one_patch(4, 9), 4),  # 128 pixels each: the smallest value
        (one_patch(9, 4), 4),
        (one_patch(IGNORED, 600), 600),  # the ignored one last
        (one_patch(IGNORED, IGNORED, 2, 4), IGNORED),  # it counts like any other
        (one_patch(2, 2, 4, IGNORED), 2),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_label_of_a_patch(patch, label, turned):
    """Patch 0 beside patches of every value, of which it joins those of its label alone."""
    values = [600, 9, 4, 2, IGNORED]
    row = np.concatenate([patch, *(np.full((16, 16), value) for value in values)], axis=1)
    truth = torch.from_numpy(row.T.copy() if turned else row)[None]
    region = same_region(truth, 16, "majority", "apart")[0, 1, 1:].tolist()
    assert region == [True, *(value == label for value in values)]


def test_a_mixed_patch_belongs_to_all_its_classes_and_one_without_a_class_to_its_label():
    patches = [one_patch(1, 2), one_patch(2, 3), one_patch(3, IGNORED), one_patch(IGNORED)]
    patches += [one_patch(IGNORED, IGNORED, IGNORED, 1), one_patch(IGNORED)]
    truth = torch.from_numpy(np.concatenate(patches, axis=1))[None]
    region = same_region(truth, 16, "any", "kept")[0]
    assert region[0].all() and region[:, 0].all() and torch.equal(region, region.T)
    assert region[1:, 1:].int().tolist() == [
        [1, 1, 0, 0, 1, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
        [1, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]


def test_every_token_has_itself_and_the_rest_is_the_list(truth):
    for mixed in MIXED:
        for cls in CLS:
            found = same_region(torch.from_numpy(truth), PATCH, mixed, cls)
            assert found.dtype == torch.bool and found.diagonal(dim1=1, dim2=2).all()
            lists = [[row.nonzero().flatten().tolist() for row in image] for image in found]
            assert lists == [keys_of(labels, mixed, cls) for labels in truth]


@pytest.mark.parametrize("label", [0, 6, IGNORED])
def test_one_region_with_cls_is_the_released_forward_bit_for_bit(label, clip, images):
    constant = torch.full((2, GRID[0] * PATCH, GRID[1] * PATCH), label)
    graph = Graph(clip, images, truths={TRUTH: constant})
    for mixed in MIXED:
        chosen = form(within=TRUTH, within_mixed=mixed, within_cls="kept")
        np.testing.assert_array_equal(features(graph, chosen), features(graph, form()))
    apart = form(within=TRUTH)
    np.testing.assert_array_equal(graph.cls(apart), graph.cls(form()))
    assert (graph.patches(apart) - graph.patches(form())).abs().max() > 1e-4


def test_patches_each_of_its_own_label_are_those_of_self_only(clip, images):
    """Their [CLS] is not: it attends to all tokens there, and to itself alone here."""
    own = torch.arange(math.prod(GRID)).view(1, *GRID)
    own = own.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).expand(2, -1, -1)
    graph = Graph(clip, images, truths={TRUTH: own})
    alone, chosen = form(FORMS["self only"]), form(within=TRUTH)
    np.testing.assert_allclose(graph.patches(chosen), graph.patches(alone), atol=1e-6)
    assert (graph.cls(chosen) - graph.cls(alone)).abs().max() > 0.01


def test_an_image_has_its_features_in_any_batch(clip, images, truth):
    labels, chosen = torch.from_numpy(truth), form(within=TRUTH)
    together = Graph(clip, images, truths={TRUTH: labels})
    for image in range(2):
        some = slice(image, image + 1)
        alone = Graph(clip, images[some], truths={TRUTH: labels[some]})
        np.testing.assert_allclose(
            features(alone, chosen)[0], features(together, chosen)[image], atol=1e-6
        )


def test_features_are_kept_by_target_and_shared_where_no_truth_is_seen(
    clip, images, truth, monkeypatch
):
    """Table 4's `cosine` and `CLIPtrase, cosine SCR` have the features of `cliptrase`."""
    attended, attend = [], vision.attend
    monkeypatch.setattr(vision, "attend", lambda *given: attended.append(given) or attend(*given))
    labels = torch.from_numpy(truth)
    graph = Graph(clip, images, truths={"one": labels, "other": (labels > 1).long()})
    graph.patches(form())
    attended.clear()
    graph.patches(method("cliptrase", {"regions.vote": "none"}))
    graph.patches(method("cliptrase"))
    assert not attended
    within = [graph.patches(form(within=target)) for target in ("one", "other", "one")]
    assert len(attended) == 2
    assert torch.equal(within[0], within[2])
    assert (within[0] - within[1]).abs().max() > 1e-3
