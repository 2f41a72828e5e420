"""Figure 8: curves, intervals and speeds, by loops and by hand."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from cliptrase.errors import UserError
from cliptrase.files import write_json
from cliptrase.pipeline import markers
from cliptrase.publish import figure_8
from cliptrase.runs import bootstrap
from cliptrase.san import figure, settings
from cliptrase.san.figure import Curve, curve_of, frame_of, iterations_to, seed_weights, speeds

from .conftest import small

COST = {"cpu_seconds": 3.0}
AT = np.array([0, 10, 30])


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [(20, 0), (25, 5), (30, 10), (31, 12), (40, 30), (40.1, math.inf)],
)
def test_a_threshold_is_reached_between_checkpoints(threshold, wanted):
    assert iterations_to(threshold, np.array([20.0, 30.0, 40.0]), AT) == pytest.approx(wanted)


def test_the_first_time_counts():
    assert iterations_to(30, np.array([20.0, 40.0, 10.0]), AT) == pytest.approx(5)


def test_seeds_are_drawn_with_replacement():
    weights = seed_weights(3)
    assert weights.shape == (1000, 3) and (weights.sum(axis=1) == 3).all()
    assert {*weights.ravel()} == {0, 1, 2, 3}
    assert weights.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.1)


@pytest.fixture(scope="module")
def runs():
    """Two seeds, three checkpoints, five pictures, four classes."""
    stream = np.random.default_rng(0)
    made = []
    for _ in range(2):
        gt = stream.integers(0, 50, (3, 5, 4), dtype=np.int32)
        tp = (gt * stream.random(gt.shape)).astype(np.int32)
        made.append({"tp": tp, "gt": gt, "pred": tp + stream.integers(0, 9, gt.shape)})
    return made


def test_a_draw_is_of_seeds_and_then_of_pictures(runs):
    curve = curve_of(runs)
    pictures, seeds = bootstrap.weights(5), seed_weights(2)
    for draw in (0, 7, 999):
        for place in range(3):
            means = []
            for run in runs:
                tp, gt, pred = (run[name][place] for name in ("tp", "gt", "pred"))
                tp, gt, pred = (pictures[draw].astype(float) @ each for each in (tp, gt, pred))
                ious = [t / (g + p - t) for t, g, p in zip(tp, gt, pred, strict=True) if g + p]
                means.append(100 * np.mean(ious))
            wanted = (seeds[draw] * means).sum() / 2
            assert curve.draws[draw, place] == pytest.approx(wanted)


def test_twice_as_fast_is_two(tiny):
    plain = Curve(np.array([0.0, 50.0, 100.0]), np.tile([0.0, 50.0, 100.0], (1000, 1)))
    fast = Curve(np.array([0.0, 100.0, 100.0]), np.tile([0.0, 100.0, 100.0], (1000, 1)))
    never = Curve(np.array([0.0, 50.0, 90.0]), np.tile([0.0, 50.0, 90.0], (1000, 1)))
    curves = {"plain": plain, "cliptrase": fast, "shuffled": never}
    found = speeds(curves, np.array([0, 10, 20]))
    assert found["plain"].reached[0] == pytest.approx(19) and found["plain"].ratio == (1, 1, 1)
    assert found["cliptrase"].reached == pytest.approx((9.5,) * 3)
    assert found["cliptrase"].ratio == pytest.approx((2,) * 3)
    assert found["shuffled"].reached == (math.inf,) * 3 and found["shuffled"].ratio == (0, 0, 0)
    said = figure.in_words(tiny, frame_of(curves, np.array([0, 10, 20])), found, None)
    assert "[10, 10] iterations, 2.00 [2.00, 2.00] times as fast" in said[1]
    assert "after > last [> last, > last] iterations, < 1 [< 1, < 1] times as fast" in said[2]


def test_leads_are_paired(runs):
    """An arm against itself: no difference, in any draw."""
    curve = curve_of(runs)
    frame = frame_of({"plain": curve, "cliptrase": curve}, AT)
    leads = frame[frame["arm"] == "plain"][["lead", "lead_low", "lead_high"]]
    assert (leads == 0).to_numpy().all()
    assert (frame["low"] <= frame["mIoU"]).all() and (frame["mIoU"] <= frame["high"]).all()


def test_the_figure_is_drawn_from_the_runs_and_a_missing_one_is_named(
    tiny, runs, empty, monkeypatch, capsys
):
    san = small(tiny, suite="tiny", checkpoints=(0, 10, 30), iterations=30, validation=5)
    monkeypatch.setattr(figure.settings, "load", lambda name: san)
    for arm in san.arms:
        for seed, counts in enumerate(runs):
            file = san.run_file(arm, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, iterations=AT, **counts)
            write_json(file.with_suffix(".json"), {"recipe": json.loads(san.recipe())} | COST)
    figure.main(["tiny"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:3]] == list(san.arms)
    names = {path.name.split(".")[1] for path in (empty / "results/tiny/san").glob("fig8_*")}
    assert names == {"svg", "png", "npz", "csv", "txt"}
    with pytest.raises(UserError, match=r"plain-0.npz: a run of other settings .*tiny plain 0"):
        figure.read_runs(small(san, points=san.points + 1))
    about = {"recipe": json.loads(san.recipe()), "code": "edited"} | COST
    write_json(san.run_file("shuffled", 1).with_suffix(".json"), about)
    with pytest.raises(UserError, match=r"shuffled-1.npz: a run of other code"):
        figure.read_runs(san)
    san.run_file("shuffled", 1).unlink()
    with pytest.raises(SystemExit):
        figure.main(["tiny"])
    assert "python -m cliptrase.san.train tiny shuffled 1" in capsys.readouterr().err


def test_cpu_seconds_of_regions_are_not_compared_with_steps_of_a_gpu(tiny, runs, monkeypatch):
    curves = {"plain": curve_of(runs)}
    monkeypatch.setattr(figure, "_seconds_of_a_step", lambda san: 2.0)
    about = frame_of(curves, AT), speeds(curves, AT), 6.0
    assert "6 CPU seconds, as 3 iterations do" in figure.in_words(tiny, *about)[-1]
    assert len(figure.in_words(small(tiny, gpus=1), *about)) == 1


def test_the_page_is_written_again_where_the_figure_is_newer(empty):
    drawn, written = figure_8("shapes"), empty / "results/shapes/index.html"
    assert drawn == settings.load("shapes").folder / drawn.name
    drawn.parent.mkdir(parents=True)
    for file in (written, drawn):
        file.touch()
    os.utime(written, (2e9, 2e9))
    assert not Path(markers.page("shapes")).read_text()
    os.utime(drawn, (2e9, 2e9 + 1))
    assert "there is now a Figure 8" in Path(markers.page("shapes")).read_text()
