"""benchmarks/: the slow reference computes the same maps; what is written. No time is judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import growth, pictures, released, report, scenery, tables, timing, vocabularies
from open_clip.model import CLIP
from PIL import Image
from sklearn.datasets import load_sample_images
from tests.objects import listed_text

from cliptrase import config
from cliptrase.config.files import names
from cliptrase.data.read.crop import crop_image
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.textcache import text_of
from cliptrase.model.affinity import squared_distances
from cliptrase.model.load import Clip, load_clip
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
    regions = method.regions
    dbscan = regions.eps, regions.min_samples
    return fast, released.segment(clip.model, pixels, text.features, *dbscan, classes)


def with_eps(clip, pixels, method, share):
    """eps that about `share` of all pairs of patches are within, between two distances."""
    rows = Graph(clip, pixels).patch_rows(method.regions)
    distances = squared_distances(rows).sqrt().flatten().sort().values
    first = int(share * (len(distances) - 60))
    near = distances[first : first + 60]
    gap = int(near.diff().argmax())
    eps = float(near[gap] + near[gap + 1]) / 2 + (share == 1) * float(distances[-1])
    return scenery.with_eps(method, max(eps, 1e-3))


def test_the_slow_reference_gives_the_package_s_maps_on_random_cases():
    """At the trained size and at another one; all noise and one cluster included."""
    method = config.resolve(["benchmark=ade150", "method=cliptrase", "image_size=224"]).method
    rng, seen, different, pixels_seen = np.random.default_rng(0), set(), 0, 0
    with torch.inference_mode():
        for case in range(96):
            clip, size = small_clip(case % 4), (64, 96)[case % 2]
            cells = rng.integers(0, 256, (size // 16, size // 16, 3)).repeat(16, 0).repeat(16, 1)
            noise = rng.integers(0, 40, (size, size, 3))
            pixels = clip.normalise(np.clip(cells + noise, 0, 255).astype(np.uint8)[None])
            features = scenery.words(9 + case % 3, 24, "cpu")
            own = with_eps(clip, pixels, method, (0, 0.02, 0.05, 0.1, 0.2, 1)[case // 4 % 6])
            fast, slow = both(clip, pixels, own, listed_text(features, 7), 7)
            different += int((fast != slow).sum())
            pixels_seen += fast.size
            seen.add(int(Graph(clip, pixels).clusters(own).max()) + 1)
    assert different <= NEAR * pixels_seen
    assert {0, 1} < seen and max(seen) >= 5, seen


@pytest.mark.parametrize("size", [224, 336])
def test_the_slow_reference_gives_the_package_s_maps_of_pictures(size, tmp_path):
    """Scenes and a photograph, the embedded model, its own words and the released eps."""
    run = config.resolve(["benchmark=shapes", "method=cliptrase", f"image_size={size}"])
    clip = load_clip(run.model)
    key, text = text_of(run, clip, tmp_path)
    pictures = [evaluation_scene("shapes", 3).image, load_sample_images().images[1]]
    with torch.inference_mode():
        for picture in pictures:
            pixels = clip.normalise(crop_image(Image.fromarray(picture), size)[None])
            fast, slow = both(clip, pixels, run.method, text, None)
            assert (fast != slow).mean() <= NEAR
            assert int(Graph(clip, pixels).clusters(run.method).max()) >= 1
    assert key


def test_the_encoder_of_each_size_is_the_model_that_cliptrase_takes():
    found = scenery.models(tiny=True)
    method = config.resolve(["benchmark=ade150", "method=clip"]).method
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
    names = {name for each in passes for name in each.runs}
    datasets = {each.dataset for each in passes}
    assert {each.protocol for each in passes} == {"crop"}
    assert datasets == {"coco", "voc2012", "pcontext", "ade2016", "ade2021"}
    assert sum("eps-" in name or "min_samples-" in name for name in names) == 63
    counts = tables.image_counts()
    assert sum(counts[name] for name in datasets) == 15_553


def test_what_one_more_costs_is_the_slope():
    assert growth.slope(iter([(8, 17.0), (16, 33.0), (32, 65.0)])) == 2.0
    assert growth.slope(iter([(8, 17.0)])) == 0.0


def test_threads_are_doubled_up_to_all():
    assert [growth.up_to(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def spread(value):
    return {"median": value, "min": 0.9 * value, "max": 1.1 * value}


def made_up():
    """A growth.json of 2 ms an image, half a ms a class, 3 ms a cluster."""
    sizes = ((224, 10.0), (336, 30.0), (448, 80.0))
    return {
        "by_images": [{"images": n, "s": spread(0.002 * n)} for n in (8, 16, 32)],
        "by_classes": [
            {"classes": k, "ms": spread(9 + k / 2), "encoder_ms": spread(9), "ratio": spread(1.1)}
            for k in growth.CLASSES
        ],
        "by_size": [
            {
                "size": size,
                "patches": (size // 16) ** 2,
                "encoder_ms": spread(ms),
                "ms": spread(1.2 * ms),
                "ratio": spread(1.2),
            }
            for size, ms in sizes
        ],
        "by_clusters": [
            {"textures": n, "clusters": [n, n + 2], "regions_ms": spread(3 * n)} for n in (2, 4)
        ],
        "by_threads": [
            {"threads": n, "encoder_rate": spread(2.0 * n), "rate": spread(1.9 * n)} for n in (1, 2)
        ],
        "each_more": {"image_ms": 2.0, "class_ms": 0.5, "cluster_ms": 3.0},
        "size": 224,
        "threads": 2,
    }


def test_the_table_of_growth_has_every_step_and_what_one_more_costs():
    table = report.growth(made_up())
    assert {line.count("|") for line in table.splitlines()} == {5}
    for steps in ("8 · 16 · 32", "20 · 60 · 171 · 459 · 847", "224 px · 336 px · 448 px", "3 · 5"):
        assert steps in table
    for more in ("2 ms an image", "0.500 ms a class", "3.00 ms a cluster", "× 2.00"):
        assert more in table


def test_the_picture_of_growth_is_the_same_file_again(tmp_path):
    first = [path.read_bytes() for path in pictures.growth(made_up(), tmp_path / "first")]
    again = [path.read_bytes() for path in pictures.growth(made_up(), tmp_path / "again")]
    assert first == again and all(len(content) > 5000 for content in first)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Where a quick run of everything wrote its files."""
    folder = tmp_path_factory.mktemp("bench")
    bench.main(["--quick", "--threads", "1", "--out", str(folder)])
    return folder


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_quick_writes_everything_that_cost_json_promises(quick):
    cost = read(quick / "cost.json")
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
    written = (quick / "cost.md").read_text(encoding="utf-8")
    assert f"**{cost['ratio_336']['847']:.2f}**" in written and "mean nothing" in written
    assert (quick / "cost.svg").stat().st_size > 1000
    assert ("cuda" in cost) == torch.cuda.is_available()


