"""What a suite is said to cost: what is counted once, what grows, and what is unknown."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from cliptrase import config, plan
from cliptrase.announcement import announcement
from cliptrase.cli import main
from cliptrase.data.vocabularies import owned_names, read_classes
from cliptrase.estimate import costs, report, speed, suite, todo, work
from cliptrase.estimate.model import Parts, Shape
from cliptrase.estimate.schedule import Job, finished
from cliptrase.estimate.speed import Speed
from cliptrase.evaluate import flops, keys, seal, slide
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.provenance import code_digest
from cliptrase.model.load import load_clip

SHAPES = "shapes.shapes_clip.224.crop"


@pytest.fixture(scope="module")
def shapes():
    return plan.load("shapes")


@pytest.fixture(scope="module")
def paper():
    return plan.load("paper")


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A working directory without data and results."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_measured(suite_plan) -> Speed:
    return speed.reference(suite.blocks(suite_plan.passes.values()))


def estimated(suite_plan, passes=None, **more):
    names = list(suite_plan.passes) if passes is None else passes
    return suite.estimate(suite_plan, names, names, None, as_measured(suite_plan), **more)


def only(suite_plan, **changes):
    """The plan with one pass of one run, which has these changes."""
    one = suite_plan.passes[SHAPES]
    name, run = next(iter(one.runs.items()))
    passes = {SHAPES: dataclasses.replace(one, runs={name: run | changes})}
    return dataclasses.replace(suite_plan, passes=passes, runs={name: run | changes})


# --- what is computed once ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shapes", "paper"])
def test_runs_share_what_they_share_in_the_graph(name):
    """The torch-free keys part the runs exactly as those of evaluate/keys.py do."""
    runs = list(plan.load(name).runs.values())
    voting = [run for run in runs if keys.vote_of(run["method"]) != "none"]
    pairs = [
        (
            runs,
            lambda run: keys.attention_key(run["method"]),
            lambda run: work.attention_key(run["method"]),
        ),
        (
            runs,
            lambda run: flops.method_key(run["method"]),
            lambda run: work.cost_key(run | WORDLESS),
        ),
        (
            voting,
            lambda run: keys.clustering_key(run["method"]),
            lambda run: work.clustering_key(run["method"]),
        ),
        (
            voting,
            lambda run: keys.smoothing_key(run["method"]["regions"]),
            lambda run: work.smoothing_key(run["method"]["regions"]),
        ),
        (
            [run for run in runs if run["protocol"]["name"] == "crop"],
            lambda run: keys.logits_key(
                run["method"], work.text_key(run), run["protocol"]["logit_scale"]
            ),
            work.logits_key,
        ),
    ]
    for some, theirs, ours in pairs:
        both = {(theirs(run), ours(run)) for run in some}
        assert len(both) == len({one for one, _ in both}) == len({one for _, one in both}) > 1


WORDLESS = {"vocabulary": {}, "protocol": {"name": "crop"}}


def test_the_same_run_twice_costs_no_more_than_once(shapes):
    runs = list(shapes.passes[SHAPES].runs.values())
    shape = Shape.of(runs[0]["model"])
    once = work.counts(runs, shape, costs.names)
    assert work.counts(runs + copy.deepcopy(runs), shape, costs.names) == once
    alone = [work.counts([run], shape, costs.names) for run in runs]
    assert sum(one.blocks for one in alone) > 10 * once.blocks, "they share the encoder"


def test_blocks_are_what_torch_counts(shapes):
    """Operations of whole methods, as torch's counter has them: its own oracle."""
    at_224 = (run for run in shapes.runs.values() if run["image_size"] == 224)
    runs = {run["method"]["name"]: run for run in at_224}
    clip = load_clip(next(iter(runs.values()))["model"], torch.device("cpu"))
    pixels = torch.zeros(1, 3, 224, 224)
    for name in ("clip", "sclip", "clearclip", "gem", "clip_surgery"):
        run = runs[name]
        words = Text.listed(torch.zeros(costs.names(run), clip.embed_dim), 7)
        graph = Graph(clip, pixels, (14, 14))
        counted = flops.counted(lambda g=graph, r=run, w=words: g.prediction(r["method"], w, ""))
        shape = Shape.of(run["model"])
        blocks = work.counts([run], shape, costs.names).blocks
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
        vocabulary = run["vocabulary"]
        background = vocabulary["background"]
        entries = read_classes(background["path"]) if background else []
        words = [word for entry in entries for word in entry]
        listed, _ = owned_names(read_classes(vocabulary["classes"]["path"]), words)
        assert costs.names(run) == len(listed)


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
    (text,) = {costs.needed_blocks(one.runs[0])[1] for one in found.left}
    wordy.blocks[speed.name_of(text)] += 1.0
    names = list(shapes.passes)
    slower = suite.estimate(shapes, names, names, None, wordy)
    lists = {work.text_key(run): costs.names(run) for run in shapes.runs.values()}
    depth = Shape.of(found.left[0].runs[0]["model"]).text_depth
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


