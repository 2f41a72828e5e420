"""What a suite costs: what is computed once for all runs, and how it grows."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from tests.objects import changed
from tests.unit.estimates import as_measured, estimated

from cliptrase import plan
from cliptrase.data.read.vocabularies import owned_names, read_classes
from cliptrase.evaluate import flops, keys, slide
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.model.load import load_clip
from cliptrase.pipeline.estimate import costs, speed, suite, todo, work
from cliptrase.pipeline.estimate.model import Parts, Shape
from cliptrase.runs import seal
from cliptrase.runs.provenance import code_digest

SHAPES = "shapes.shapes_clip.224.crop"


def only(suite_plan, **changes):
    """The plan with one pass of one run, which has these changes."""
    one = suite_plan.passes[SHAPES]
    name, run = next(iter(one.runs.items()))
    runs = {name: changed(run, changes)}
    passes = {SHAPES: dataclasses.replace(one, runs=runs)}
    return dataclasses.replace(suite_plan, passes=passes, runs=runs)


# --- what is computed once ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shapes", "paper"])
def test_runs_share_what_they_share_in_the_graph(name):
    """The torch-free keys part the runs exactly as those of evaluate/keys.py do."""
    runs = list(plan.load(name).runs.values())
    voting = [run for run in runs if run.method.vote != "none"]
    pairs = [
        (
            runs,
            lambda run: run.method.attention,
            lambda run: work.attention_key(run.method),
        ),
        (
            runs,
            lambda run: flops.method_key(run.method),
            lambda run: work.cost_key(run | WORDLESS),
        ),
        (
            voting,
            lambda run: keys.clustering_key(run.method, run.method.regions),
            lambda run: work.clustering_key(run.method),
        ),
        (
            voting,
            lambda run: keys.smoothing_key(run.method.regions),
            lambda run: work.smoothing_key(run.method.regions),
        ),
        (
            [run for run in runs if run.protocol.name == "crop"],
            lambda run: keys.logits_key(run.method, work.text_key(run), run.protocol.logit_scale),
            work.logits_key,
        ),
    ]
    for some, theirs, ours in pairs:
        both = {(theirs(run), ours(run)) for run in some}
        assert len(both) == len({one for one, _ in both}) == len({one for _, one in both}) > 1


WORDLESS = {"vocabulary": {}, "protocol": {"name": "crop"}}


def test_the_same_run_twice_costs_no_more_than_once(shapes):
    runs = list(shapes.passes[SHAPES].runs.values())
    shape = Shape.of(runs[0].model)
    once = work.counts(runs, shape, costs.names)
    assert work.counts(runs + copy.deepcopy(runs), shape, costs.names) == once
    alone = [work.counts([run], shape, costs.names) for run in runs]
    assert sum(one.encoded for one in alone) > 10 * once.encoded, "they share the encoder"


def test_blocks_are_what_torch_counts(shapes):
    """Operations of whole methods, as torch's counter has them: its own oracle."""
    at_224 = (run for run in shapes.runs.values() if run.image_size == 224)
    runs = {run.method.name: run for run in at_224}
    clip = load_clip(next(iter(runs.values())).model, torch.device("cpu"))
    pixels = torch.zeros(1, 3, 224, 224)
    for name in ("clip", "sclip", "clearclip", "gem", "clip_surgery"):
        run = runs[name]
        words = Text.listed(torch.zeros(costs.names(run), clip.embed_dim), 7)
        graph = Graph(clip, pixels, (14, 14))
        counted = flops.counted(lambda g=graph, r=run, w=words: g.prediction(r.method, w, ""))
        shape = Shape.of(run.model)
        found = work.counts([run], shape, costs.names)
        blocks = found.encoded + found.blocks
        assert blocks * Parts(shape, 196).block == pytest.approx(counted, rel=0.08), name


@pytest.mark.parametrize(
    ("dataset", "size"), [("coco", (448, 336)), ("voc2012", (448, 336)), ("shapes", (336, 336))]
)
def test_windows_are_those_that_slide_over_a_picture(paper, dataset, size):
    run = next(run for run in paper.runs.values() if work.slides(run))
    places = slide.places(size[::-1], 224, 112)
    assert costs.windows(run, dataset) == len(places)
    crop = next(run for run in paper.runs.values() if not work.slides(run))
    assert costs.windows(crop, dataset) == 1


