"""`--config hours=`: into how many shards passes are cut, and that the number stays."""

from __future__ import annotations

import json

import pytest
from tests.workflow.made_runs import make_pass

from cliptrase.errors import UserError
from cliptrase.pipeline import division, estimate
from cliptrase.pipeline.estimate import Speed, Timing
from cliptrase.pipeline.settings import MOST_SHARDS, read_settings

PASS = "shapes.shapes_clip.224.crop"


@pytest.fixture
def timed(empty, monkeypatch):
    """timed(seconds of an image): as the probe answers from then on; what it is asked."""
    questions, image = [], [1.0]

    def ask(question):
        questions.append(question)
        timing = Timing(image=image[0], once=10.0)
        passes = dict.fromkeys(question["passes"], timing)
        return Speed(device="cpu", start=5.0, memory=1e9, passes=passes)

    monkeypatch.setattr(estimate, "_ask", ask)
    return questions, lambda seconds: image.__setitem__(0, seconds)


def cut(plan, made=(PASS,), **given):
    return division.shards(plan, made, read_settings(given), "cpu")


@pytest.mark.parametrize(
    ("images", "image", "alone", "hours"),
    [(5000, 1.0, 20.0, 2), (5000, 1.0, 20.0, 0.1), (1, 3000, 20, 2), (999, 0.37, 9.5, 0.01)],
)
def test_no_shard_is_longer_and_one_fewer_would_be(images, image, alone, hours):
    """By the sizes that the shards then have."""
    needed = division.shards_needed(images, image, alone, hours)
    room = division.USED * 3600 * hours
    largest = [-(-images // count) * image + alone for count in (needed, max(1, needed - 1))]
    assert largest[0] <= room and (needed == 1 or largest[1] > room)


@pytest.mark.parametrize(
    ("images", "image", "alone"), [(10**6, 1.0, 20.0), (3, 500.0, 2.0), (7, 0.1, 30.0)]
)
def test_the_hours_that_are_offered_are_the_fewest_that_do(images, image, alone):
    enough = division.fewest_hours(images, image, alone)
    assert 1 <= division.shards_needed(images, image, alone, enough) <= MOST_SHARDS
    assert division.shards_needed(images, image, alone, 0.9 * enough) is None


def test_hours_divide_every_pass_that_is_to_be_made(timed, shapes):
    runs = len(shapes.passes[PASS].runs)
    alone = 5.0 + estimate.OPENED + estimate.WRITTEN * runs + 10.0
    hours = (alone + 30) / 3600 / division.USED + 1e-9  # 30 of 200 images of a second
    assert cut(shapes, hours=hours) == {name: 7 if name == PASS else 1 for name in shapes.passes}
    assert cut(shapes, shards=3) == dict.fromkeys(shapes.passes, 3)
    assert cut(shapes) == dict.fromkeys(shapes.passes, 1)


def test_a_pass_that_has_begun_keeps_its_shards_however_fast_the_machine_is_then(timed, shapes):
    questions, now_takes = timed
    before = cut(shapes, hours=0.05)[PASS]
    now_takes(2.0)
    estimate.KEPT.unlink()
    assert cut(shapes, hours=0.05)[PASS] == before > 1 and len(questions) == 1
    assert cut(shapes, made=[], hours=0.05)[PASS] == before, "finished"
    assert cut(shapes, hours=0.06)[PASS] > before, "other hours: timed as it is now"
    (division.FOLDER / "shapes.json").write_text("{")
    assert cut(shapes, hours=0.06)[PASS] > before, "a damaged file is written again"
    assert json.loads((division.FOLDER / "shapes.json").read_bytes())[PASS]["hours"] == 0.06


def test_more_runs_than_the_pass_was_cut_for_cut_it_anew(timed, shapes):
    questions, now_takes = timed
    a_pass = shapes.passes[PASS]
    make_pass("shapes", a_pass)
    some = sorted(a_pass.runs)[:5]
    for name in some:
        (estimate.pipeline.RUNS / name / "confusion.npz").unlink()
    before = cut(shapes, hours=0.05)[PASS]
    assert questions[0]["passes"] == {PASS: [run for run in a_pass.runs if run in some]}
    now_takes(2.0)
    (estimate.pipeline.RUNS / next(run for run in a_pass.runs if run not in some)).rename("lost")
    assert cut(shapes, hours=0.05)[PASS] > before and len(questions) == 2


def test_what_cannot_be_cut_so_small_or_timed_is_one_message(timed, shapes, monkeypatch):
    _, now_takes = timed
    now_takes(100.0)
    with pytest.raises(UserError, match=rf"^hours=0.01: too short for {PASS}, .* or more$") as said:
        cut(shapes, hours=0.01)
    offered = str(said.value).split("take hours=")[1].split()[0]
    assert cut(shapes, hours=offered)[PASS] == 200, "one for each image"
    estimate.KEPT.unlink()
    monkeypatch.setattr(estimate, "_ask", lambda question: None)
    with pytest.raises(UserError, match=r"^hours=0.07: this machine .*; give shards=N instead$"):
        cut(shapes, hours=0.07)


@pytest.mark.parametrize("wrong", [0, -1, "nan", "inf", "two", True, "1,5"])
def test_hours_that_are_none_are_refused(wrong):
    with pytest.raises(UserError, match=r"^hours=.*: must be how many hours a job may take"):
        read_settings({"hours": wrong})


def test_shards_and_hours_are_not_given_together():
    with pytest.raises(UserError, match=r"^shards=1 and hours=2: give one of them"):
        read_settings({"shards": 1, "hours": "2"})
    assert read_settings({"shards": None, "hours": 0.5}).hours == 0.5
