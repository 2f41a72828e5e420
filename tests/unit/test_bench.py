"""benchmarks/: the slow reference is what the package computes; what cost.json says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import released, scenery, tables, timing
from open_clip.model import CLIP
from PIL import Image
from sklearn.datasets import load_sample_images

from cliptrase import config
from cliptrase.data.read.crop import crop_image
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.textcache import text_of
from cliptrase.model.load import Clip, load_clip
from cliptrase.segment.clustering import squared_distances
from cliptrase.shapes.scenes import evaluation_scene

NEAR = 1e-4  # of the pixels: two logits may be equal to the last bit


def small_clip(seed: int) -> Clip:
    """Four blocks, patches of 8 pixels, trained (if it were) at 64 pixels."""
    torch.manual_seed(seed)
    shape = {**scenery.TINY, "embed_dim": 24}
    image = {"image_size": 64, "layers": 4, "width": 48, "head_width": 16, "patch_size": 8}
    model = CLIP(24, vision_cfg=image, text_cfg=shape["text_cfg"] | {"vocab_size": 8})
    for parameter in model.visual.parameters():
        torch.nn.init.normal_(parameter, std=0.15) if parameter.dim() > 1 else None
    model = model.eval().requires_grad_(False)
    return Clip(model, None, torch.device("cpu"), "small", scenery.MEAN, scenery.STD)


def both(clip, pixels, method, text, classes):
    """The label map of the package and of the slow reference."""
    fast = Graph(clip, pixels).prediction(method, text, "words")[0].numpy()
    eps, needed = method["regions"]["eps"], method["regions"]["min_samples"]
    return fast, released.segment(clip.model, pixels, text.features, eps, needed, classes)


def with_eps(clip, pixels, method, share):
    """eps that about `share` of all pairs of patches are within, between two distances."""
    rows = Graph(clip, pixels).patch_rows(method["regions"])
    distances = squared_distances(rows).sqrt().flatten().sort().values
    first = int(share * (len(distances) - 60))
    near = distances[first : first + 60]
    gap = int(near.diff().argmax())
    eps = float(near[gap] + near[gap + 1]) / 2 + (share == 1) * float(distances[-1])
    return {**method, "regions": {**method["regions"], "eps": max(eps, 1e-3)}}


def test_the_slow_reference_gives_the_package_s_maps_on_random_cases():
    """At the trained size and at another one; all noise and one cluster included."""
    method = config.resolve(["benchmark=ade150", "method=cliptrase", "image_size=224"])["method"]
    rng, seen, different, pixels_seen = np.random.default_rng(0), set(), 0, 0
    with torch.inference_mode():
        for case in range(240):
            clip, size = small_clip(case % 4), (64, 96)[case % 2]
            cells = rng.integers(0, 256, (size // 16, size // 16, 3)).repeat(16, 0).repeat(16, 1)
            noise = rng.integers(0, 40, (size, size, 3))
            pixels = clip.normalise(np.clip(cells + noise, 0, 255).astype(np.uint8)[None])
            features = scenery.words(9 + case % 3, 24, "cpu")
            own = with_eps(clip, pixels, method, (0, 0.02, 0.05, 0.1, 0.2, 1)[case // 4 % 6])
            fast, slow = both(clip, pixels, own, Text.listed(features, 7), 7)
            different += int((fast != slow).sum())
            pixels_seen += fast.size
            seen.add(int(Graph(clip, pixels).clusters(own).max()) + 1)
    assert different <= NEAR * pixels_seen
    assert {0, 1} < seen and max(seen) >= 5, seen


@pytest.mark.parametrize("size", [224, 336])
def test_the_slow_reference_gives_the_package_s_maps_of_pictures(size, tmp_path):
    """Scenes and a photograph, the embedded model, its own words and the released eps."""
    run = config.resolve(["benchmark=shapes", "method=cliptrase", f"image_size={size}"])
    clip = load_clip(run["model"])
    key, text = text_of(run, clip, tmp_path)
    pictures = [evaluation_scene("shapes", 3).image, load_sample_images().images[1]]
    with torch.inference_mode():
        for picture in pictures:
            pixels = clip.normalise(crop_image(Image.fromarray(picture), size)[None])
            fast, slow = both(clip, pixels, run["method"], text, None)
            assert (fast != slow).mean() <= NEAR
            assert int(Graph(clip, pixels).clusters(run["method"]).max()) >= 1
    assert key


def test_the_encoder_of_each_size_is_the_model_that_cliptrase_takes():
    found = scenery.models(tiny=True)
    method = config.resolve(["benchmark=ade150", "method=clip"])["method"]
    with torch.inference_mode():
        for size, encoder in found.encoders.items():
            pixels = found.clip.normalise(scenery.patchwork(0, size)[0][None])
            bare = encoder.encode_image(pixels, normalize=True)
            torch.testing.assert_close(Graph(found.clip, pixels).cls(method), bare)


def test_turns_are_interleaved_and_the_first_round_does_not_count():
    order = []

    def contender(name):
        order.append(name)
        return float(len(order))

    found = timing.taking_turns({n: lambda n=n: contender(n) for n in "ab"}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert found == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert timing.spread([3, 1, 2]) == {"median": 2, "min": 1, "max": 3}


def test_the_plan_that_is_timed_is_that_of_the_paper_s_own_tables():
    passes = tables.planned()
    names = {name for one in passes for name in one.runs}
    assert {one.protocol for one in passes} == {"crop"}
    assert {one.dataset for one in passes} == {"coco", "voc2012", "pcontext", "ade2016", "ade2021"}
    assert sum("eps-" in name or "min_samples-" in name for name in names) == 63
    counts = tables.images_of()
    assert sum(counts[name] for name in {one.dataset for one in passes}) == 15_553


@pytest.mark.slow
def test_quick_writes_everything_that_cost_json_promises(tmp_path):
    bench.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    cost = json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))
    stages = {"features", "correlation", "clustering", "regions", "logits and upsampling", "vote"}
    for size in ("224", "336"):
        assert set(cost[f"ratio_{size}"]) == {"20", "171", "847"}
        for classes, ratio in cost[f"ratio_{size}"].items():
            least, most = cost[f"ratio_{size}_range"][classes]
            assert 0 < least <= ratio <= most
            assert cost[f"ratio_{size}_same_batch"][classes] <= most
        assert {"median", "min", "max", "way"} <= set(cost["encoder_ms"][size])
        for split in cost["cliptrase_ms"][size].values():
            assert set(split) == {*stages, "confusion", "total"}
            assert all(split[stage] > 0 for stage in stages)
            assert set(split["total"]) == {"median", "min", "max"}
        slow = cost["released"][size]
        assert stages == set(slow["released_ms"]) - {"total"}
        assert slow["pixels_that_differ"] <= NEAR * slow["pixels"]
        clusters = cost["workload"][size]["clusters"]
        assert all(5 <= count <= 30 for count in clusters), clusters
    for key in ("speedup_vs_released", "text_speedup", "table_passes", "peak_gb_847_336"):
        assert cost[key] > 0
    assert cost["text"]["prompts"] == 67_760 and cost["text"]["largest_difference"] < 1e-5
    assert set(cost["images_per_second"]) == {"classes", "encoder", "cliptrase"}
    about = cost["about"]
    assert about["quick"] and about["threads"] == 1 and about["cpu"]
    assert {"commit", "started", "versions", "platform", "minutes"} <= set(about)
    written = (tmp_path / "cost.md").read_text(encoding="utf-8")
    assert f"**{cost['ratio_336']['847']:.2f}**" in written
    assert (tmp_path / "cost.svg").stat().st_size > 1000
    assert ("cuda" in cost) == torch.cuda.is_available()