def test_names_are_synonyms_and_background_words_too(paper):
    for run in paper.runs.values():
        vocabulary = run.vocabulary
        background = vocabulary.background
        entries = read_classes(background.path) if background else []
        words = [word for entry in entries for word in entry]
        listed, _ = owned_names(read_classes(vocabulary.classes.path), words)
        assert costs.names(run) == len(listed)


def test_many_names_are_compared_tile_by_tile_on_a_cpu(paper):
    """A name more costs less; on a GPU all names are upsampled."""
    run = next(run for run in paper.runs.values() if run.image_size == 224)
    shape = Shape.of(run.model)

    def named(count: int, tiled: bool) -> float:
        return work.counts([run], shape, lambda _: count, tiled=tiled).named / 224**2

    assert named(60, tiled=True) == named(60, tiled=False) == pytest.approx(0.6 * 60)
    # segment/logits.py on one core: milliseconds an image
    for count, took in ((171, 11e-3), (847, 19e-3)):
        assert costs.NAMED * named(count, tiled=True) * 224**2 == pytest.approx(took, rel=0.15)
    assert named(847, tiled=False) == pytest.approx(0.6 * 847)


# --- how it grows ---------------------------------------------------------------------------


def test_images_cost_in_proportion_and_a_limit_leaves_them_out(empty, shapes):
    few, more, most = (estimated(only(shapes, limit=limit)).jobs for limit in (50, 100, 150))
    at = next(number for number, job in enumerate(few) if job.name == SHAPES)
    assert more[at].work - few[at].work == pytest.approx(most[at].work - more[at].work)
    assert more[at].work > few[at].work
    assert estimated(only(shapes, limit=50)).left[0].images == 50
    assert estimated(only(shapes, limit=None)).left[0].images == todo.SCENES


def test_a_start_is_paid_by_the_pass(empty, shapes):
    """A pass of 102 runs and one of a single run start once each."""
    slow = dataclasses.replace(as_measured(shapes), start=1000.0)
    for some in (shapes, only(shapes)):
        names = [SHAPES]
        usual = suite.estimate(some, names, names, None, as_measured(shapes))
        late = suite.estimate(some, names, names, None, slow)
        assert late.work - usual.work == pytest.approx(1000.0 - speed.REFERENCE_START)


def test_words_are_encoded_once_for_all_passes(empty, shapes):
    found = estimated(shapes)
    wordy = dataclasses.replace(found.speed, blocks=dict(found.speed.blocks))
    (text,) = {costs.text_block(one.runs[0]) for one in found.left}
    wordy.blocks[speed.name_of(text)] += 1.0
    names = list(shapes.passes)
    slower = suite.estimate(shapes, names, names, None, wordy)
    lists = {work.text_key(run): costs.names(run) for run in shapes.runs.values()}
    depth = Shape.of(found.left[0].runs[0].model).text_depth
    assert slower.work - found.work == pytest.approx(depth * sum(lists.values()))


def test_what_is_finished_costs_nothing(empty, shapes):
    everything = estimated(shapes)
    first, *others = shapes.passes
    without = suite.estimate(shapes, [first, *others], others, None, everything.speed)
    assert first not in {job.name for job in without.jobs}
    assert [one.one.name for one in without.left] == others
    nothing = suite.estimate(shapes, [first, *others], [], None, everything.speed)
    assert nothing.left == [] and nothing.encoder_passes == 0
    assert not {job.name for job in nothing.jobs} & shapes.passes.keys()


def test_runs_that_stand_are_not_made_again(empty, shapes):
    one = shapes.passes[SHAPES]
    assert len(todo.runs_left(one)) == len(one.runs)
    for number, name in enumerate(one.runs):
        folder = empty / "results/runs" / name
        folder.mkdir(parents=True)
        for file in seal.SEALED:
            (folder / file).write_text("content")
        code = code_digest() if number else "another"
        said = {"files": seal.digests(folder), "code": code}
        (folder / seal.PROVENANCE).write_text(json.dumps(said))
    assert todo.runs_left(one) == [next(iter(one.runs.values()))]
    assert estimated(shapes, [SHAPES]).minutes(estimated(shapes, [SHAPES]).left[0]) < 0.5
