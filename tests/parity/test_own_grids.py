"""Methods whose features lie on the patches of a network beside CLIP, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from random_dinos import MEAN, STD, named, random_dino
from random_sams import SIDE, random_sam, released
from random_sams import WIDTH as SAM_WIDTH
from segment_anything import SamPredictor
from slow_patches import centred_softmax, cosine_matrix, resized_patches
from tests.objects import changed, listed_text, method
from tests.parity.test_peers import (
    PATCH,
    WIDTH,
    array,
    clip_block,
    head_parts,
    norm,
    project_out,
    random_clip,
    softmax,
    unit_rows,
)

from cliptrase.config import resolve
from cliptrase.config.files import CONF
from cliptrase.config.method import Pamr
from cliptrase.errors import UserError
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job, operations
from cliptrase.evaluate.protocols import Shown, Slide
from cliptrase.model import vision
from cliptrase.model.dino import Dino
from cliptrase.model.load import Clip
from cliptrase.model.sam import Sam
from cliptrase.runs.provenance import Stages
from cliptrase.segment.logits import patch_logits

GRIDS = ((4, 4), (5, 7))
DINO, SAM = named("dino", "random", 4), named("sam", "random")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return random_clip(2)  # of few blocks: the patches of a random one become alike in more


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def grid(request) -> tuple[int, int]:
    return request.param


def pictures(grid: tuple[int, int], count: int = 2) -> np.ndarray:
    """(count, H, W, 3) uint8, each patch one of four, and noise: some patches are like others."""
    random = np.random.default_rng(sum(grid))
    which = random.integers(0, 4, (count, *grid)).repeat(PATCH, 1).repeat(PATCH, 2)
    y, x = np.indices(which.shape[1:]) % PATCH
    textures = random.integers(0, 256, (4, PATCH, PATCH, 3))[which, y, x]
    noisy = textures + random.normal(0, 20, textures.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def graph_of(clip: Clip, dino: Dino, seen: np.ndarray, sam: Sam | None = None) -> Graph:
    networks = {DINO.key: dino, SAM.key: sam}
    return Graph(clip, clip.normalise(seen), networks=networks)


def proxyclip(**changes):
    return changed(method("proxyclip"), {"dino": DINO, **changes})


def trident():
    return changed(method("trident"), {"dino": DINO, "sam": SAM})


# ---------------------------------------------------------------- the oracle


def dino_tokens(dino: Dino, seen: np.ndarray) -> np.ndarray:
    """timm's own forward on a picture (H, W, 3), without [CLS]: (N', D)."""
    pixels = (seen / 255.0 - np.array(MEAN)) / np.array(STD)
    pixels = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    return array(dino.model.forward_features(pixels)[0, 1:])


def blocks_of(clip: Clip, pixels: torch.Tensor) -> list[np.ndarray]:
    """The tokens entering each block, and those after the last, of normalised pixels (3, H, W)."""
    entering = [array(vision.embed_tokens(clip, pixels[None])[0])]
    for block in clip.blocks:
        entering.append(clip_block(block, entering[-1]))
    return entering


def projected(clip: Clip, tokens: np.ndarray) -> np.ndarray:
    joint = [norm(token, clip.visual.ln_post) @ array(clip.visual.proj) for token in tokens]
    return unit_rows(np.stack(joint))


def proxied(
    clip: Clip,
    before: np.ndarray,
    similar: np.ndarray,
    grid: tuple[int, int],
    other: tuple[int, int],
    mean: float | None = None,
) -> np.ndarray:
    """Patches of the last block, `before` those entering it, mixed on another grid. mean: of the
    similarity, where it is not of this picture alone."""
    times = 1.2 if mean is None else 1.2 * mean / similar.mean()
    weights, block = centred_softmax(similar, times), clip.blocks[-1]
    heads = [weights @ resized_patches(v[1:], grid, other) for _, _, v in head_parts(block, before)]
    return project_out(block, heads)


def expected_proxyclip(
    clip: Clip, dino: Dino, seen: np.ndarray, grid: tuple[int, int], other: tuple[int, int]
) -> np.ndarray:
    entering = blocks_of(clip, clip.normalise(seen[None])[0])
    similar = cosine_matrix(dino_tokens(dino, seen))
    patches = proxied(clip, entering[-2], similar, grid, other)
    return projected(clip, np.stack([entering[-1][0], *patches]))


def sam_heads(sam: Sam, seen: np.ndarray) -> tuple[list, tuple[int, int]]:
    """(attention (N, N), values (N, d)) of each head in the last block of the released encoder,
    pair by pair; of the N patches that lie wholly in the picture (H, W, 3)."""
    network = released(sam)
    encoder, predictor = network.image_encoder, SamPredictor(network)
    pixels = torch.as_tensor(predictor.transform.apply_image(seen)).permute(2, 0, 1)
    tokens = encoder.patch_embed(network.preprocess(pixels[None].float())) + encoder.pos_embed
    for block in encoder.blocks[:-1]:
        tokens = block(tokens)
    block, side = encoder.blocks[-1], tokens.shape[1]
    places = [(y, x) for y in range(side) for x in range(side)]
    joint = [block.attn.qkv(block.norm1(tokens[0, y, x])) for y, x in places]
    q, k, v = (
        array(torch.stack(joint)).reshape(len(places), 3, block.attn.num_heads, -1)[:, part]
        for part in range(3)
    )
    down, across = array(block.attn.rel_pos_h), array(block.attn.rel_pos_w)
    grid = tuple(max(1, pixels.shape[axis] // (SIDE // side)) for axis in (1, 2))
    inside = [i for i, (y, x) in enumerate(places) if y < grid[0] and x < grid[1]]
    heads = []
    for head in range(block.attn.num_heads):
        rows = []
        for i in inside:
            query, (y, x) = q[i, head], places[i]
            scores = [
                query @ k[j, head] * len(query) ** -0.5
                + query @ down[y - places[j][0] + side - 1]
                + query @ across[x - places[j][1] + side - 1]
                for j in range(len(places))
            ]
            rows.append(softmax(scores)[inside])
        heads.append((np.array(rows), v[inside, head]))
    return heads, grid


def refined_rows(heads: list) -> tuple[np.ndarray, np.ndarray]:
    """The rows of Trident's attention, and which entries of each head are kept."""
    alike = np.array([cosine_matrix(values) for _, values in heads])
    kept, rows = np.zeros(alike.shape, bool), []
    for i in range(alike.shape[1]):
        least = min(1.2 * alike[:, i].mean(), 0.9)
        row = np.zeros(alike.shape[2])
        for head, (attention, _) in enumerate(heads):
            for j in range(len(row)):
                if alike[head, i, j] > least:
                    row[j] += attention[i, j] / len(heads)
                    kept[head, i, j] = True
        rows.append(row / row.sum())
    return np.array(rows), kept


