"""What is kept for the page: the runs' own maps, and the attention and correlation of the model."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from tests.few_scenes import write_scenes
from tests.unit.publish.conftest import load_plan

from cliptrase.evaluate import passes
from cliptrase.model.load import load_clip
from cliptrase.publish.figures import predicted
from cliptrase.publish.figures.predicted import explained
from cliptrase.publish.figures.shown_runs import chosen_runs
from cliptrase.publish.page import kept_pictures, predict_pictures
from cliptrase.publish.results import Shelf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The suite with its table of pictures alone, its runs on four scenes, and their data."""
    whole = load_plan("smoke")
    table = replace(whole.tables[whole.pictures], benchmarks=("shapes_bg", "shapes"))
    names = {cell.run for row in table.rows for cell in row.cells if cell.run}
    runs = {name: run for name, run in whole.runs.items() if name in names}
    suite = replace(whole, tables={table.name: table}, runs=runs)
    folder = tmp_path_factory.mktemp("kept")
    data, results = write_scenes(folder / "data", range(4)), folder / "results"
    options = {"partial": results / "partial.npz", "device": "cpu", "workers": 1}
    passes.run_pass(runs, out=results / "runs", data=data, **options)
    return suite, results, data


def kept_of(made):
    suite, results, data = made
    shelf = Shelf(suite, results, data)
    reasons = predict_pictures.keep(suite, shelf, data)
    assert reasons == {"shapes_bg": "", "shapes": ""}
    return kept_pictures.read(kept_pictures.file_of(results, suite.suite, "shapes_bg"))


def test_the_maps_have_the_counts_of_their_runs(made):
    _, results, _ = made
    kept = kept_of(made)
    ids = [each["id"] for each in kept.about["pictures"]]
    assert sorted(ids) == [f"{place:03}:scene_{place}" for place in range(4)]
    k = len(kept.about["names"])
    assert kept.about["background"] == k - 1 and len({*kept.about["names"]}) == k
    for run, maps in zip(kept.about["runs"], kept.maps, strict=True):
        scored = kept.truth >= 0
        matrix = confusion_matrix(kept.truth[scored], maps[scored], labels=range(k))
        with np.load(results / "runs" / run["run"] / "confusion.npz") as file:
            np.testing.assert_array_equal(matrix, file["confusion"])
        own = [place["scores"] for place in kept.about["pictures"]]
        assert np.isfinite(own).all()


def test_attention_and_correlation_are_those_of_the_figures(made):
    suite, _, data = made
    kept = kept_of(made)
    shown = chosen_runs(suite, "shapes_bg", suite.pictures)
    clip, loader = load_clip(shown.first.model, torch.device("cpu")), shown.loader(data)
    places = {name: place for place, name in enumerate(loader.dataset.ids)}
    order = [places[each["id"]] for each in kept.about["pictures"]]
    for at, quantities in enumerate(explained(clip, shown.runs["CLIPtrase"], loader, order, data)):
        correlation = kept.correlation[at] / 255 * 2 - 1
        expected = quantities.correlation[1:, 1:]
        np.testing.assert_allclose(correlation, expected.clip(-1, 1), atol=1 / 255 + 1e-6)
        attention, top = kept.attention[at] / 255, kept.attention_top[at]
        expected = quantities.attention[12][1:, 1:]
        assert top == expected.max()
        np.testing.assert_allclose(attention * top, expected, atol=top / 510 + 1e-7)
        np.testing.assert_array_equal(kept.pixels[at], quantities.pixels)


def test_the_command_says_why_a_benchmark_has_none(made, monkeypatch, caplog):
    suite, results, data = made
    monkeypatch.setattr("cliptrase.plan.load", lambda name: suite)
    command = ["smoke", "--results", str(results), "--data", str(data)]
    run = next(run for run in suite.runs.values() if run.benchmark.name == "shapes")
    folder = results / "runs" / run.name
    folder.rename(results / "lost")
    try:
        predict_pictures.main(command)
    finally:
        (results / "lost").rename(folder)
    said = json.loads((results / "smoke/pictures/kept.json").read_text())
    assert said["shapes_bg"] == "" and "not run yet" in said["shapes"]
    assert "no pictures of shapes: not run yet" in caplog.text


def test_a_map_with_one_pixel_of_another_class_is_refused(made, monkeypatch):
    suite, results, data = made
    jobs_of = predicted.jobs_of

    def changed(*arguments):
        jobs = jobs_of(*arguments)
        right = jobs["SCLIP"]

        def predict(graph):
            labels = right.predict(graph).clone()
            labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 20  # every pixel of a scene is scored
            return labels

        return jobs | {"SCLIP": SimpleNamespace(networks={}, predict=predict)}

    monkeypatch.setattr(predicted, "jobs_of", changed)
    reasons = predict_pictures.keep(suite, Shelf(suite, results, data), data)
    assert all("sclip" in reason for reason in reasons.values())
    assert all("has other pixel counts than the run" in reason for reason in reasons.values())
