"""Every peer's YAML against its formula, written out token by token in float64.

The oracle starts from the tokens that enter the first block and shares no line with the package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from slow_patches import (
    averaged_over_like,
    centred_softmax,
    cosine_matrix,
    factor_outliers,
    repaired_patches,
    sink_outliers,
)
from tests.objects import listed_text, method

from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.attention import self_self, temperature
from cliptrase.model.load import Clip

PATCH, WIDTH, HEADS = 8, 24, 3
PEERS = (
    "maskclip", "clearclip", "naclip", "clip_surgery", "gem", "resclip", "sc_clip", "sfp", "cliper",
)  # fmt: skip
GRIDS = ((4, 4), (5, 7))
NUMBERS = {  # of the papers
    "resclip": {"early_share": 0.5},
    "sc_clip": {"outlier_quantile": 0.95, "similarity_threshold": 0.4, "cls_share": 0.3},
    "sfp": {"most_outliers": 10, "similarity_threshold": 0.4, "cls_share": 0.3},
}
OTHERS = {  # such that some patches are like, and some are not
    "resclip": {"early_share": 0.2},
    "sc_clip": {"outlier_quantile": 0.8, "similarity_threshold": 0.96, "cls_share": 0.7},
    "sfp": {"most_outliers": 3, "similarity_threshold": 0.96, "cls_share": 0.7},
}


def random_clip(layers: int) -> Clip:
    """A CLIP trained on 4 × 4 patches, every parameter random; strong q and k, sharp attention."""
    generator = torch.Generator().manual_seed(layers)
    tower = {
        "image_size": 4 * PATCH, "layers": layers, "width": WIDTH, "head_width": WIDTH // HEADS,
        "patch_size": PATCH,
    }  # fmt: skip
    model = CLIP(16, tower, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for name, parameter in model.visual.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise * (2 if "in_proj" in name else 1) * parameter.shape[-1] ** -0.5)
        else:
            parameter.copy_(noise * 0.5 + (1.0 if ".ln" in name and "weight" in name else 0.0))
    mean = std = (0.5, 0.5, 0.5)
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "tiny", mean, std)


@pytest.fixture(scope="module", params=[12, 6], ids=["12 blocks", "6 blocks"])
def clip(request) -> Clip:
    return random_clip(request.param)


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def grid(request) -> tuple[int, int]:
    return request.param


def pixels(grid: tuple[int, int], count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, grid[0] * PATCH, grid[1] * PATCH, generator=generator)
    return images[:count]


# ---------------------------------------------------------------- the oracle


def array(parameter: Any) -> np.ndarray:
    return parameter.detach().double().numpy()


def norm(token: np.ndarray, ln: Any) -> np.ndarray:
    centred = token - token.mean()
    return centred / math.sqrt((centred**2).mean() + ln.eps) * array(ln.weight) + array(ln.bias)


def softmax(scores: list[float]) -> np.ndarray:
    powers = [math.exp(score - max(scores)) for score in scores]
    return np.array(powers) / sum(powers)


def head_parts(block: Any, tokens: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(q, k, v), each (L, d), of every head."""
    weight, bias = array(block.attn.in_proj_weight), array(block.attn.in_proj_bias)
    joint = np.stack([weight @ norm(token, block.ln_1) + bias for token in tokens])
    d = WIDTH // HEADS
    starts = [head * d for head in range(HEADS)]
    return [
        tuple(joint[:, part * WIDTH + start : part * WIDTH + start + d] for part in range(3))
        for start in starts
    ]


def attention(a: np.ndarray, b: np.ndarray, scale: float, omega: np.ndarray | None = None):
    """softmax(scale·a·bᵀ + omega), one row at a time."""
    rows = []
    for i, query in enumerate(a):
        extra = np.zeros(len(b)) if omega is None else omega[i]
        scores = [scale * float(query @ key) + extra[j] for j, key in enumerate(b)]
        rows.append(softmax(scores))
    return np.stack(rows)


