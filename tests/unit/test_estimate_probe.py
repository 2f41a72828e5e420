"""The probe: what it times is the code of a pass, on work that is like a pass's."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from cliptrase import plan
from cliptrase.config.kinds import vote_of
from cliptrase.evaluate import slide
from cliptrase.evaluate.graph import Graph
from cliptrase.model.precision import DTYPES
from cliptrase.pipeline import estimate, probe

CPU = torch.device("cpu")


def few(suite_plan, name, *methods):
    runs = suite_plan.passes[name].runs.items()
    return {key: run for key, run in runs if run.method.name in methods}


def test_it_answers_what_it_is_asked(shapes, monkeypatch, capsys):
    chosen = []

    @contextmanager
    def computing_on(choice):
        chosen.append(choice)
        yield CPU

    passes = {
        name: list(few(shapes, name, "clip", "cliptrase"))
        for name in ("shapes.shapes_clip.224.crop", "shapes.shapes_clip.224.slide")
    }
    question = {"suite": "shapes", "device": "cuda:1", "passes": passes}
    monkeypatch.setattr(probe, "computing_on", computing_on)
    monkeypatch.setattr(probe.sys, "stdin", probe.sys.stdin)
    monkeypatch.setattr(probe.json, "load", lambda _: question)
    probe.main()
    speed = estimate.Speed.model_validate(json.loads(capsys.readouterr().out))
    assert chosen == ["cuda:1"] and speed.device == "cpu" and speed.memory > 1e8
    assert speed.passes.keys() == passes.keys()
    windows = slide.places((336, 336), 224, 112)
    assert [timing.windows for timing in speed.passes.values()] == [1, len(windows)]


def test_every_run_takes_part_in_what_is_timed(shapes, monkeypatch):
    """As many answers as a pass over the same images gives, and the time of all of them."""
    runs = few(shapes, "shapes.shapes_clip.224.crop", "clip", "sclip", "cliptrase")
    assert any(run.method.attention.within for run in runs.values())  # an oracle, of table 4
    answers = []
    results = probe.Predictor._results

    def counted(predictor, image, maps):
        assert predictor.batch_size == next(iter(runs.values())).batch_size
        answers.append(results(predictor, image, maps))
        return answers[-1]

    monkeypatch.setattr(probe.Predictor, "_results", counted)
    timing = probe.timing(runs, "shapes", CPU, set(), probe.SamCosts(CPU))
    assert len(answers) == probe.cores()
    assert all(each.keys() == runs.keys() and all(each.values()) for each in answers)
    assert 0 < timing["image"] < 60 and 0 < timing["once"] < 60


@pytest.mark.parametrize("suite", ["shapes", "paper"])
def test_clusters_of_random_pictures_are_as_many_as_those_of_pictures(suite):
    """2 to 20 for the defaults of CLIPtrase, as trained models have: neither none nor noise."""
    passes = plan.load(suite).passes
    runs = next(each.runs for name, each in passes.items() if name.endswith(".224.crop"))
    run = next(run for run in runs.values() if vote_of(run.method) != "none")
    torch.manual_seed(0)
    clip = probe.random_clip(run.model, CPU)
    pixels = clip.normalise(np.asarray(probe.random_sample((224, 224)).image)[None])
    with torch.inference_mode():
        clusters = Graph(clip, pixels).clusters(run.method)
    assert 2 <= int(clusters.max()) + 1 <= 20


def test_names_compete_for_the_pixels(shapes):
    runs = few(shapes, "shapes.shapes_clip.224.crop", "clip")
    run = max(runs.values(), key=lambda run: run.vocabulary.classes.count)
    torch.manual_seed(0)
    clip = probe.random_clip(run.model, CPU)
    with torch.inference_mode():
        text = probe.random_text(clip, run)
        pixels = clip.normalise(np.asarray(probe.random_sample((224, 224)).image)[None])
        classes = Graph(clip, pixels).prediction(run.method, text, "words")
    assert len(text.owner) >= run.vocabulary.classes.count
    assert len(classes.unique()) > 2


@pytest.mark.parametrize("precision", list(DTYPES))
def test_a_model_is_timed_in_its_precision(shapes, precision):
    model = next(iter(shapes.runs.values())).model.model_copy(update={"precision": precision})
    clip = probe.random_clip(model, CPU)
    assert clip.precision == precision
    assert clip.blocks[0].mlp.c_fc.weight.dtype == DTYPES[precision]


def test_seconds_of_a_cpu_are_those_that_are_computed():
    assert probe._seconds(CPU, lambda: probe.time.sleep(0.2)) < 0.1