def expected_trident(
    clip: Clip,
    dino: Dino,
    heads: tuple[list, tuple[int, int]],
    seen: np.ndarray,
    grid: tuple[int, int],
) -> np.ndarray:
    entering = blocks_of(clip, clip.normalise(seen[None])[0])
    other = tuple(side // dino.patch for side in seen.shape[:2])
    similar = cosine_matrix(dino_tokens(dino, seen))
    patches = proxied(clip, entering[-2], similar, grid, other)
    refined = refined_rows(heads[0])[0] @ resized_patches(patches, other, heads[1])
    return projected(clip, np.stack([entering[-1][0], *refined]))


# ---------------------------------------------------------------- the comparison


@pytest.mark.parametrize("patch", [4, 8])  # a grid of its own, and CLIP's
def test_proxyclip(clip, grid, patch):
    seen = pictures(grid)
    dino = random_dino(patch, seen.shape[1:3])
    other = (seen.shape[1] // patch, seen.shape[2] // patch)
    expected = np.stack([expected_proxyclip(clip, dino, each, grid, other) for each in seen])
    similar = cosine_matrix(dino_tokens(dino, seen[0]))
    kept = (similar >= 1.2 * similar.mean()).mean()
    assert 0.1 < kept < 0.9 and np.abs(expected[0] - expected[1]).max() > 0.01
    for count in (1, 2):
        graph, asked = graph_of(clip, dino, seen[:count]), proxyclip()
        assert graph.feature_grid(asked) == other
        ours = torch.cat([graph.cls(asked)[:, None], graph.patches(asked)], dim=1)
        np.testing.assert_allclose(ours, expected[:count], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return random_sam(whole=(1, 2))


# the last grid is so long that no patch of SAM lies wholly in the picture
@pytest.mark.parametrize("grid", [*GRIDS, (1, 1), (1, 20)])
def test_trident(clip, sam, grid):
    seen = pictures(grid)
    dino = random_dino(4, seen.shape[1:3])
    heads = [sam_heads(sam, each) for each in seen]
    lie = {(4, 4): (8, 8), (5, 7): (5, 8), (1, 1): (8, 8), (1, 20): (1, 8)}[grid]
    assert {each[1] for each in heads} == {lie}
    assert 0.1 < refined_rows(heads[0][0])[1].mean() < 0.9
    expected = np.stack(
        [expected_trident(clip, dino, *pair, grid) for pair in zip(heads, seen, strict=True)]
    )
    for count in (1, 2):
        graph, asked = graph_of(clip, dino, seen[:count], sam), trident()
        assert graph.feature_grid(asked) == lie
        ours = torch.cat([graph.cls(asked)[:, None], graph.patches(asked)], dim=1)
        np.testing.assert_allclose(ours, expected[:count], atol=2e-5, rtol=0)


def test_values_that_are_all_alike_keep_the_whole_attention_of_sam(clip):
    """0.9 is asked of them, not 1.2 times their mean."""
    sam = random_sam(whole=(2,))
    sam.model.vision_encoder.layers[-1].attn.qkv.weight[2 * SAM_WIDTH :] = 0  # values: the bias
    seen = pictures((5, 7), 1)
    dino = random_dino(4, (40, 56))
    heads = sam_heads(sam, seen[0])
    assert refined_rows(heads[0])[1].all()
    expected = expected_trident(clip, dino, heads, seen[0], (5, 7))
    ours = graph_of(clip, dino, seen, sam).patches(trident())[0]
    np.testing.assert_allclose(ours, expected[1:], atol=2e-5, rtol=0)


def test_a_sam_whose_last_block_sees_windows_is_refused(clip):
    graph = graph_of(clip, random_dino(4, (32, 32)), pictures((4, 4)), random_sam(whole=(1,)))
    with pytest.raises(UserError, match=r"method.sam: the last encoder block of random .* windows"):
        graph.patches(trident())


@pytest.mark.parametrize("asked", [proxyclip, trident])
def test_a_picture_in_a_batch_is_the_picture_alone_bit_for_bit(clip, sam, grid, asked):
    seen = pictures(grid, 3)
    dino = random_dino(4, seen.shape[1:3])
    together = graph_of(clip, dino, seen, sam).patches(asked())
    for picture, features in zip(seen, together, strict=True):
        alone = graph_of(clip, dino, picture[None], sam).patches(asked())
        assert torch.equal(alone[0], features)


def test_one_patch_and_equal_patches_attend_to_themselves(clip):
    """1.2 times the mean of equal similarities is above all of them: the attention is the
    identity, where the released code gives NaN."""
    one = pictures((1, 1))
    dino = random_dino(8, (PATCH, PATCH))
    expected = [expected_proxyclip(clip, dino, each, (1, 1), (1, 1)) for each in one]
    features = graph_of(clip, dino, one).patches(proxyclip())
    np.testing.assert_allclose(features, np.stack(expected)[:, 1:], atol=2e-5, rtol=0)
    alike = random_dino(4, (40, 56))
    alike.model.norm.weight.zero_()  # every token is the norm's bias
    seen = pictures((5, 7), 1)
    values = head_parts(clip.blocks[-1], blocks_of(clip, clip.normalise(seen)[0])[-2])
    own = [resized_patches(v[1:], (5, 7), (10, 14)) for _, _, v in values]
    features = graph_of(clip, alike, seen).patches(proxyclip())[0]
    np.testing.assert_allclose(
        features, projected(clip, project_out(clip.blocks[-1], own)), atol=2e-5, rtol=0
    )


# ---------------------------------------------------------------- sliding windows


@pytest.mark.parametrize("patch", [4, 8, 16])  # of DINO: finer than CLIP's, CLIP's, coarser
def test_trident_sees_a_picture_of_windows_whole(clip, sam, patch):
    """Windows of 32 every 16 pixels over 44 × 58, which is padded to 48 × 64: windows are averaged
    on CLIP's patches, then SAM sees all of the picture."""
    picture = pictures((6, 8), 1)[0, :44, :58]
    pixels = torch.zeros(3, 48, 64)
    pixels[:, :44, :58] = clip.normalise(picture[None])[0]
    whole = clip.denormalise(pixels[None])[0]
    dino, (grid, other) = random_dino(patch, (32, 32)), ((4, 4), (32 // patch, 32 // patch))
    corners = [(y, x) for y in (0, 16) for x in (0, 16, 32)]
    cut = [(slice(y, y + 32), slice(x, x + 32)) for y, x in corners]
    similar = [cosine_matrix(dino_tokens(dino, whole[each])) for each in cut]
    mean = float(np.mean(similar))
    assert np.ptp([each.mean() for each in similar]) > 0.01
    total, count, cls = np.zeros((6, 8, WIDTH)), np.zeros((6, 8, 1)), []
    for (y, x), each, alike in zip(corners, cut, similar, strict=True):
        entering = blocks_of(clip, pixels[:, *each])
        patches = proxied(clip, entering[-2], alike, grid, other, mean)
        rows, columns = slice(y // 8, y // 8 + 4), slice(x // 8, x // 8 + 4)
        total[rows, columns] += resized_patches(patches, other, grid).reshape(4, 4, -1)
        count[rows, columns] += 1
        cls.append(entering[-1][0])
    heads, lie = sam_heads(sam, whole)
    patches = resized_patches((total / count).reshape(48, -1), (6, 8), lie)
    tokens = np.stack([np.mean(cls, axis=0), *(refined_rows(heads)[0] @ patches)])
    expected = projected(clip, tokens)

    features = torch.from_numpy(expected[1:]).float()
    text = words_of(features)
    networks = {DINO.key: dino, SAM.key: sam}
    jobs = {
        name: Job(asked, 40.0, "", "words", text, networks=networks)
        for name, asked in (("trident", trident()), ("proxyclip", proxyclip()))
    }
    shown = Shown(picture, (90, 110))
    windows = Slide(32, 44, 16)._windows(
        clip, clip.normalise(picture[None])[0], {"": jobs["trident"]}, 2, Stages()
    )
    (only,) = windows[""]
    logits = expected[1:] @ text.features.double().numpy().T
    assert only.size == (48, 64) and only.logits.shape[1:] == lie == (6, 8)
    np.testing.assert_allclose(only.logits.flatten(1).T, logits, atol=2e-5, rtol=0)

    maps = torch.from_numpy(logits).T.unflatten(1, lie)[None]
    maps = torch.nn.functional.interpolate(maps, size=(48, 64), mode="bilinear")[..., :44, :58]
    maps = torch.nn.functional.interpolate(maps, size=(90, 110), mode="bilinear")
    labels = text.owner[maps.argmax(dim=1)]
    together = Slide(32, 44, 16).maps(clip, [shown], jobs, 4, Stages())
    for name, job in jobs.items():
        alone = Slide(32, 44, 16).maps(clip, [shown], {name: job}, 1, Stages())
        np.testing.assert_array_equal(together[name].classes, alone[name].classes)
    assert (together["trident"].classes != labels.numpy()).mean() < 0.002  # ties, but for rounding
    assert len(np.unique(labels)) > 1


# ---------------------------------------------------------------- features on a grid of their own


def words_of(features: torch.Tensor) -> Text:
    """Names that are what sets some of the patches (N, E) apart."""
    apart = features[::20] - features.mean(dim=0)
    return listed_text(torch.nn.functional.normalize(apart, dim=-1), len(apart))


def test_logits_classes_and_what_is_encoded_lie_on_the_grid_of_the_features(clip):
    seen, asked = pictures((5, 7)), proxyclip(cls_logits=True)
    graph = graph_of(clip, random_dino(4, seen.shape[1:3]), seen)
    text = words_of(graph.patches(asked)[0])
    logits = graph.logits(asked, text, "words", 100.0)
    cls = graph.cls(method("clip"))  # of the unmodified model
    expected = patch_logits(graph.patches(asked), text.features, (10, 14), 100.0, cls)
    assert logits.shape[2:] == (10, 14) and torch.equal(logits, expected)
    for each, least in ((asked, 1), (proxyclip(), 3)):
        classes = graph.prediction(each, text, "words")
        assert classes.shape == (2, 40, 56) and len(classes.unique()) >= least
        assert torch.equal(graph.encode(each).classify(text), classes)


def test_regions_of_clip_vote_on_features_of_another_grid(clip):
    """The soft vote: the class with the largest mean of the upsampled logits in the region."""
    seen = pictures((5, 7))
    regions = changed(method().regions, {"vote": "soft", "eps": 0.3, "min_samples": 2})
    asked = proxyclip(regions=regions)
    graph = graph_of(clip, random_dino(4, seen.shape[1:3]), seen)
    text = words_of(graph.patches(asked)[0])
    logits = graph.logits(asked, text, "words", 100.0)
    pixels = torch.nn.functional.interpolate(logits.double(), size=(40, 56), mode="bilinear")
    found, classes = graph.regions(asked), graph.prediction(asked, text, "words")
    assert int(found.max()) > 0
    for each, where, maps in zip(classes, found, pixels, strict=True):
        for region in where.unique().tolist():
            inside = where == region
            if region >= 0:
                assert (each[inside] == text.owner[maps[:, inside].mean(dim=1).argmax()]).all()
    on_features = changed(asked, {"regions.cluster": "features"})
    with pytest.raises(UserError, match=r"10 × 14 patches, .* 5 × 7; take method.regions.cluster="):
        graph.clusters(on_features)


def test_two_networks_in_one_pass_share_no_features(clip, sam):
    seen = pictures((4, 4), 1)
    networks = {
        named("dino", name).key: random_dino(4, (32, 32), seed)
        for seed, name in enumerate(("a", "b"))
    }
    graph = Graph(clip, clip.normalise(seen), networks=networks)
    first, second = (graph.patches(proxyclip(dino=named("dino", name, 4))) for name in ("a", "b"))
    assert (first - second).abs().max() > 0.01
    beside = {
        DINO.key: random_dino(4, (32, 32)),
        SAM.key: sam,
        named("sam", "other").key: random_sam(1, whole=(2,)),
    }
    graph = Graph(clip, clip.normalise(seen), networks=beside)
    first, second = (
        graph.patches(changed(trident(), {"sam": named("sam", name)}))
        for name in ("random", "other")
    )
    assert (first - second).abs().max() > 0.01


def test_runs_of_one_pass_share_nothing_that_another_network_or_option_decides(clip, sam):
    """Spread logits, cut masks, scopes and refined pixels."""
    seen = pictures((4, 4), 1)
    ones, others = named("dino", "a", 4), named("dino", "b", 4)
    networks = {key: random_dino(4, (32, 32), s) for s, key in enumerate((ones.key, others.key))}
    graph = Graph(clip, clip.normalise(seen), networks={**networks, SAM.key: sam})
    text = listed_text(graph.patches(method("clearclip"))[0, ::5], 4)

    def logits(asked):
        return graph.logits(asked, text, "words", 100.0)

    for name, made in (("lposs", logits), ("lavg", graph.clusters), ("corrclip", graph.patches)):
        asked = [changed(method(name), {"dino": each, "sam": SAM}) for each in (ones, others)]
        assert not torch.equal(*map(made, asked)), name
    lposs = changed(method("lposs"), {"dino": ones})
    assert not torch.equal(logits(lposs), logits(changed(lposs, {"solver": "exact"})))
    refined = Pamr(steps=3, dilations=(1, 2))
    plain, smooth = (
        graph.prediction(changed(method("clearclip"), {"pamr": pamr}), text, "words")
        for pamr in (None, refined)
    )
    assert not torch.equal(plain, smooth)


def test_operations_are_counted(clip, sam):
    """More than those of CLIP alone: the blocks of the second networks and the mixing."""
    seen = pictures((4, 4), 1)
    dino = random_dino(4, (32, 32))
    counts = [
        operations(lambda asked=asked: graph_of(clip, dino, seen, sam).patches(asked))
        for asked in (method("clearclip"), proxyclip(), trident())
    ]
    assert counts[1] > counts[0] + 2 * 64 * 64 * 24  # A·v alone
    assert counts[2] > counts[1] + 3 * 2 * 64 * 64 * 32  # q·k, u·u and Â·z alone


# ---------------------------------------------------------------- configuration


def test_a_run_names_the_network_that_its_attention_reads():
    run = resolve(["benchmark=voc20", "model=vit_b16", "method=proxyclip"])
    assert run.backbones.dino.label == "dino_b8" and run.backbones.sam is None
    assert [each.label for each in run.method.networks] == ["dino_b8"]
    assert run.identity["backbones"].keys() == {"dino"}
    other = resolve([*run.overrides, "method.dino=dino_b16"])
    assert other.sha256 != run.sha256 and "dino-dino_b16" in other.name
    both = resolve(["benchmark=voc20", "model=vit_b16", "method=trident"])
    assert (both.backbones.dino.label, both.backbones.sam.label) == ("dino_b16", "sam_vit_b")
    embedded = resolve(["benchmark=shapes", "method=trident"]).backbones
    assert (embedded.dino.label, embedded.sam.label) == ("shapes_dino", "shapes_sam")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("proxyclip method.dino=null", ["kind=proxyclip: needs method.dino=", "auto"]),
        ("proxyclip method.dino=sam_vit_b", ["method.dino=sam_vit_b", "not a ViT of timm"]),
        ("proxyclip method.attention.ffn=true", ["the last block alone"]),
        ("trident method.sam=null", ["attention.kind=trident: needs method.sam=", "auto"]),
        ("trident method.dino=null", ["attention.kind=trident: needs method.dino=", "auto"]),
        ("trident method.attention.terms=[kk]", ["take []"]),
        ("trident protocol=slide protocol.stride=100", ["stride=100", "take a multiple of 16"]),
    ],
)
def test_what_cannot_be_is_one_message(overrides, words):
    with pytest.raises(UserError) as caught:
        resolve(["benchmark=voc20", "model=vit_b16", *f"method={overrides}".split()])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "source", "words"),
    [
        ("proxyclip", "clip", ["of 8 pixels of dino_b8", "those of 16 pixels of vit_b16"]),
        ("trident", "clip", ["features lie on the patches of SAM"]),
        ("trident", "dino", ["features lie on the patches of SAM", "of 8 pixels of dino_b8"]),
        ("proxyclip", "dino", []),
    ],
)
def test_only_features_on_the_patches_of_the_correlation_are_clustered(
    kind, source, words, tmp_path, monkeypatch
):
    """A method of one's own; where all lie on DINO's patches, they are."""
    mine = yaml.safe_load((CONF / "method" / "cliptrase.yaml").read_text())
    other = {"kind": kind, "terms": [], "residual": False, "ffn": False}
    mine["attention"] = {"first_block": 12, "last_block": 12, **other}
    mine["regions"]["cluster"] = "features"
    if source == "dino":
        mine["regions"]["correlation"] = {"source": "dino", "kind": "cosine"}
    mine |= {"name": "mine", "dino": "dino_b8", "sam": "sam_vit_b"}
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(yaml.safe_dump(mine))
    monkeypatch.setenv("CLIPTRASE_CONF", str(tmp_path))
    asked = ["benchmark=voc20", "model=vit_b16", "method=mine"]
    if not words:
        assert resolve(asked).method.regions.cluster == "features"
        return
    with pytest.raises(UserError, match=r"regions\.cluster=features") as caught:
        resolve(asked)
    for word in words:
        assert word in str(caught.value)
