"""The embedded benchmark: scenes equal bit for bit everywhere, labels and captions that agree."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from cliptrase import shapes
from cliptrase.shapes import captions, concepts, scenes
from cliptrase.shapes.drawings import DRAWINGS, TURN
from cliptrase.shapes.grounds import GROUNDS
from cliptrase.shapes.stream import Stream

DATA = Path(shapes.__file__).parents[1] / "data"

# Taken once. A change of one bit of one pixel changes the benchmark, and every table with it.
SCENES = {
    "shapes": "f50f80b85eefe5d4107b67b79f5ebe56da815c2b4206fe45795532757f4efe60",
    "shapes_clean": "6aae0f68ffac834732eb810ddc21816464f250b8eee085be453746884febd8fd",
}
FIRST_IMAGE, FIRST_LABEL = (
    "67b62718a1b957ab850ba3a36c935c1a3ba878d1ba0605ddf9932ecee98ed56c",
    "b9bed5a00dc883babc2abe1b1f82996690c5e331b7dbd4095b0385bcff1e7bd7",
)


@pytest.fixture(scope="module")
def sets() -> dict[str, list[scenes.Scene]]:
    return {name: [scenes.evaluation_scene(name, i) for i in range(200)] for name in SCENES}


@pytest.mark.parametrize("name", SCENES)
def test_the_scenes_are_those_of_every_other_machine(name, sets):
    digest = hashlib.sha256()
    for scene in sets[name]:
        digest.update(scene.image.tobytes())
        digest.update(scene.label.tobytes())
    assert digest.hexdigest() == SCENES[name]


def test_the_first_training_scene_is_pinned_too():
    scene = scenes.scene(scenes.TRAIN_SEEDS[0])
    assert hashlib.sha256(scene.image.tobytes()).hexdigest() == FIRST_IMAGE
    assert hashlib.sha256(scene.label.tobytes()).hexdigest() == FIRST_LABEL


def test_the_stream_is_the_raw_pcg64():
    raw = np.random.PCG64([5, 2]).random_raw(4)
    stream = Stream(5, 2)
    assert [stream.uniform() for _ in range(4)] == [(int(r) >> 11) / 2**53 for r in raw]
    expected = [np.float32((int(r) >> 11) / 2**53) for r in raw]
    assert Stream(5, 2).uniforms(2, 2).tolist() == np.reshape(expected, (2, 2)).tolist()


def test_clutter_hides_pixels_and_no_label(sets):
    for with_clutter, without in zip(sets["shapes"], sets["shapes_clean"], strict=True):
        assert np.array_equal(with_clutter.label, without.label)
        assert with_clutter.objects == without.objects
        assert with_clutter.background == without.background
        changed = (with_clutter.image != without.image).any(axis=2).mean()
        assert 0.005 < changed < 0.2


def test_a_scene_is_what_it_says(sets):
    for scene in sets["shapes"]:
        assert scene.image.shape == (224, 224, 3) and scene.image.dtype == np.uint8
        assert scene.label.shape == (224, 224) and scene.label.dtype == np.uint8
        area = np.bincount(scene.label.ravel(), minlength=256) / scene.label.size
        backgrounds = [raw for raw in np.flatnonzero(area) if raw >= len(concepts.FINE)]
        assert set(backgrounds) <= {scene.background}
        seen = {raw for raw in np.flatnonzero(area >= 0.01) if raw < len(concepts.FINE)}
        assert set(scene.objects) == seen
        assert len(np.flatnonzero(area)) <= 6
        kinds = [concepts.FINE[raw].object for raw in scene.objects]
        assert len(set(kinds)) == len(kinds), "one object of a kind"


def test_every_fine_class_and_background_is_in_the_benchmark(sets):
    labels = np.stack([scene.label for scene in sets["shapes"]])
    assert np.unique(labels).tolist() == list(range(66 + 7))


def test_seeds_of_training_validation_and_test_never_meet():
    spans = (scenes.TRAIN_SEEDS, scenes.VALIDATION_SEEDS, scenes.TEST_SEEDS)
    for one in spans:
        for other in spans:
            assert one is other or one.stop <= other.start or other.stop <= one.start
    assert len(scenes.TEST_SEEDS) == 200


@pytest.mark.parametrize("index", [200, 10**9])
def test_there_are_no_more_scenes_than_two_hundred(index):
    with pytest.raises(IndexError):
        scenes.evaluation_scene("shapes", index)


def test_count_asks_for_so_many_objects_over_the_same_background():
    for seed in range(20):
        free, one = scenes.scene(seed), scenes.scene(seed, count=1)
        assert len(one.objects) == 1
        assert one.background == free.background


def test_another_size_keeps_the_layout():
    small, full = scenes.scene(3, clutter=False, size=112), scenes.scene(3, clutter=False)
    # Edges are a pixel soft and backgrounds are per pixel; the things lie where they lay.
    assert (small.label == full.label[::2, ::2]).mean() > 0.97


def test_every_name_has_a_drawing():
    assert tuple(DRAWINGS) == tuple(TURN) == concepts.OBJECTS
    assert tuple(GROUNDS) == concepts.BACKGROUNDS
    for colours in concepts.ATTRIBUTES.values():
        assert set(colours) <= set(concepts.COLOURS)
        assert len(set(colours)) == len(colours)


def test_raw_labels_fit_eight_bits_beside_ignore():
    assert len(concepts.OBJECTS) == 20 and len(concepts.FINE) >= 60
    assert concepts.background_id(len(concepts.BACKGROUNDS) - 1) < 255
    names = [concepts.name(raw) for raw in range(len(concepts.FINE) + len(concepts.BACKGROUNDS))]
    assert len(set(names)) == len(names)
    assert concepts.name(concepts.fine_id(concepts.OBJECTS.index("apple"), 1)) == "green apple"
    assert concepts.name(concepts.background_id(1)) == "grass"


TO_OBJECTS = {raw: fine.object for raw, fine in enumerate(concepts.FINE)}
TO_ALL = TO_OBJECTS | {
    concepts.background_id(index): len(concepts.OBJECTS) + index
    for index in range(len(concepts.BACKGROUNDS))
}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("shapes_to_all", TO_ALL),
        ("shapes_to_objects", TO_OBJECTS),
        ("shapes_to_fine", {raw: raw for raw in TO_ALL}),
    ],
)
def test_the_shipped_tables_are_those_of_the_concepts(table, expected):
    with (DATA / "labels" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["raw"]): int(row["class"]) for row in rows} == expected


@pytest.mark.parametrize(
    ("table", "vocabulary"),
    [
        ("shapes_to_all", "shapes"),
        ("shapes_to_objects", "shapes_objects"),
        ("shapes_to_fine", "shapes_fine"),
    ],
)
def test_a_class_is_called_what_is_drawn(table, vocabulary):
    names = (DATA / "vocabularies" / f"{vocabulary}.txt").read_text().splitlines()
    with (DATA / "labels" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = {int(row["raw"]): int(row["class"]) for row in csv.DictReader(file)}
    assert sorted(set(rows.values())) == list(range(len(names)))
    for raw, cls in rows.items():
        assert names[cls] == concepts.name(raw, with_colour=vocabulary == "shapes_fine")


def test_the_background_vocabulary_is_the_backgrounds():
    text = (DATA / "vocabularies" / "shapes_background.txt").read_text()
    assert tuple(text.splitlines()) == concepts.BACKGROUNDS


def test_captions_name_only_what_is_there():
    colours = set(concepts.COLOURS)
    for seed in range(200):
        scene = scenes.scene(scenes.VALIDATION_SEEDS[seed], clutter=False)
        text = captions.caption(scene, Stream(seed, 9)).replace("black and white photo", "photo")
        words = text.replace(",", " ").replace(".", " ").split()
        there = {concepts.name(raw, with_colour=False) for raw in scene.objects}
        there |= {concepts.name(scene.background)}
        assert set(words) & {*concepts.OBJECTS, *concepts.BACKGROUNDS} <= there
        shown = {concepts.FINE[raw].colour for raw in scene.objects}
        assert set(words) & colours <= shown


def test_captions_leave_out_as_much_as_they_say():
    content = scenes.scene(scenes.VALIDATION_SEEDS[3], clutter=False, count=3)
    texts = [captions.caption(content, Stream(i, 9)) for i in range(2000)]
    place = concepts.name(content.background)
    # 0.94 x 0.7 with objects, 0.06 without (three objects are almost never all left out).
    assert np.mean([place in text.split() or f"{place}." in text for text in texts]) == (
        pytest.approx(0.718, abs=0.04)
    )
    assert len(set(texts)) > 1000


def test_lists_read_as_english():
    assert captions.listed(["zebra"]) == "zebra"
    assert captions.listed(["zebra", "cow"]) == "zebra and a cow"
    assert captions.listed(["zebra", "red apple", "fish"]) == "zebra, a red apple and a fish"


def test_templates_hold_one_place_for_the_name():
    assert len(captions.IMAGENET_FRAMES) == 80
    assert 5 <= len(captions.SHAPES_FRAMES) <= 10
    for frame in (*captions.SHAPES_FRAMES, *captions.IMAGENET_FRAMES):
        assert frame.count("{}") == 1