# --- when it is done ------------------------------------------------------------------------


def test_three_jobs_on_two_cores():
    jobs = [Job("a", 3.0), Job("b", 2.0), Job("c", 2.0)]
    assert finished(jobs, 2) == 4.0, "c follows b"
    assert finished(jobs, 3) == 3.0
    assert finished(jobs, 1) == 7.0


def test_a_long_job_is_the_tail_and_threads_are_taken_from_the_cores():
    assert finished([Job("a", 1.0), Job("b", 1.0), Job("long", 9.0)], 2) == 10.0
    both = Job("both", 1.0, 8.0, threads=2)
    assert both.seconds == 5.0 and both.work == 9.0
    assert finished([Job("a", 1.0), both, Job("b", 1.0)], 2) == 6.0, "a and b are at once"
    assert finished([dataclasses.replace(both, threads=8)], 2) == 2.0


def test_a_job_waits_for_what_it_needs_and_for_a_gpu():
    first = Job("first", 2.0)
    second = Job("second", 3.0, needs=frozenset({"first", "made long ago"}))
    assert finished([second, first], 8) == 5.0
    passes = [Job(name, 4.0, gpu=True) for name in "abc"]
    assert finished(passes, 8, gpus=1) == 12.0
    assert finished(passes, 8, gpus=2) == 8.0
    with pytest.raises(ValueError, match="nothing can start"):
        finished([Job("a", 1.0, needs=frozenset({"a"}))], 1)


@pytest.mark.parametrize(("cores", "jobs"), [*product([1, 2, 4], [1, 5, 9])])
def test_no_schedule_beats_the_cores_or_the_longest(cores, jobs):
    some = [Job(str(n), 1.0 + n % 3, 2.0, threads=1 + n % 2) for n in range(jobs)]
    took = finished(some, cores)
    assert took >= max(job.seconds for job in some)
    assert took <= sum(job.work for job in some)
    assert took * cores >= sum(job.seconds * min(job.threads, cores) for job in some) - 1e-9


# --- what a user sees -----------------------------------------------------------------------


def probing(monkeypatch, answer):
    asked = []

    def ask(question):
        asked.append(question)
        return answer(question) if callable(answer) else answer

    monkeypatch.setattr(speed, "_ask", ask)
    return asked


def quick(question):
    blocks = {speed.name_of(tuple(one)): 1e-3 for one in question["blocks"]}
    return {"device": "cpu", "start": 3.0, "blocks": blocks, "pixel": 2e-9, "pixel_on_device": 2e-9}


