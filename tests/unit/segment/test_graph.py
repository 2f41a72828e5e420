"""The graph: what runs share is computed once, what none asks for never; company is harmless."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from tests import objects
from tests.objects import listed_text

from cliptrase.errors import UserError
from cliptrase.evaluate import encoded
from cliptrase.evaluate import graph as module
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import Graph
from cliptrase.model import vision
from cliptrase.model.load import Clip
from cliptrase.segment import clustering, vote

REGIONS = {"eps": 0.35}


def method(terms=("qq", "kk", "vv"), cls_logits=False, regions=REGIONS, first=12, last=12):
    changes = {"regions": None}
    if regions is not None:
        changes = {f"regions.{key}": value for key, value in regions.items()}
    changes |= {"attention.first_block": first, "attention.last_block": last}
    return objects.method(
        "cliptrase", changes | {"attention.terms": terms, "cls_logits": cls_logits}
    )


CLIPTRASE, SCLIP = method(), method(["qq", "kk"], regions=None)
PLAIN = method(["qk"], regions=None)


@pytest.fixture(scope="module")
def clip() -> Clip:
    generator = torch.Generator().manual_seed(0)
    cfg = {"image_size": 64, "layers": 12, "width": 48, "head_width": 16, "patch_size": 8}
    model = CLIP(24, cfg, {"width": 16, "heads": 1, "layers": 1}, quick_gelu=True)
    model.eval().requires_grad_(False)
    for parameter in model.visual.parameters():
        if parameter.ndim > 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    mean = std = (0.5, 0.5, 0.5)
    return Clip(model, open_clip.SimpleTokenizer(), torch.device("cpu"), "tiny", mean, std)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """(4, 3, 64, 64): flat quarters, so that patches cluster."""
    generator = torch.Generator().manual_seed(1)
    flat = torch.randn(4, 3, 2, 2, generator=generator).repeat_interleave(32, 2)
    noise = torch.randn(4, 3, 64, 64, generator=generator)
    return flat.repeat_interleave(32, 3) + 0.2 * noise


def text(classes: int, background: int = 0, seed: int = 0) -> Text:
    features = torch.randn(classes + background, 24, generator=torch.Generator().manual_seed(seed))
    return listed_text(F.normalize(features, dim=-1), classes)


@pytest.fixture
def counted(monkeypatch):
    """How often the expensive functions are called."""
    calls: dict[str, int] = {}

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            calls[name] = calls.get(name, 0) + 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    for name in ("embed_tokens", "qkv", "finish", "project"):
        count(vision, name)
    count(encoded, "classify")
    for name in ("correlation", "prototypes", "region_maps"):
        count(module, name)
    for name in ("squared_distances", "dbscan"):
        count(clustering, name)
    count(vote, "hard_vote")
    return calls


def test_three_methods_and_two_vocabularies_are_one_pass_through_the_model(clip, pixels, counted):
    graph = Graph(clip, pixels[:1])
    for chosen in (PLAIN, SCLIP, CLIPTRASE):
        for key, words in (("voc20", text(5)), ("voc21", text(5, 3))):
            graph.prediction(chosen, words, key, 100.0)
    assert counted["embed_tokens"] == 1
    assert counted["qkv"] == 12  # block 12's are shared by all three
    assert counted["finish"] == 12 + 2
    assert counted["project"] == 3
    assert counted["classify"] == 6
    assert counted["correlation"] == counted["dbscan"] == counted["region_maps"] == 1
    assert counted["hard_vote"] == 2


def test_classes_that_own_the_same_names_otherwise_share_all_before_the_vote(clip, pixels, counted):
    words = text(5, 3)
    of_objects = Text(words.features, words.owner.clamp_min(2) - 2)
    graph = Graph(clip, pixels[:1])
    first = graph.prediction(CLIPTRASE, words, "as listed", 100.0)
    other = graph.prediction(CLIPTRASE, of_objects, "of objects", 100.0)
    assert counted["classify"] == 1 and counted["hard_vote"] == 2
    alone = Graph(clip, pixels[:1]).prediction(CLIPTRASE, of_objects, "of objects", 100.0)
    assert torch.equal(other, alone) and not torch.equal(other, first)


def test_a_grid_of_clusterings_shares_all_but_the_cells(clip, pixels, counted, monkeypatch):
    smoothed: list[int] = []

    def noted(prototypes, *shape):
        smoothed.append(len(prototypes))
        return smooth_maps(prototypes, *shape)

    smooth_maps = module.smooth_maps
    monkeypatch.setattr(module, "smooth_maps", noted)
    graph = Graph(clip, pixels[:1])
    eps_values, min_samples = (0.2, 0.3, 0.4, 0.5), (2, 3, 5, 8)
    seen, sets = set(), set()
    for eps in eps_values:
        for least in min_samples:
            cell = method(regions={"eps": eps, "min_samples": least})
            graph.prediction(cell, text(5), "words", 100.0)
            labels = graph.clusters(cell)[0]
            seen.add(labels.numpy().tobytes())
            clusters = range(int(labels.max()) + 1)
            sets |= {(labels == cluster).numpy().tobytes() for cluster in clusters}
    assert counted["squared_distances"] == counted["classify"] == counted["correlation"] == 1
    assert counted["dbscan"] == 16
    assert 1 < counted["region_maps"] <= len(seen) < 16
    assert counted["hard_vote"] <= len(seen)
    assert sum(smoothed) == len(sets), "each set of patches once"
    assert counted["prototypes"] <= len(seen)


@pytest.mark.parametrize("chosen", [PLAIN, method(regions={**REGIONS, "vote": "none"})])
def test_nothing_is_clustered_without_a_vote(clip, pixels, counted, chosen):
    Graph(clip, pixels[:1]).prediction(chosen, text(5), "words", 100.0)
    assert not {"correlation", "squared_distances", "dbscan", "hard_vote"} & set(counted)


def test_blocks_after_the_last_one_asked_for_are_not_run(clip, pixels, counted):
    chosen = method(first=9, last=9, regions=None)
    Graph(clip, pixels[:1]).prediction(chosen, text(5), "words", 100.0)
    assert counted["finish"] == 9


METHODS = {
    "clip": PLAIN,
    "sclip": SCLIP,
    "cliptrase": CLIPTRASE,
    "cls": method(cls_logits=True),
    "pc": method(regions={"denoise": "none", "eps": 0.6}),
    "inner": method(regions={"correlation.kind": "inner_product", "eps": 0.5}),
    "features": method(regions={"cluster": "features", "eps": 0.2}),
    "layer 9": method(first=9),
    "other cell": method(regions={"eps": 0.3, "min_samples": 2}),
}


@pytest.mark.parametrize("name", METHODS)
def test_company_changes_no_bit(clip, pixels, name):
    alone = Graph(clip, pixels[:1])
    crowd = Graph(clip, pixels[:1])
    words = text(5, 3)
    for other in (*reversed(METHODS), name):
        crowd.prediction(METHODS[other], words, "words", 100.0)
        crowd.prediction(METHODS[other], text(7), "other words", 100.0)
    chosen = METHODS[name]
    assert torch.equal(alone.patches(chosen), crowd.patches(chosen))
    ours, theirs = (g.prediction(chosen, words, "words", 100.0) for g in (alone, crowd))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_images(clip, pixels, name):
    chosen, words = METHODS[name], text(5, 3)
    together = Graph(clip, pixels)
    maps = together.prediction(chosen, words, "words", 100.0)
    clustered = 0
    for image in range(len(pixels)):
        alone = Graph(clip, pixels[image : image + 1])
        assert torch.allclose(together.patches(chosen)[image], alone.patches(chosen)[0], atol=1e-5)
        single = alone.prediction(chosen, words, "words", 100.0)[0]
        assert (maps[image] != single).float().mean() < 1e-3
        if chosen.regions:
            assert torch.equal(together.clusters(chosen)[image], alone.clusters(chosen)[0])
            clustered += int(alone.clusters(chosen).max() >= 0)
    assert clustered >= 2 or not chosen.regions


def test_an_image_without_clusters_keeps_its_prediction(clip, pixels):
    nothing = method(regions={"eps": 1e-4})
    graph = Graph(clip, pixels)
    assert (graph.clusters(nothing) == -1).all() and (graph.regions(nothing) == -1).all()
    plain = graph.prediction(method(regions=None), text(5), "words", 100.0)
    assert torch.equal(graph.prediction(nothing, text(5), "words", 100.0), plain)


def test_encoded_once_and_classified_often(clip, pixels, counted):
    for name in ("clip", "cliptrase", "cls"):
        graph = Graph(clip, pixels, (50, 70))
        encoded = graph.encode(METHODS[name])
        run = dict(counted)
        for seed in range(3):
            words = text(4, 2, seed)
            mine = encoded.classify(words, 100.0)
            assert mine.shape == (4, 50, 70) and mine.dtype == torch.int64
            theirs = graph.prediction(METHODS[name], words, str(seed), 100.0)
            assert torch.equal(mine, theirs)
        assert counted["finish"] == run["finish"]


def test_labels_are_classes_then_background(clip, pixels):
    maps = Graph(clip, pixels).prediction(CLIPTRASE, text(3, 20), "words", 100.0)
    assert maps.min() >= 0 and maps.max() == 3
    maps = Graph(clip, pixels).prediction(PLAIN, text(3), "words", 100.0)
    assert maps.max() <= 2


def test_whole_pictures_need_not_be_square(clip):
    tall = torch.randn(1, 3, 80, 40, generator=torch.Generator().manual_seed(2))
    graph = Graph(clip, tall)
    assert graph.grid == (10, 5) and graph.out_size == (80, 40)
    assert graph.prediction(CLIPTRASE, text(5), "words", 100.0).shape == (1, 80, 40)
    assert graph.clusters(CLIPTRASE).shape == (1, 50)
    # turned by a quarter, the patches of a model without positions are the same, turned
    embedding = clip.visual.positional_embedding
    kept = embedding.clone()
    clip.positions.clear()
    try:
        embedding.zero_()
        upright = Graph(clip, tall).patches(PLAIN)[0].unflatten(0, (10, 5))
        kernel = clip.visual.conv1.weight
        kernel.copy_(kernel.transpose(2, 3).clone())
        clip.positions.clear()
        turned = Graph(clip, tall.transpose(2, 3)).patches(PLAIN)[0].unflatten(0, (5, 10))
        assert torch.allclose(upright.transpose(0, 1), turned, atol=1e-5)
    finally:
        kernel.copy_(kernel.transpose(2, 3).clone())
        embedding.copy_(kept)
        clip.positions.clear()


def test_the_order_of_terms_is_one_run(clip, pixels, counted):
    graph = Graph(clip, pixels[:1])
    turned = method(["vv", "qq", "kk"])
    first = graph.prediction(CLIPTRASE, text(5), "words", 100.0)
    assert graph.prediction(turned, text(5), "words", 100.0) is first


def test_layer_12_is_the_method_and_layers_differ(clip, pixels):
    graph = Graph(clip, pixels[:1])
    tokens = {
        (first, last): graph.patches(method(first=first, last=last))
        for first, last in ((12, 12), (9, 12), (9, 9), (11, 11))
    }
    assert torch.equal(tokens[12, 12], graph.patches(CLIPTRASE))
    assert len({value.numpy().tobytes() for value in tokens.values()}) == 4


def test_unmodified_attention_is_clip_wherever_it_starts(clip, pixels):
    graph = Graph(clip, pixels[:1])
    assert torch.equal(graph.patches(method(["qk"], first=7)), graph.patches(PLAIN))
    shown = F.normalize(clip.model.encode_image(pixels[:1]), dim=-1)
    assert torch.allclose(graph.cls(PLAIN), shown, atol=1e-5)


def test_a_block_that_does_not_exist_is_one_message(clip, pixels):
    with pytest.raises(UserError, match="block 0 does not exist"):
        Graph(clip, pixels).patches(method(first=0))


def test_seconds_are_counted_by_stage_without_overlap(clip, pixels):
    import time

    graph = Graph(clip, pixels)
    start = time.perf_counter()
    graph.prediction(CLIPTRASE, text(5), "words", 100.0)
    spent = time.perf_counter() - start
    assert set(graph.seconds) == {
        "encode", "correlation", "cluster", "regions", "classify", "vote",
    }  # fmt: skip
    assert 0.5 * spent < sum(graph.seconds.values()) <= spent
