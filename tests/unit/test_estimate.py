"""What a suite is said to cost, and what is unknown."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from tests.unit.estimates import as_measured, probing, quick

from cliptrase import pipeline, plan
from cliptrase.cli import main
from cliptrase.errors import UserError
from cliptrase.pipeline.announcement import announcement
from cliptrase.pipeline.estimate import report, suite
from cliptrase.pipeline.estimate.start import Start
from cliptrase.resources import resource


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


def test_what_is_finished_is_not_timed(empty, shapes, monkeypatch, capsys):
    asked = probing(monkeypatch, quick)
    monkeypatch.setattr(pipeline, "unmade", lambda plan: [])
    main(["estimate", "shapes", "--freeze-code"])
    said = capsys.readouterr().out
    assert "passes without a result: 0 of" in said and "time: " not in said and not asked
    main(["estimate", "shapes"])
    said = capsys.readouterr().out
    assert f"passes without a result: {len(shapes.passes)} of" in said, "no run is of this code"


def test_the_archives_of_a_suite_s_own_folder_are_not_those_of_the_paper(
    empty, monkeypatch, capsys
):
    asked = probing(monkeypatch, quick)
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "miniature"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.err.count("\n") == 1 and not said.out and not asked
    assert "data/miniature/sources.yaml" in said.err and "`make miniature`" in said.err
    miniature = plan.load("miniature")
    names = list(miniature.passes)
    with pytest.raises(UserError, match="make miniature"):
        announcement(miniature, names, names)
    assert "0 of" in announcement(miniature, names, []), "nothing is fetched"
    sources = empty / "data/miniature/sources.yaml"
    sources.parent.mkdir(parents=True)
    sources.write_bytes(resource("conf", "sources.yaml").read_bytes())
    assert "to download: " in announcement(miniature, names, names)


def test_a_device_that_is_none_is_refused_before_anything(empty, monkeypatch, capsys):
    asked = probing(monkeypatch, quick)
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "shapes", "--device", "foo"])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and "device=foo" in error and error.count("\n") == 1
    assert not asked and not any(empty.iterdir())


def test_a_start_has_no_more_gpus_than_it_is_given(empty, shapes, monkeypatch):
    asked = probing(monkeypatch, quick)
    monkeypatch.setattr(pipeline, "gpus", lambda device: 4)
    names, on_gpus = list(shapes.passes), dataclasses.replace(as_measured(shapes), device="cuda")
    for given, at_once in ((None, 4), (2, 2)):
        start = Start(device="cuda", gpus=given)
        found = suite.estimate(shapes, names, names, None, on_gpus, start)
        assert found.gpus == found.at_once == at_once and start.computing == "cuda"
    none = Start(device="cuda", gpus=0)
    found = suite.estimate(shapes, names, names, None, as_measured(shapes), none)
    assert found.gpus == 0 and not any(job.gpu for job in found.jobs)
    said = announcement(shapes, names, names, start=none)
    assert asked[-1]["device"] == "cpu" and "time: about" in said and "GPU" not in said


def test_a_pass_is_timed_in_its_precision(empty):
    precise = plan.load("precision")
    slow = as_measured(precise)
    blocks = {name: took * (1 + 99 * name.endswith("bf16")) for name, took in slow.blocks.items()}
    slow = dataclasses.replace(slow, blocks=blocks)
    names = list(precise.passes)
    usual, found = (
        suite.estimate(precise, names, names, None, speed) for speed in (as_measured(precise), slow)
    )
    for before, after in zip(usual.left, found.left, strict=True):
        ratio = found.minutes(after) / usual.minutes(before)
        assert ratio > 5 if "bf16" in after.one.name else ratio == 1, after.one.name


def test_what_is_not_published_costs_little(empty, shapes):
    names, speed = list(shapes.passes), as_measured(shapes)
    offline, disabled = (
        suite.estimate(shapes, names, names, None, speed, Start(tracking=tracking))
        for tracking in ("offline", "disabled")
    )
    (publishing,) = (job for job in offline.jobs if job.name == "wandb")
    assert offline.work - disabled.work > 0.8 * publishing.work


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


def test_a_short_start_is_not_kept_waiting_by_the_probe(empty, monkeypatch):
    asked = probing(monkeypatch, quick)
    smoke, long = plan.load("smoke"), plan.load("shapes")
    said = announcement(smoke, list(smoke.passes), list(smoke.passes))
    assert "time: about" in said and not asked
    announcement(long, list(long.passes), list(long.passes))
    assert len(asked) == 1
    assert "time" not in announcement(long, list(long.passes), [])


def test_a_gpu_is_said_to_rest_on_the_probe(empty, shapes, monkeypatch):
    names = list(shapes.passes)
    on_gpu = dataclasses.replace(as_measured(shapes), device="cuda")
    monkeypatch.setattr(suite.pipeline, "gpus", lambda device: 1)
    found = suite.estimate(shapes, names, names, None, on_gpu, Start(device="cuda"))
    assert all(job.gpu for job in found.jobs if job.name in names) and found.at_once == 1
    assert any("rests on the probe alone" in line for line in report.totals(found))
    blind = suite.estimate(shapes, names, names, None, as_measured(shapes), Start(device="cuda"))
    assert any(line.startswith("time: unknown") for line in report.totals(blind))


def test_planning_loads_neither_torch_nor_numpy(empty):
    code = (
        "import sys; from cliptrase.pipeline.estimate import speed; speed._ask = lambda _: {}; "
        "from cliptrase.cli import main; main(['estimate', 'shapes']); "
        "print({'numpy', 'torch', 'open_clip', 'hydra', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=empty)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
