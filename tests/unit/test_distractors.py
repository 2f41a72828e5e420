"""Distractors: what is drawn, the same everywhere; never what a benchmark has a name for."""

from __future__ import annotations

import functools
import hashlib
import re

import numpy as np
import pytest

from cliptrase import config
from cliptrase.config.distractors import LISTS, distractors
from cliptrase.data.read.vocabularies import read_classes, vocabulary_path
from cliptrase.errors import UserError

GOLDEN = ("fan", "snowboard", "rope", "videocassette recorder", "tiger", "organ")
OTHER = ("sidecar", "pedestal", "helicopter", "blender", "fluorescent", "crevasse")


def names(*lists: str) -> list[str]:
    paths = map(vocabulary_path, lists)
    return [name for path in paths for own in read_classes(path) for name in own]


def drawn(*overrides: str) -> tuple[str, ...]:
    found = config.resolve(overrides).vocabulary.distractors
    return () if found is None else found.names


@functools.cache
def words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def holds(name: str, part: str) -> bool:
    some, few = words(name), words(part)
    return any(some[at : at + len(few)] == few for at in range(len(some)))


def test_the_draw_is_the_one_that_was_published():
    """Written down here: neither Python's hash nor the order of a set enters."""
    assert drawn("benchmark=voc21", "distractors=6") == GOLDEN
    assert drawn("benchmark=voc21", "distractors=6", "distractor_seed=1") == OTHER


def test_more_distractors_are_those_of_fewer_and_others():
    many = drawn("benchmark=voc20", "distractors=200")
    assert len(set(many)) == 200 and many[:50] == drawn("benchmark=voc20", "distractors=50")
    digests = [hashlib.sha256(f"0 {name}".encode()).hexdigest() for name in many]
    assert digests == sorted(digests)


@pytest.mark.parametrize(
    ("benchmark", "own"),
    [
        ("voc20", ["voc20", "plain_voc20", "sclip_voc20"]),
        ("coco_object_standard", ["sclip_coco_object", "sclip_coco_object_background"]),
        ("ade847", ["ade847", "plain_ade847"]),
        ("shapes_bg", ["shapes_objects", "shapes_background"]),
    ],
)
def test_no_distractor_is_a_name_or_a_synonym_or_a_part_of_one(benchmark, own):
    """Every candidate is drawn, and what is left out has a reason."""
    with pytest.raises(UserError, match="of other lists are left") as refused:
        drawn(f"benchmark={benchmark}", "distractors=5000")
    (most,) = re.findall(r"take (\d+) or fewer", str(refused.value))
    found = drawn(f"benchmark={benchmark}", f"distractors={most}")
    listed = [name for name in names(*LISTS) if words(name)]
    assert set(found) <= set(listed) and len(found) > 200
    ours = names(*own)
    sets = [line.split(", ") for (line,) in read_classes(vocabulary_path("ade847"))]
    ours += [
        other
        for line in sets
        if {*map(str.lower, line)} & {*map(str.lower, ours)}
        for other in line
    ]
    for name in found:
        assert not [each for each in ours if holds(name, each) or holds(each, name)], name


def test_a_thing_has_several_names():
    found = {*drawn("benchmark=voc20", "distractors=1000")}
    assert not found & {"airplane", "motorcycle", "couch", "television", "coffee table", "table"}
    found = {*drawn("benchmark=ade150", "distractors=200")}
    assert "motorcycle" not in found  # minibike is motorbike is motorcycle


@pytest.mark.parametrize(
    ("benchmark", "barred"),
    [
        ("coco_stuff", {"bowls", "cages", "unknown", "rider", "brown basketball", "mug"}),
        ("ade150", {"barrels", "benches", "unknown", "rider"}),
        ("voc21", {"stairs", "buses", "hen", "monitor", "screen"}),
        ("pc459", {"bed", "bowl", "shopping cart", "basket", "monitor"}),
    ],
)
def test_plurals_kinds_and_labels_of_nothing_are_left_out(benchmark, barred):
    with pytest.raises(UserError) as refused:
        drawn(f"benchmark={benchmark}", "distractors=5000")
    (most,) = re.findall(r"take (\d+) or fewer", str(refused.value))
    found = {*drawn(f"benchmark={benchmark}", f"distractors={most}")}
    assert not found & barred and {"giraffe", "escalator"} & found


def test_all_lists_of_a_benchmark_meet_the_same_distractors():
    lists = ["null", "plain_voc20", "sclip_voc21"]
    runs = [("benchmark=voc21", f"vocabulary={each}", "distractors=50") for each in lists]
    assert len({drawn(*run) for run in runs}) == 1


def test_a_users_own_names_are_no_distractors(tmp_path):
    taken = drawn("benchmark=voc20", "distractors=1")[0]
    own = ["the " + taken, *names("voc20")[1:]]
    (tmp_path / "own.txt").write_text("\n".join(own))
    found = drawn("benchmark=voc20", f"vocabulary={tmp_path}/own.txt", "distractors=50")
    assert taken not in found


def test_without_distractors_a_run_is_what_it_was():
    plain, none = (
        config.resolve(["benchmark=voc20", *more])
        for more in ([], ["distractors=0", "distractor_seed=3"])
    )
    assert none.identity == plain.identity and "distractors" not in plain.text
    some = config.resolve(["benchmark=voc20", "distractors=50", "distractor_seed=3"])
    assert ".distractors-50.distractor_seed-3." in some.name
    assert some.identity["vocabulary"]["distractors"].keys() == {"count", "seed", "sha256"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distractors=-1"], "distractors=-1: must be a whole number, 0 or more"),
        (["distractors=some"], "distractors=some: must be a whole number"),
        (["distractors=5", "distractor_seed=1.5"], "distractor_seed=1.5: must be a whole number"),
        (["distractors=9999"], "distractors=9999: 1070 names of other lists are left beside"),
        (
            ["method=cliptrase_unsupervised", "distractors=50"],
            "distractors=50: method=cliptrase_unsupervised is told no words; leave it out",
        ),
        (["distractors=5", "ledger=true"], "ledger=true: with distractors a wrong pixel may"),
    ],
)
def test_what_cannot_be_drawn_is_one_message(overrides, message):
    with pytest.raises(UserError, match=message):
        config.resolve(["benchmark=shapes", *overrides])


def test_label_maps_of_files_have_no_distractors(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match="method=predictions is told no words"):
        where = f"method.path={tmp_path}"
        config.resolve(["benchmark=shapes", "method=predictions", where, "distractors=50"])


def test_of_no_names_nothing_is_left_out():
    assert len(distractors([], 1100, 0)) == 1100
