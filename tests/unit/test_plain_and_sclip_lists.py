"""The lists beside the paper's own: SCLIP's equal their source, plain ones follow their rule."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from cliptrase.data.read.vocabularies import (
    VOCABULARIES,
    background_path,
    read_classes,
    read_names,
    shipped,
    vocabulary_path,
)

ROOT = Path(__file__).resolve().parents[2]
LABELS = VOCABULARIES.parent / "labels"
SCLIP = ROOT / ".." / "shared" / "datasets" / "classes_sclip"
COUNTS = {  # list: (classes, names, background words)
    "voc20": (20, 30, 0),
    "voc21": (20, 30, 26),
    "pc59": (59, 59, 0),
    "pc60": (59, 59, 1),
    "coco_object": (80, 87, 26),
    "coco_stuff171": (171, 171, 0),
    "ade150": (150, 150, 0),
    "cityscapes19": (19, 19, 0),
}
PEOPLE = ["shirt", "jeans", "dress", "sweater", "skirt", "jacket"]
PLAIN = ["voc20", "pc59", "pc459", "coco_stuff171", "ade150", "ade847"]
RESPELT = {  # run together, torn apart or misspelt in a released list
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
    "playingfield": "playing field",
    "waterdrops": "water drops",
    "fire place": "fireplace",
    "casette recorder": "cassette recorder",
    "check-in-desk": "check-in desk",
}
OWN = {  # the dataset's name where the released list has another
    ("voc20", "tv"): "tv monitor",
    ("pc59", "diningtable"): "table",
}


def classes(name: str) -> list[list[str]]:
    return read_classes(vocabulary_path(name))


def words(name: str) -> list[str]:
    return read_names(vocabulary_path(name))


@pytest.mark.parametrize("name", COUNTS)
def test_the_lists_of_sclip_are_whole(name):
    listed = classes(f"sclip_{name}")
    beside = background_path(vocabulary_path(f"sclip_{name}"))
    background = [] if beside is None else read_names(beside)
    assert (len(listed), sum(map(len, listed)), len(background)) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_the_lists_of_sclip_equal_their_source(name):
    if not SCLIP.is_dir():
        pytest.skip("the source lists are not here")
    source = json.loads((SCLIP / f"{name}.json").read_text(encoding="utf-8"))["classes"]
    beside = background_path(vocabulary_path(f"sclip_{name}"))
    background = [] if beside is None else [read_names(beside)]
    assert background + classes(f"sclip_{name}") == source


def test_every_list_of_sclip_is_tested():
    assert {f"sclip_{name}" for name in COUNTS} | {
        f"sclip_{name}_background" for name, (*_, words) in COUNTS.items() if words
    } == {name for name in shipped(VOCABULARIES) if name.startswith("sclip_")}


def test_synonyms_and_oddities_of_sclip_are_kept():
    person = ["person", *(f"person in {worn}" for worn in PEOPLE)]
    for voc in ("sclip_voc20", "sclip_voc21"):
        assert classes(voc)[14] == person
        assert classes(voc)[19] == [
            *("television monitor", "tv monitor", "monitor", "television", "screen")
        ]
        assert [classes(voc)[index] for index in (3, 10, 15)] == [
            ["ship"],
            ["table"],
            ["pottedplant"],
        ]
    assert classes("sclip_coco_object")[0] == [*person, "body"]
    assert ["bed"] in classes("sclip_coco_object")
    assert "bed" in words("sclip_coco_object_background")
    assert words("sclip_coco_object_background") == words("sclip_voc21_background")
    assert words("sclip_pc60_background") == ["background"]
    assert words("sclip_pc60") == words("sclip_pc59")
    assert {"chestofdrawers", "pooltable"} < set(words("sclip_ade150"))
    assert {"trafficlight", "building-other"} < set(words("sclip_coco_stuff171"))
    assert words("sclip_cityscapes19")[6:8] == ["trafficlight", "trafficsign"]


def test_few_lists_have_synonyms():
    with_several = {
        name for name in shipped(VOCABULARIES) if any(len(own) > 1 for own in classes(name))
    }
    assert with_several == {
        "sclip_voc20",
        "sclip_voc21",
        "sclip_coco_object",
        "coco27_members",
        "shapes_synonyms",
        "shapes_objects_synonyms",
    }


@pytest.mark.parametrize(("name", "of"), [("", "shapes"), ("_objects", "shapes_objects")])
def test_synonyms_of_the_scenes_are_the_fine_names_of_each_thing(name, of):
    fine = words("shapes_fine")
    expected = [[one, *(each for each in fine if each.endswith(f" {one}"))] for one in words(of)]
    assert classes(f"shapes{name}_synonyms") == expected
    assert {each for own in expected for each in own} >= set(fine) - set(words("shapes_background"))


def plain_of(benchmark: str, released: list[str]) -> list[str]:
    """What docs/vocabularies.md says of the plain lists."""
    names = [word.split(", ") if benchmark == "ade847" else [word] for word in released]
    first = [own[0] for own in names]
    plain = []
    for index, own in enumerate(names):
        name = own[0]
        sharing = [other for other in range(len(names)) if first[other] == name]
        if index != min(sharing, key=lambda other: (len(names[other]), other)):
            name = next(word for word in own if word not in first)
        name = OWN.get((benchmark, name), RESPELT.get(name.strip(), name.strip()))
        if benchmark == "coco_stuff171" and "-" in name:
            thing, part = name.split("-")
            if part in ("other", "stuff"):
                name = thing
            elif thing in ("ceiling", "floor", "wall"):
                name = f"{part} {thing}"
            else:
                name = f"{thing} {part}"
        plain.append(name)
    return plain


@pytest.mark.parametrize("benchmark", PLAIN)
def test_plain_lists_follow_their_rule(benchmark):
    assert words(f"plain_{benchmark}") == plain_of(benchmark, words(benchmark))
    assert words(f"plain_{benchmark}") != words(benchmark)


def raw_labels(name: str) -> dict[int, int]:
    """A table of labels that ships: raw value → class."""
    with open(LABELS / f"{name}.csv", encoding="utf-8", newline="") as file:
        return {int(line["raw"]): int(line["class"]) for line in csv.DictReader(file)}


def test_members_of_coco27_follow_the_tables_of_labels():
    """Each of the 171 fine classes once, in its coarse class, in the order of the raw labels."""
    fine, coarse = raw_labels("coco_to_171"), raw_labels("coco_to_27")
    names = plain_of("coco_stuff171", words("coco_stuff171"))
    listed = classes("coco27_members")
    expected: list[list[str]] = [[] for _ in words("coco27")]
    for raw, label in sorted(fine.items()):
        expected[coarse[raw]].append(names[label])
    assert listed == expected
    assert sorted(name for own in listed for name in own) == sorted(names)


def test_two_classes_of_coco27_are_told_apart():
    usual, apart = words("coco27"), words("coco27_apart")
    changed = {index: apart[index] for index in range(27) if usual[index] != apart[index]}
    assert changed == {14: "raw food stuff", 15: "furniture stuff"}
    assert [usual.count(usual[index]) for index in changed] == [2, 2]
    assert len(set(apart)) == 27


@pytest.mark.parametrize("benchmark", PLAIN)
def test_plain_names_are_plain_and_distinct(benchmark):
    names = words(f"plain_{benchmark}")
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if name != name.strip() or "," in name or "|" in name] == []
    hyphenated = {name for name in names if "-" in name}
    assert hyphenated <= {"check-in desk", "post-it", "horse-drawn carriage", "hot-air balloon"}


def test_every_plain_list_is_tested():
    assert {f"plain_{name}" for name in PLAIN} == {
        name for name in shipped(VOCABULARIES) if name.startswith("plain_")
    }


def test_one_dataset_has_one_name_for_a_class():
    assert set(words("plain_pc59")) <= set(words("plain_pc459"))
    assert set(words("coco_object80")) <= set(words("plain_coco_stuff171"))


def test_names_that_several_classes_share_go_to_the_one_with_the_fewest():
    names = words("plain_ade847")
    assert [names[index] for index in (114, 191, 252)] == ["bag", "traveling bag", "handbag"]
    assert [names[index] for index in (208, 768)] == ["control panel", "control board"]
    assert [names[index] for index in (147, 153)] == ["screen", "silver screen"]


@pytest.mark.parametrize("name", ["coco_object80", "shapes", "shapes_fine", "shapes_objects"])
def test_a_list_without_oddities_has_no_plain_twin(name):
    assert plain_of(name, words(name)) == words(name)


def test_the_page_names_every_list_and_every_mended_word():
    page = (ROOT / "docs" / "vocabularies.md").read_text(encoding="utf-8")
    assert [name for name in shipped(VOCABULARIES) if f"`{name}`" not in page] == []
    text = " ".join(page.split())
    assert [word for word in RESPELT.values() if word not in text] == []