def project_out(block: Any, heads: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(heads, axis=1)
    return joined @ array(block.attn.out_proj.weight).T + array(block.attn.out_proj.bias)


def ffn(block: Any, token: np.ndarray) -> np.ndarray:
    hidden = array(block.mlp.c_fc.weight) @ norm(token, block.ln_2) + array(block.mlp.c_fc.bias)
    hidden = np.array([h / (1 + math.exp(-1.702 * h)) for h in hidden])
    return array(block.mlp.c_proj.weight) @ hidden + array(block.mlp.c_proj.bias)


def with_ffn(block: Any, tokens: np.ndarray) -> np.ndarray:
    return np.stack([token + ffn(block, token) for token in tokens])


def scale_of(q: np.ndarray) -> float:
    return 1 / math.sqrt(q.shape[1])


def clip_block(block: Any, x: np.ndarray) -> np.ndarray:
    heads = [attention(q, k, scale_of(q)) @ v for q, k, v in head_parts(block, x)]
    return with_ffn(block, x + project_out(block, heads))


def naclip_omega(grid: tuple[int, int]) -> np.ndarray:
    """ω of the paper with its σ = 5: between patches only."""
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    omega = np.zeros((1 + len(places), 1 + len(places)))
    for i, (y, x) in enumerate(places, start=1):
        for j, (other_y, other_x) in enumerate(places, start=1):
            omega[i, j] = math.exp(-((y - other_y) ** 2 + (x - other_x) ** 2) / (2 * 5**2))
    return omega


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return np.stack([row / math.sqrt(row @ row) for row in rows])


def gem_heads(block: Any, x: np.ndarray) -> list[np.ndarray]:
    """(A_q + A_k + A_v)·v / 3 of every head, one τ for the image."""
    lengths = [math.sqrt(float(y @ y)) for y in (norm(token, block.ln_1) for token in x)]
    heads = []
    for q, k, v in head_parts(block, x):
        tau = scale_of(q) * sum(lengths) / len(lengths)
        total = np.zeros((len(x), len(x)))
        for p in (q, k, v):
            once = unit_rows(p)
            twice = unit_rows(attention(once, once, tau) @ once)
            total += attention(twice, twice, tau)
        heads.append(total @ v / 3)
    return heads


def inner_blocks(first: int, last: int, depth: int) -> range:
    """Blocks first … last of twelve, counted from 1, in a model of `depth` blocks."""
    ends = [
        block if depth == 12 else max(1, math.floor(block * depth / 12)) for block in (first, last)
    ]
    return range(ends[0], ends[1] + 1)


def tokens_of(
    name: str, blocks: list[Any], entering: list[np.ndarray], grid, numbers: dict[str, float]
) -> np.ndarray:
    """Tokens (L, D) that the method `name` with its `numbers` maps into the joint space."""
    block, x = blocks[-1], entering[-2]
    parts = head_parts(block, x)
    match name:
        case "maskclip":
            return with_ffn(block, x + project_out(block, [v for _, _, v in parts]))
        case "clearclip":
            return project_out(block, [attention(q, q, scale_of(q)) @ v for q, _, v in parts])
        case "naclip":
            omega = naclip_omega(grid)
            heads = [attention(k, k, scale_of(k), omega) @ v for _, k, v in parts]
            return project_out(block, heads)
        case "resclip":
            omega, heads = naclip_omega(grid), []
            for head, (_, k, v) in enumerate(parts):
                early = []
                for number in inner_blocks(6, 9, len(blocks)):
                    q6, k6, _ = head_parts(blocks[number - 1], entering[number - 1])[head]
                    early.append(attention(q6, k6, scale_of(q6)))
                mean = sum(early) / len(early)
                late, share = attention(k, k, scale_of(k), omega), numbers["early_share"]
                heads.append(2 * ((1 - share) * late + share * mean) @ v)
            return project_out(block, heads)
        case "sc_clip":
            outliers = factor_outliers(entering[-2][1:], numbers["outlier_quantile"])
            (at,) = inner_blocks(9, 9, len(blocks))
            similar = cosine_matrix(repaired_patches(entering[at][1:], outliers, grid))
            return purified(blocks, entering, grid, outliers, similar, "k", "k", numbers)
        case "sfp":
            heads = [
                attention(q, k, scale_of(q)) for q, k, _ in head_parts(blocks[-2], entering[-3])
            ]
            outliers = sink_outliers(sum(heads) / HEADS, numbers["most_outliers"])
            (at,) = inner_blocks(9, 9, len(blocks))
            similar = cosine_matrix(repaired_patches(entering[at][1:], outliers, grid))
            similar[similar < numbers["similarity_threshold"]] = 0
            return purified(blocks, entering, grid, outliers, similar, "qk", "", numbers)
        case "cliper":
            return cliper_layers(blocks, entering)[0][-1]
        case "clip_surgery":
            path = entering[-7]  # the input of the last six blocks
            for block, x in zip(blocks[-6:], entering[-7:-1], strict=True):
                parts = head_parts(block, x)
                heads = [attention(v, v, scale_of(v)) @ v for _, _, v in parts]
                path = path + project_out(block, heads)
            return np.stack([entering[-1][0], *path[1:]])
        case "gem":
            path = entering[-7]
            for block, x in zip(blocks[-6:], entering[-7:-1], strict=True):
                path = path + project_out(block, gem_heads(block, x))
            return path
    raise AssertionError(name)


def cliper_layers(
    blocks: list[Any], entering: list[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokens (L, D) of every layer of CLIPer, and the attention (L, L) of the last, mean over
    heads."""
    length = len(entering[0])
    maps = [np.zeros((length, length)) for _ in range(HEADS)]
    for number in inner_blocks(1, 11, len(blocks)):
        for head, (q, k, _) in enumerate(head_parts(blocks[number - 1], entering[number - 1])):
            maps[head] += attention(q, k, scale_of(q))
    layers, weights = [], []
    for block, x in zip(blocks, entering[:-1], strict=True):
        if block is not blocks[-1]:
            x = np.stack([norm(token, block.ln_1) for token in x])
        maps, weights = [rows_and_columns(a) for a in maps], []
        for a in maps:
            both = (a + a.T) / 2
            means = [sum(both[:, j]) / length for j in range(length)]
            above = [[max(x - mean, 0) for x, mean in zip(row, means, strict=True)] for row in both]
            weights.append(np.array([[each / sum(row) for each in row] for row in above]))
        parts = head_parts(blocks[-1], x)
        heads = [b @ v for b, (_, _, v) in zip(weights, parts, strict=True)]
        layers.append(project_out(blocks[-1], heads))
    return layers, sum(weights) / HEADS


def rows_and_columns(a: np.ndarray) -> np.ndarray:
    """Divided by its column sums, then by its row sums."""
    columns = [sum(a[:, j]) for j in range(len(a))]
    even = [[value / columns[j] for j, value in enumerate(row)] for row in a]
    return np.array([[value / sum(row) for value in row] for row in even])


def purified(
    blocks: list[Any],
    entering: list[np.ndarray],
    grid: tuple[int, int],
    outliers: set[int],
    similar: np.ndarray,
    first: str,
    second: str,
    numbers: dict[str, float],
) -> np.ndarray:
    """[CLS] of CLIP, and the sum of two paths through the last block, each averaged over like
    patches of block 4; first, second: q, k or both, whose self-attention the paths take."""
    threshold, share = numbers["similarity_threshold"], numbers["cls_share"]
    early = inner_blocks(4, 10, len(blocks))
    near = cosine_matrix(entering[early[0]][1:])
    mended = repaired_patches(entering[-2][1:], outliers, grid)
    mended = averaged_over_like(similar, mended, threshold)
    total = sum(entering[number] for number in early)
    out = 0
    for cls, patches, terms in (
        (entering[-2][0], mended, first),
        (total[0], total[1:], second),
    ):
        heads = []
        for q, k, v in head_parts(blocks[-1], patches):
            own = [attention(p, p, scale_of(p)) for p in ({"q": q, "k": k}[t] for t in terms)]
            heads.append((centred_softmax(similar) + sum(own)) @ v / (1 + len(own)))
        out = out + averaged_over_like(
            near, project_out(blocks[-1], heads) + share * cls, threshold
        )
    return np.stack([entering[-1][0], *out])


def oracle(
    name: str, clip: Clip, first: torch.Tensor, grid: tuple[int, int], numbers: dict[str, float]
) -> np.ndarray:
    """Normalised features (L, E) of one image, `first` (L, D) the tokens entering block 1."""
    blocks = list(clip.blocks)
    entering = [array(first)]
    for block in blocks:
        entering.append(clip_block(block, entering[-1]))
    tokens = tokens_of(name, blocks, entering, grid, numbers)
    joint = np.stack([norm(t, clip.visual.ln_post) @ array(clip.visual.proj) for t in tokens])
    return unit_rows(joint)


# ---------------------------------------------------------------- the comparison


@pytest.mark.parametrize("name", PEERS)
def test_peer(clip, grid, name):
    images = pixels(grid)
    first = vision.embed_tokens(clip, images)
    numbers = NUMBERS.get(name, {})
    expected = np.stack([oracle(name, clip, tokens, grid, numbers) for tokens in first])
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # two images, not one
    for count in (1, 2):
        graph = Graph(clip, images[:count])
        ours = torch.cat([graph.cls(method(name))[:, None], graph.patches(method(name))], dim=1)
        np.testing.assert_allclose(ours, expected[:count], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_other_numbers_than_the_papers(clip, grid, name):
    first, numbers = vision.embed_tokens(clip, pixels(grid)), OTHERS[name]
    other = method(name, {f"attention.{key}": value for key, value in numbers.items()})
    expected = np.stack([oracle(name, clip, tokens, grid, numbers) for tokens in first])
    ours = Graph(clip, pixels(grid)).patches(other)
    np.testing.assert_allclose(ours, expected[:, 1:], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", PEERS)
def test_a_picture_in_a_batch_is_the_picture_alone_bit_for_bit(clip, grid, name):
    images = pixels(grid)
    together = Graph(clip, images).patches(method(name))
    for image, features in zip(images, together, strict=True):
        assert torch.equal(Graph(clip, image[None]).patches(method(name))[0], features)


def test_a_picture_of_one_patch_and_one_of_equal_patches(clip):
    """Features are finite, and equal patches are equal."""
    alike = random_clip(clip.depth)
    alike.visual.positional_embedding[1:] = alike.visual.positional_embedding[1]
    grey = torch.full((1, 3, 5 * PATCH, 7 * PATCH), 0.3)
    for name in PEERS:
        assert Graph(clip, pixels((1, 1))).patches(method(name)).isfinite().all()
        assert Graph(clip, grey).patches(method(name)).isfinite().all()
        # those prefer near patches, or contrast attentions that are equal but for rounding
        if name not in ("naclip", "resclip", "cliper"):
            features = Graph(alike, grey).patches(method(name))[0]
            torch.testing.assert_close(
                features, features[:1].expand_as(features), atol=1e-4, rtol=0
            )


@pytest.mark.parametrize(
    ("depth", "indices"),
    [(12, [3, 5, 8, 9, 10, 11]), (6, [1, 2, 3, 4, 4, 5]), (24, [7, 11, 17, 19, 22, 23])],
)
def test_inner_blocks_are_counted_in_proportion_but_for_the_last_two(depth, indices):
    clip = random_clip(depth)
    assert [clip.inner_index(block) for block in (4, 6, 9, 10, 11, 12)] == indices


def test_no_peer_is_another_or_a_baseline(clip, grid):
    images = pixels(grid)
    graph = Graph(clip, images)
    names = ["clip", "sclip", *PEERS]
    features = [graph.patches(method(name)) for name in names]
    for i, one in enumerate(features):
        for other in features[:i]:
            assert (one - other).abs().max() > 1e-3  # 50 times what the oracle allows
    words = torch.nn.functional.normalize(features[0][0, :3], dim=-1)
    for name in PEERS:
        classes = graph.prediction(method(name), listed_text(words, 3), "words")
        assert classes.shape == images[:, 0].shape and set(classes.unique().tolist()) <= {0, 1, 2}


def test_a_patch_of_maskclip_knows_no_other_patch(clip, grid):
    """A change of one token entering the last block reaches that token alone."""
    generator = torch.Generator().manual_seed(8)
    tokens = torch.randn(1, 1 + grid[0] * grid[1], WIDTH, generator=generator)
    changed = tokens.clone()
    changed[0, 4] *= -1
    last = clip.depth - 1
    for kind, terms, alone in (("identity", [], True), ("softmax", ["qk"], False)):
        one, other = (
            vision.finish(clip, last, x, vision.attend(vision.qkv(clip, last, x), kind, terms))
            for x in (tokens, changed)
        )
        differs = ((one - other).abs() > 1e-6).any(dim=-1)[0]
        assert differs[4] and (int(differs.sum()) == 1) is alone


def test_maskclip_without_residual_and_ffn_is_the_projected_value(clip, grid):
    images = pixels(grid, 1)
    bare = method("maskclip", {"attention.residual": False, "attention.ffn": False})
    graph = Graph(clip, images)
    blocks, x = list(clip.blocks), array(vision.embed_tokens(clip, images)[0])
    for block in blocks[:-1]:
        x = clip_block(block, x)
    tokens = project_out(blocks[-1], [v for _, _, v in head_parts(blocks[-1], x)])
    joint = np.stack([norm(t, clip.visual.ln_post) @ array(clip.visual.proj) for t in tokens])
    expected = joint / np.linalg.norm(joint, axis=1, keepdims=True)
    np.testing.assert_allclose(graph.patches(bare)[0], expected[1:], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def parts(clip, grid) -> vision.QKV:
    return vision.qkv(clip, 1, vision.embed_tokens(clip, pixels(grid)))


@pytest.mark.parametrize(
    ("kind", "terms", "omega", "rows_sum_to"),
    [
        ("identity", [], None, 1),
        ("softmax", ["qq"], None, 1),
        ("softmax", ["kk"], 5.0, 1),
        ("softmax", ["qq", "kk"], 2.0, 2),
    ],
)
def test_rows_of_the_attention_sum_to_the_number_of_softmaxes(
    parts, grid, kind, terms, omega, rows_sum_to
):
    bias = omega and vision.neighbourhood(*grid, omega, torch.device("cpu"))
    mixed = vision.attend(parts._replace(v=torch.ones_like(parts.v)), kind, terms, bias)
    torch.testing.assert_close(mixed, torch.full_like(mixed, rows_sum_to))


@pytest.mark.parametrize("terms", [["qq"], ["qq", "kk", "vv"]])
def test_rows_of_gem_sum_to_one_however_many_terms(parts, terms):
    tau = torch.tensor([2.0, 30.0])
    mixed = self_self(parts._replace(v=torch.ones_like(parts.v)), tau, terms)
    if "vv" not in terms:  # where v is compared too, ones are all alike
        other = self_self(parts, tau, terms)
        assert (other - other.mean(dim=1, keepdim=True)).abs().max() > 0.01
    torch.testing.assert_close(mixed, torch.ones_like(mixed))


def test_the_temperature_of_gem_is_one_of_each_image_over_all_its_tokens(clip, grid):
    tokens = vision.embed_tokens(clip, pixels(grid)).clone()
    tokens[:, 0] = clip.blocks[0].ln_1.weight.abs() ** 4  # a [CLS] that stands out
    taus = torch.stack([temperature(clip, 0, x[None])[0] for x in tokens])
    assert torch.equal(temperature(clip, 0, tokens), taus)
    for image, tau in zip(tokens, taus, strict=True):
        normed = [norm(token, clip.blocks[0].ln_1) for token in array(image)]
        lengths = [math.sqrt(float(y @ y)) for y in normed]
        expected = (WIDTH / HEADS) ** -0.5 * sum(lengths) / len(lengths)
        assert float(tau) == pytest.approx(expected, rel=1e-5)
        assert abs(np.mean(lengths) / np.mean(lengths[1:]) - 1) > 1e-3
    assert abs(float(taus[0] / taus[1]) - 1) > 1e-4


def test_cls_of_clip_surgery_is_clips_own_and_gems_is_not(clip, grid):
    graph = Graph(clip, pixels(grid))
    own = graph.cls(method("clip"))
    assert torch.equal(graph.cls(method("clip_surgery")), own)
    assert (graph.cls(method("gem")) - own).abs().max() > 0.01


def test_two_paths_need_their_blocks():
    graph = Graph(random_clip(5), pixels((3, 5)))
    for name in ("clip_surgery", "gem"):
        with pytest.raises(UserError, match="block 7 does not exist in a model of 5 blocks"):
            graph.patches(method(name))
        assert graph.patches(method(name, {"attention.first_block": 8})).shape == (2, 15, 16)


def test_naclip_without_its_neighbourhood_is_key_key_attention(clip, grid, parts):
    graph = Graph(clip, pixels(grid))
    without = method("naclip", {"attention.omega": None})
    plain = method("clearclip", {"attention.terms": ["kk"]})
    assert without.attention == plain.attention
    assert torch.equal(graph.patches(without), graph.patches(plain))
    nothing = torch.zeros_like(vision.neighbourhood(*grid, 5.0, torch.device("cpu")))
    torch.testing.assert_close(
        vision.attend(parts, "softmax", ["kk"], nothing), vision.attend(parts, "softmax", ["kk"])
    )
    # as wide as can be, every patch gains the same: only [CLS] loses weight, no patch to another
    even = vision.neighbourhood(*grid, 1e6, torch.device("cpu"))
    assert (even[1:, 1:] == 1).all() and (even[0] == 0).all() and (even[:, 0] == 0).all()


def test_neighbourhood(grid):
    ours = vision.neighbourhood(*grid, 5.0, torch.device("cpu"))
    np.testing.assert_allclose(ours, naclip_omega(grid), atol=1e-6)