@pytest.mark.slow
def test_quick_writes_everything_that_growth_json_promises(quick):
    figures = read(quick / "growth.json")
    assert [step["images"] for step in figures["by_images"]] == [1, 2, 4, 8]
    assert [step["classes"] for step in figures["by_classes"]] == list(growth.CLASSES)
    assert [step["size"] for step in figures["by_size"]] == list(growth.SIZES)
    assert [step["patches"] for step in figures["by_size"]] == [196, 441, 784]
    assert {step["textures"] for step in figures["by_clusters"]} == set(growth.TEXTURES)
    clusters = [sum(step["clusters"]) for step in figures["by_clusters"]]
    assert clusters == sorted(clusters)  # two pictures each: their median is half their sum
    assert [step["threads"] for step in figures["by_threads"]] == [1]
    assert set(figures["each_more"]) == {"image_ms", "class_ms", "cluster_ms"}
    for key, measured in (
        ("by_images", ("s", "ms_an_image")),
        ("by_classes", ("ms", "encoder_ms", "ratio")),
        ("by_size", ("ms", "encoder_ms", "ratio")),
        ("by_clusters", ("regions_ms", "vote_ms")),
        ("by_threads", ("encoder_rate", "rate")),
    ):
        for step in figures[key]:
            for name in measured:
                assert 0 < step[name]["min"] <= step[name]["median"] <= step[name]["max"]
    assert report.growth(figures) in (quick / "growth.md").read_text(encoding="utf-8")
    assert (quick / "growth.png").is_file() and (quick / "growth.svg").is_file()


@pytest.mark.slow
def test_quick_times_every_method_that_words_decide(quick):
    figures = read(quick / "peers.json")
    ratios, needs = figures["ratio"], figures["needs"]
    wordless = {"cliptrase_unsupervised", "outside", "predictions"}
    assert set(ratios) == set(needs) == set(names("method")) - wordless
    beside = {name for name in ratios if not needs[name] and not name.startswith("cliptrase")}
    assert set(figures["peers"]) == beside - {"clip"} and len(beside) == 11
    assert list(figures["together"]) == ["21", "171"]
    assert ratios["clip"] == {"median": 1, "min": 1, "max": 1}
    assert needs["clip"] == [] and needs["cliptrase_sam"] == ["shapes_sam"]
    assert report.peers(figures) in (quick / "peers.md").read_text(encoding="utf-8")


def test_many_vocabularies_are_timed_against_one(capsys):
    vocabularies.main(64, pictures=1, rounds=1, loaded=scenery.models(True, sizes=(64,)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(vocabularies.METHODS) * len(vocabularies.KINDS)
    assert all("with one" in line and "with 50: " in line for line in lines)
