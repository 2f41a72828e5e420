"""What must not change a result: the order of patches, classes and images; and what Eq. 7 is."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP
from tests.objects import method

from cliptrase.config.method import Method
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.affinity import squared_distances
from cliptrase.model.load import Clip
from cliptrase.model.vision import QKV
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.segment.clustering import dbscan, neighbours
from cliptrase.segment.correlation import correlation, eq7_kept, patch_part

EXAMPLES = settings(deadline=None, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
KINDS, HEADS = ("cosine", "inner_product"), ("mean", "concatenated")
PATCH = 8


def random_parts(seed: int, tokens: int = 12, heads: int = 3, width: int = 5) -> QKV:
    generator = torch.Generator().manual_seed(seed)
    return QKV(*torch.randn(3, 1, heads, tokens, width, generator=generator))


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Random, of 12 blocks; strong q, k and v and weak mixing, so that patches differ."""
    generator = torch.Generator().manual_seed(4)
    tower = {"image_size": 48, "layers": 12, "width": 32, "head_width": 8, "patch_size": PATCH}
    model = CLIP(24, tower, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 1.5 if "in_proj" in name else 0.3
            parameter.copy_(noise * gain * noise.shape[-1] ** -0.5)
        else:
            parameter.copy_(noise * 0.2 + (1.0 if "ln_" in name and "weight" in name else 0.0))
    half = (0.5, 0.5, 0.5)
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "tiny", half, half)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(2, 3, 48, 64): flat tiles of 2 × 2 patches and a little noise, so that patches cluster."""
    generator = torch.Generator().manual_seed(2)
    tiles = torch.randn(2, 3, 3, 4, generator=generator)
    flat = tiles.repeat_interleave(2 * PATCH, 2).repeat_interleave(2 * PATCH, 3)
    return flat + 0.1 * torch.randn(flat.shape, generator=generator)


# ---------------------------------------------------------------- the order of patches


@pytest.mark.parametrize(("kind", "heads"), list(itertools.product(KINDS, HEADS)))
@EXAMPLES
@given(seed=SEEDS, order=st.permutations(range(12)))
def test_permuted_tokens_have_the_permuted_correlation(kind, heads, seed, order):
    parts = random_parts(seed)
    moved = QKV(*(part[:, :, order] for part in parts))
    expected = correlation(parts, kind, heads)[:, order][:, :, order]
    torch.testing.assert_close(correlation(moved, kind, heads), expected, atol=2e-6, rtol=1e-5)


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.integers(2, 30),
    span=st.integers(2, 20),
    eps=st.integers(1, 4),
    least=st.integers(1, 6),
)
def test_permuted_patches_have_the_same_clusters(seed, size, span, eps, least):
    """Core and noise points exactly; a border point may go to any cluster that reaches it."""
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.integers(0, span, (1, size, 2)).astype(np.float32))
    order = rng.permutation(size)
    near = neighbours(squared_distances(rows), eps)
    moved = neighbours(squared_distances(rows[:, order]), eps)
    assert torch.equal(moved, near[:, order][:, :, order])
    before, after = dbscan(near, least)[0][order].tolist(), dbscan(moved, least)[0].tolist()
    core = (moved[0].sum(dim=1) >= least).tolist()
    renamed = {old: new for old, new, inside in zip(before, after, core, strict=True) if inside}
    assert len(set(renamed.values())) == len(renamed) == max(after) + 1
    for point, (old, new) in enumerate(zip(before, after, strict=True)):
        if core[point] or old < 0 or new < 0:
            assert new == renamed.get(old, -1)
        else:
            reaching = {
                after[other] for other in range(size) if moved[0, point, other] and core[other]
            }
            assert {renamed[old], new} <= reaching
            assert new == min(reaching)


@pytest.mark.parametrize("name", ["clip", "sclip", "cliptrase", "cliptrase_paper", "gem"])
def test_a_picture_of_shuffled_patches_is_encoded_alike(clip, pixels, name):
    """Patches and their positions shuffled together: nothing else knows where a patch is."""
    rows, columns = 6, 8
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(6))
    tiles = pixels.unflatten(3, (columns, PATCH)).unflatten(2, (rows, PATCH))
    tiles = tiles.permute(0, 1, 2, 4, 3, 5).flatten(2, 3)[:, :, order]  # (B, 3, N, P, P)
    shuffled = tiles.unflatten(2, (rows, columns)).permute(0, 1, 2, 4, 3, 5)
    positions = vision.position_embedding(clip, rows, columns)
    moved = torch.cat([positions[:1], positions[1:][order]])
    other = dataclasses.replace(clip, positions={(rows, columns): moved})
    graph, again = Graph(clip, pixels), Graph(other, shuffled.reshape(pixels.shape))
    chosen = method(name)
    patches = graph.patches(chosen)
    torch.testing.assert_close(again.patches(chosen), patches[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(again.cls(chosen), graph.cls(chosen), atol=1e-5, rtol=0)
    assert (patches[:, order] - patches).abs().max() > 0.01
    if chosen.regions:
        rows_of = [each.patch_rows(chosen.regions) for each in (graph, again)]
        torch.testing.assert_close(rows_of[1], rows_of[0][:, order][:, :, order], atol=1e-5, rtol=0)


# ---------------------------------------------------------------- the names of classes


WORDS = 6


def text(graph: Graph, chosen: Method, seed: int) -> Text:
    """What sets a few patches apart from the others, and noise: several names win somewhere."""
    generator = torch.Generator().manual_seed(seed)
    patches = graph.patches(chosen).flatten(0, 1)
    some = patches[torch.randperm(len(patches), generator=generator)[:WORDS]]
    apart = F.normalize(some - patches.mean(dim=0), dim=-1)
    features = apart + 0.1 * torch.randn(apart.shape, generator=generator)
    return Text(F.normalize(features, dim=-1), torch.arange(WORDS))


VOTES = {
    "none": {"regions.vote": "none"},
    "hard": {"regions.vote": "hard"},
    "soft": {"regions.vote": "soft"},
    "times [CLS] logits": {"cls_logits": True},
}


@pytest.mark.parametrize("vote", VOTES)
def test_relabelled_classes_are_predicted_relabelled(clip, pixels, vote):
    """Predictions and the confusion matrix move with the names, the scores stay."""
    chosen = method("cliptrase", {"regions.eps": 0.2, **VOTES[vote]})
    graph = Graph(clip, pixels)
    assert int(graph.clusters(chosen).max()) > 1
    rng = np.random.default_rng(0)
    truth = rng.integers(0, WORDS, pixels[:, 0].shape)
    for seed in range(6):
        words = text(graph, chosen, seed)
        order = torch.from_numpy(rng.permutation(WORDS))  # new class i is old class order[i]
        new_name = torch.argsort(order)
        relabelled = Text(words.features[order], words.owner)
        before = graph.prediction(chosen, words, f"{seed}")
        after = graph.prediction(chosen, relabelled, f"{seed} again")
        assert len(before.unique()) > 1
        assert torch.equal(after, new_name[before])
        matrix = GroundTruth.of(truth, WORDS).confusion(before.numpy())
        moved = GroundTruth.of(new_name.numpy()[truth], WORDS).confusion(after.numpy())
        assert np.array_equal(moved, matrix[order][:, order])
        for metric, value in scores("cliptrase", *class_counts(matrix)).items():
            assert float(scores("cliptrase", *class_counts(moved))[metric]) == pytest.approx(value)


def test_names_of_one_class_in_any_order_and_twice_are_that_class(clip, pixels):
    chosen = method("cliptrase", {"regions.eps": 0.2})
    graph = Graph(clip, pixels)
    words = text(graph, chosen, 1)
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    expected = graph.prediction(chosen, Text(words.features, owner), "as listed")
    order = torch.tensor([2, 5, 0, 3, 1, 4, 4, 0])
    mixed = Text(words.features[order], owner[order])
    assert torch.equal(graph.prediction(chosen, mixed, "mixed"), expected)
    alone = graph.prediction(method("clip"), words, "alone")
    together = graph.prediction(method("clip"), Text(words.features, owner), "together")
    assert torch.equal(together, owner[alone])  # the largest over synonyms


# ---------------------------------------------------------------- rows of attention and correlation


def weights_of(parts: QKV, kind: str, terms: list[str], **options: Any) -> torch.Tensor:
    """The attention (B, H, L, L) that `attend` multiplies v by, where v is square."""
    mixed = vision.attend(parts, kind, terms, **options)
    per_head = mixed.unflatten(2, (parts.v.shape[1], -1)).transpose(1, 2)
    return (per_head.double() @ torch.linalg.inv(parts.v.double())).float()


TERMS = [["qk"], ["vv"], ["qq", "kk"], ["qq", "kk", "vv"]]


@pytest.mark.parametrize("terms", TERMS, ids="+".join)
@pytest.mark.parametrize("row_sum", ["none", 1, 3])
def test_rows_of_softmax_add_up_to_the_number_of_terms_or_what_is_asked(terms, row_sum):
    for seed in range(5):
        weights = weights_of(random_parts(seed, 6, 2, 6), "softmax", terms, row_sum=row_sum)
        expected = len(terms) if row_sum == "none" else row_sum
        torch.testing.assert_close(
            weights.sum(dim=-1), torch.full(weights.shape[:3], float(expected)), atol=1e-3, rtol=0
        )
        assert weights.min() > -1e-3


@pytest.mark.parametrize(("kind", "heads"), list(itertools.product(KINDS, HEADS)))
@pytest.mark.parametrize("terms", TERMS, ids="+".join)
@pytest.mark.parametrize("row_sum", ["none", 1, 3])
def test_magnitudes_of_a_row_of_cosines_add_up_to_what_is_asked(kind, heads, terms, row_sum):
    """One matrix for all heads; negative weights stay negative; unscaled, cosines are at most 1."""
    for seed in range(5):
        parts = random_parts(seed, 6, 2, 6)
        weights = weights_of(parts, kind, terms, row_sum=row_sum, heads=heads)
        torch.testing.assert_close(weights[:, 0], weights[:, 1], atol=1e-3, rtol=1e-3)
        assert weights.min() < -0.01
        total = weights.abs().sum(dim=-1)
        if row_sum != "none":
            torch.testing.assert_close(
                total, torch.full_like(total, float(row_sum)), atol=1e-3, rtol=0
            )
            plain = weights_of(parts, kind, terms, heads=heads)
            scaled = F.normalize(plain, p=1, dim=-1) * row_sum
            torch.testing.assert_close(weights, scaled, atol=2e-3, rtol=0)
        elif kind == "cosine":
            assert weights.abs().max() <= 1 + 1e-3
            if "qk" not in terms:
                own = weights.diagonal(dim1=2, dim2=3)
                torch.testing.assert_close(own, torch.ones_like(own), atol=1e-3, rtol=0)


@pytest.mark.parametrize("heads", HEADS)
@EXAMPLES
@given(seed=SEEDS, power=st.integers(-6, 6))
def test_a_token_correlates_with_itself_by_one_whatever_its_length(heads, seed, power):
    rng = np.random.default_rng(seed)
    scale = torch.from_numpy(10.0 ** (power * rng.random((3, 1, 1, 12, 1)))).float()
    w = correlation(QKV(*(torch.stack(random_parts(seed)) * scale)), "cosine", heads)[0]
    torch.testing.assert_close(w.diagonal(), torch.ones(12), atol=1e-6, rtol=0)
    torch.testing.assert_close(w, w.T, atol=1e-6, rtol=0)
    assert w.abs().max() <= 1 + 1e-6 and (w - 1).abs().max() > 0.1


# ---------------------------------------------------------------- Eq. 7


@pytest.mark.parametrize("heads", HEADS)
@EXAMPLES
@given(seed=SEEDS, different=st.integers(1, 12), noise=st.sampled_from([0, 1e-7, 1e-4, 1.0]))
def test_eq7_removes_nothing_from_cosines(heads, seed, different, noise):
    """w_ii = 1 is the largest of its row. Also for equal tokens, all of them or some, where the
    mean of the row is 1 itself and rounding decides."""
    rng = np.random.default_rng(seed)
    parts = torch.stack(random_parts(seed))[:, :, :, rng.integers(different, size=12)]
    parts = parts + noise * torch.from_numpy(rng.normal(size=parts.shape)).float()
    rows = patch_part(correlation(QKV(*parts), "cosine", heads))
    assert rows.shape == (1, 11, 11) and eq7_kept(rows).all()


@pytest.mark.parametrize("size", [197, 442])
def test_eq7_removes_nothing_at_real_sizes(size):
    one = random_parts(0, 1, heads=12, width=64)
    uniform = QKV(*(part.expand(-1, -1, size, -1).contiguous() for part in one))
    for parts in (uniform, random_parts(1, size, heads=12, width=64)):
        assert eq7_kept(patch_part(correlation(parts, "cosine"))).all()


def test_eq7_removes_what_others_outweigh():
    """Inner products: a short token among long ones like it correlates with them more than with
    itself; a long one does not, nor does one that is like no other."""
    directions = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0.1], [0, 1]])
    lengths = torch.tensor([0.5, 2, 2, 0.5, 0.5])
    tokens = torch.cat([torch.ones(1, 2), directions * lengths[:, None]])
    rows = patch_part(correlation(QKV(*tokens.expand(3, 1, 1, 6, 2)), "inner_product"))
    assert eq7_kept(rows).tolist() == [[False, True, True, False, True]]


@EXAMPLES
@given(seed=SEEDS, images=st.integers(1, 3))
def test_eq7_is_as_written(seed, images):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(images, 9, 9)).astype(np.float32)
    kept = eq7_kept(torch.from_numpy(w))
    for image, i in itertools.product(range(images), range(9)):
        mean = sum(float(w[image, i, j]) for j in range(9)) / 9
        assert bool(kept[image, i]) == (mean - float(w[image, i, i]) <= 0)


def test_clustering_again_changes_nothing_unless_eq7_drops_a_patch(clip, pixels):
    def clusters(own: Clip, denoise: str, passes: int, **changes: Any) -> torch.Tensor:
        some = {"eps": 0.1, "min_samples": 3, "denoise": denoise, "passes": passes} | changes
        chosen = method("cliptrase", {f"regions.{key}": some[key] for key in some})
        return Graph(own, pixels).clusters(chosen)

    for denoise in ("cls", "none", "eq7"):
        once = clusters(clip, denoise, 1)
        assert torch.equal(clusters(clip, denoise, 2), once)
        assert (once == -1).any() and once.max() > 0
    # with a bias that all tokens share, those that are against it are short
    biased = dataclasses.replace(clip, model=copy.deepcopy(clip.model))
    biased.blocks[clip.block_index(11)].attn.in_proj_bias.mul_(60)
    rows = patch_part(Graph(biased, pixels).correlation(11, "inner_product"))
    dropped = ~eq7_kept(rows)
    inner = {
        "correlation.kind": "inner_product",
        "eps": float(squared_distances(rows).median()) ** 0.5,
    }
    assert dropped.any() and not dropped.all()
    plain, without = (clusters(biased, denoise, 2, **inner) for denoise in ("none", "eq7"))
    assert (plain[dropped] >= 0).any() and (without[dropped] == -1).all()
