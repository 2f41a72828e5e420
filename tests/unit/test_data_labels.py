"""Raw labels become the classes that each benchmark scores: lookups, background, the skip test."""

from pathlib import Path

import numpy as np
import pytest
from tests.objects import rules

from cliptrase import config
from cliptrase.data.read import labels
from cliptrase.errors import UserError

TABLES = {
    # table: (raw values, classes, a raw value and its class, a raw value that is not listed)
    "voc_to_20": (20, 20, (20, 19), 0),
    "coco_to_171": (171, 171, (181, 170), 11),
    "coco_to_80": (80, 80, (89, 79), 91),
    "pcontext_to_59": (59, 59, (397, 49), 0),
    "pcontext_to_459": (459, 459, (459, 458), 0),
    "ade2016_to_150": (150, 150, (1, 0), 0),
    "ade2021_to_847": (847, 847, (2978, 0), 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_reaches_every_class_once(name: str) -> None:
    count, classes, (raw, target), unlisted = TABLES[name]
    table = labels.read_table(name)
    assert len(table) == count
    assert sorted(table.values()) == list(range(classes))
    assert table[raw] == target and unlisted not in table


def test_unlisted_values_of_a_table_are_ignored() -> None:
    lookup = labels.lookup(rules(map="voc_to_20"), 20)
    raw = np.array([[0, 1, 20, 21, 255, 65535]])
    assert labels.apply(lookup, raw).tolist() == [[255, 0, 19, 255, 255, 255]]
    assert labels.apply(lookup, raw).dtype == np.int32


def test_255_is_a_class_where_65535_is_ignored() -> None:
    lookup = labels.lookup(rules(map="pcontext_to_459", ignore=65535), 459)
    assert labels.apply(lookup, np.array([0, 1, 256, 459, 460])).tolist() == [
        65535,
        0,
        255,
        458,
        65535,
    ]
    lookup = labels.lookup(rules(map="ade2021_to_847", ignore=65535), 847)
    table = labels.read_table("ade2021_to_847")
    raw = next(raw for raw, target in table.items() if target == 255)
    assert labels.apply(lookup, np.array([raw, 255])).tolist() == [255, table.get(255, 65535)]


@pytest.mark.parametrize(("ignore", "highest"), [(255, 254), (65535, 65534)])
def test_without_a_table_raw_values_are_classes(ignore: int, highest: int) -> None:
    lookup = labels.lookup(rules(ignore=ignore), highest + 1)
    assert labels.apply(lookup, np.array([0, highest, ignore])).tolist() == [0, highest, ignore]


@pytest.mark.parametrize(
    ("ignore", "raw", "message"),
    [
        (255, 3, r"m.png: label 3 is neither one of the 3 classes \(0 to 2\) nor .* 255"),
        (255, 254, "m.png: label 254 is neither"),
        (255, 65535, "m.png: label 65535 is neither"),
        (65535, 255, "m.png: label 255 .* with 16 bits, ignored pixels are 65535"),
        (255, -1, "m.png: label -1 is neither"),
        (255, 70000, "m.png: label 70000 is neither"),
    ],
)
def test_a_label_that_is_no_class_is_an_error(ignore: int, raw: int, message: str) -> None:
    lookup = labels.lookup(rules(ignore=ignore), 3)
    with pytest.raises(UserError, match=message):
        labels.apply(lookup, np.array([[0, 1], [2, raw]]), "m.png")


def test_the_only_class_is_not_one_of_several() -> None:
    with pytest.raises(UserError, match=r"label 1 is neither the only class \(0\) nor"):
        labels.apply(labels.lookup(rules(ignore=255), 1), np.array([1]))


def test_listed_background_is_class_c_and_ignored_pixels_stay() -> None:
    """voc21_standard: 0 is background, the void border is left out."""
    lookup = labels.lookup(rules(map="voc_to_20", background=[0]), 20)
    assert labels.apply(lookup, np.array([0, 1, 20, 255])).tolist() == [20, 0, 19, 255]


def test_ignored_pixels_become_class_c_where_the_released_code_does_so() -> None:
    lookup = labels.lookup(rules(map="voc_to_20", background="ignored"), 20)
    classes = labels.apply(lookup, np.array([0, 1, 20, 255]))
    assert classes.tolist() == [255, 0, 19, 255]
    assert labels.background_from_ignored(lookup, classes).tolist() == [20, 0, 19, 20]
    assert classes.tolist() == [255, 0, 19, 255]


def test_coco_object_keeps_stuff_beyond_its_classes_and_the_usual_one_does_not() -> None:
    """The paper's: banner (80) counts as background, other stuff is no class of 0..80."""
    raw = np.array([0, 89, 91, 92, 181, 11, 255])
    paper = labels.lookup(rules(map="coco_to_171", background="ignored", scored=80), 80)
    classes = labels.background_from_ignored(paper, labels.apply(paper, raw))
    assert classes.tolist() == [0, 79, 80, 81, 170, 80, 80]
    usual = labels.lookup(rules(map="coco_to_80", background="ignored"), 80)
    classes = labels.background_from_ignored(usual, labels.apply(usual, raw))
    assert classes.tolist() == [0, 79, 80, 80, 80, 80, 80]


@pytest.mark.parametrize(
    ("changes", "values", "skipped"),
    [
        ({}, [255], True),
        ({}, [255, 3], False),
        ({}, [3], False),
        ({"ignore": 65535, "skip": 255}, [65535], False),  # -1 in the released code's int16
        ({"ignore": 65535, "skip": 255}, [65535, 255], False),
        ({"ignore": 65535, "skip": 255}, [255], True),
    ],
)
def test_the_skip_test_is_the_released_one(changes: dict, values: list[int], skipped: bool) -> None:
    crop = np.resize(np.array(values, np.int32), (4, 4))
    lookup = labels.lookup(rules(**changes), 10)
    assert labels.skipped(lookup, crop) is skipped
    # The released code, word for word in numpy: unique labels, the last dropped if it is 255.
    label_set = np.unique(crop.astype(np.uint16).astype(np.int16))
    if label_set[-1] == 255:
        label_set = label_set[:-1]
    assert labels.skipped(lookup, crop) is (len(label_set) == 0)


def test_with_16_bits_of_ones_own_what_is_ignored_is_what_is_skipped() -> None:
    lookup = labels.lookup(rules(ignore=65535), 300)
    assert labels.skipped(lookup, np.full((4, 4), 65535, np.int32))
    assert not labels.skipped(lookup, np.full((4, 4), 255, np.int32))


@pytest.mark.parametrize(
    ("changes", "n_classes", "message"),
    [
        ({"map": "voc_to_21"}, 20, "unknown labels.map 'voc_to_21'; did you mean 'voc_to_20'"),
        (
            {"map": "voc_to_20"},
            5,
            "voc_to_20: 20 scored classes, .* 5 lines; give a list of 20, one class a line",
        ),
        (
            {"map": "voc_to_20", "background": "ignored"},
            10,
            "20 scored classes, .* vocabulary has 10",
        ),
        ({"map": "voc_to_20", "background": [0]}, 10, "20 scored classes, .* vocabulary has 10"),
        ({"map": "voc_to_20"}, 21, "20 scored classes, .* vocabulary has 21"),
        ({"map": "coco_to_171", "background": "ignored"}, 80, "171 scored classes, .* has 80"),
        ({"map": "coco_to_171", "scored": 80}, 10, "80 scored classes, .* vocabulary has 10"),
        ({}, 256, "256 classes, but label 255 means ignored; .* 16 bits"),
        ({"map": "pcontext_to_459"}, 459, "labels.ignore=255: a class of pcontext_to_459"),
        ({"background": [7]}, 255, "labels.ignore=255: is the index of the background"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(
    changes: dict, n_classes: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        labels.lookup(rules(**changes), n_classes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "the first line must be raw,class"),
        ("raw,class\n1,x\n", "line 2 must be two whole numbers"),
        ("raw,class\n1\n", "line 2 must be two whole numbers"),
        ("raw,class\n1,2\n1,3\n", "line 3: raw 1 is doubled or out of range"),
        ("raw,class\n65536,2\n", "line 2: raw 65536 is doubled or out of range"),
    ],
)
def test_a_broken_table_names_its_line(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.csv").write_text(content)
    monkeypatch.setattr(labels, "TABLES", tmp_path)
    with pytest.raises(UserError, match=f"mine.csv: {message}"):
        labels.read_table("mine")


@pytest.mark.parametrize(
    ("benchmark", "raw", "is_skipped"),
    [
        ("voc21", 0, True), ("voc21", 255, True), ("voc21_standard", 0, False),
        ("coco_object", 100, False), ("coco_object", 255, True),
        ("coco_object_standard", 100, False), ("coco_object_standard", 255, False),
    ],
)  # fmt: skip
def test_a_crop_of_background_alone_counts_in_the_usual_definitions(benchmark, raw, is_skipped):
    """Raw 100 of COCO is stuff. Released code skips what is nothing but 255 before 255 becomes
    background; the usual definitions skip nothing."""
    run = config.resolve([f"benchmark={benchmark}", "model=shapes_clip"])
    table = labels.lookup(run.benchmark.labels, run.vocabulary.classes.count)
    classes = labels.apply(table, np.full((4, 4), raw))
    assert labels.skipped(table, classes) is is_skipped