def test_the_command_prints_a_line_a_pass_and_totals(empty, shapes, monkeypatch, capsys):
    asked = probing(monkeypatch, quick)
    main(["estimate", "shapes", "--cores", "2"])
    said = capsys.readouterr().out
    for name, one in shapes.passes.items():
        (line,) = (line for line in said.splitlines() if line.startswith(f"  {name} "))
        assert line.split()[1:3] == [str(len(one.runs)), "200"]
    for word in ("encoder: ", "time: about ", "memory: about ", "disk: about "):
        assert word in said
    main(["estimate"])
    assert "suite shapes" in capsys.readouterr().out and len(asked) == 2, "timed anew"
    main(["estimate", "shapes", "--benchmarks=[shapes_clean]"])
    assert "of 2, to read 400 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shaps"], "did you mean 'shapes'?"),
        (["shapes", "--benchmarks", "shape_bg"], "did you mean 'shapes_bg'?"),
    ],
)
def test_an_unknown_suite_or_benchmark_is_one_message(empty, words, message, monkeypatch, capsys):
    probing(monkeypatch, quick)
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"device": "cpu"},
        {"device": "cpu", "start": "?", "blocks": {}, "pixel": 1, "pixel_on_device": 1},
        lambda question: quick(question) | {"pixel": 0.0},
        lambda question: quick(question) | {"blocks": {}},
    ],
)
def test_a_machine_that_cannot_be_timed_is_said_to_be_unknown(empty, shapes, monkeypatch, answer):
    probing(monkeypatch, answer)
    names = list(shapes.passes)
    said = announcement(shapes, names, names)
    assert "time: unknown" in said and "memory: about" in said and "1000 images" in said


def test_a_probe_that_breaks_breaks_nothing(empty, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert speed.probed([(8, 5, 1)], "cpu") is None
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert speed.probed([(8, 5, 1)], "cpu") is None
    assert not speed.KEPT.exists()


def test_a_short_start_is_not_kept_waiting_by_the_probe(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    smoke, long = plan.load("smoke"), plan.load("shapes")
    said = announcement(smoke, list(smoke.passes), list(smoke.passes))
    assert "time: about" in said and not asked
    announcement(long, list(long.passes), list(long.passes))
    assert len(asked) == 1
    assert "time" not in announcement(long, list(long.passes), [])


def test_timings_of_another_machine_are_not_believed(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    one, other = (8, 5, 1), (16, 5, 1)
    assert speed.probed([one], "cpu") and len(asked) == 1
    assert speed.probed([one], "cpu") and len(asked) == 1
    found = speed.probed([one, other], "cpu")
    assert found and asked[1]["blocks"] == [other], "only what is not known"
    assert found.blocks.keys() == {"8.5.1", "16.5.1"} == speed.known([one], "cpu").blocks.keys()
    monkeypatch.setattr(speed.platform, "node", lambda: "elsewhere")
    assert speed.known([one], "cpu") is None
    speed.KEPT.write_text("{")
    assert speed.probed([one], "cpu") and len(asked) == 3
    assert speed.probed([one], "cpu", again=True) and len(asked) == 4, "it may have been busy"


def test_a_gpu_is_said_to_rest_on_the_probe(empty, shapes, monkeypatch):
    names = list(shapes.passes)
    on_gpu = dataclasses.replace(as_measured(shapes), device="cuda")
    monkeypatch.setattr(suite.pipeline, "gpus", lambda device: 1)
    found = suite.estimate(shapes, names, names, None, on_gpu, device="cuda")
    assert all(job.gpu for job in found.jobs if job.name in names) and found.at_once == 1
    assert any("rests on the probe alone" in line for line in report.totals(found))
    blind = suite.estimate(shapes, names, names, None, as_measured(shapes), device="cuda")
    assert any(line.startswith("time: unknown") for line in report.totals(blind))


def test_planning_loads_neither_torch_nor_numpy(empty):
    code = (
        "import sys; from cliptrase.estimate import speed; speed._ask = lambda question: {}; "
        "from cliptrase.cli import main; main(['estimate', 'shapes']); "
        "print({'numpy', 'torch', 'open_clip', 'hydra', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=empty)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_the_probe_times_what_it_is_asked(empty):
    found = speed.probed([(64, 5, 1), (64, 5, 3)], "cpu")
    assert found and found.device == "cpu" and found.blocks.keys() == {"64.5.1", "64.5.3"}
    assert speed.known([(64, 5, 3)], "cpu") == found


def test_shapes_of_all_models_that_ship_are_read(empty):
    for name in ("shapes_clip", "vit_b16", "vit_l14"):
        run = config.resolve([f"model={name}", "benchmark=shapes"])
        shape = Shape.of(run["model"])
        assert shape.width % 64 == 0 and shape.patch == run["model"]["patch"]
