"""What a suite is said to cost, what is timed for that, kept, believed and forgotten."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple

import pytest

from cliptrase import machine, pipeline, plan
from cliptrase.cli import main
from cliptrase.errors import UserError
from cliptrase.pipeline import estimate
from cliptrase.pipeline.announcement import announcement, totals
from cliptrase.pipeline.estimate import Speed, Timing
from cliptrase.resources import resource

SHAPES = "shapes.shapes_clip.224.crop"


def answer(question, device="cpu", **timing):
    each = {"image": 0.5, "once": 5.0, "windows": 2} | timing
    passes = {name: Timing(**each) for name in question["passes"]}
    return Speed(device=device, start=4.0, memory=1e9, passes=passes)


@pytest.fixture
def asked(empty, monkeypatch):
    """What the probe is asked; it answers at once."""
    questions = []

    def ask(question):
        questions.append(question)
        return answer(question)

    monkeypatch.setattr(estimate, "_ask", ask)
    return questions


def cost(suite, names, cores=None, again=False):
    made = [suite.passes[name] for name in names]
    return estimate.estimate(suite, made, cores, "auto", False, again)


# --- what is said ---------------------------------------------------------------------------


def test_the_command_prints_a_line_a_pass_and_totals(shapes, asked, capsys):
    main(["estimate", "shapes", "--cores", "2"])
    said = capsys.readouterr().out
    for name, one in shapes.passes.items():
        (line,) = (line for line in said.splitlines() if line.startswith(f"  {name} "))
        assert line.split()[1:4] == [str(len(one.runs)), "200", "400"]
    for word in ("encoder: 2,400 images", "time: about ", "memory: about ", "disk: about "):
        assert word in said
    main(["estimate"])
    assert "suite shapes" in capsys.readouterr().out and len(asked) == 2, "timed anew"
    main(["estimate", "shapes", "--benchmarks=[shapes_clean]"])
    assert "of 2, to read 400 images" in capsys.readouterr().out


def test_what_is_finished_is_not_timed(asked, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "stale_passes", lambda plan, frozen: {})
    main(["estimate", "shapes"])
    said = capsys.readouterr().out
    assert "passes without a result: 0 of" in said and "time: " not in said and not asked


def test_the_archives_of_a_suite_s_own_folder_are_not_those_of_the_paper(empty, asked, capsys):
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shaps"], "did you mean 'shapes'?"),
        (["shapes", "--benchmarks", "shape_bg"], "did you mean 'shapes_bg'?"),
        (["shapes", "--device", "foo"], "device=foo"),
    ],
)
def test_a_word_that_is_wrong_is_one_message_before_anything(empty, asked, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and message in error and error.count("\n") == 1
    assert not asked and not any(empty.iterdir())


def test_a_machine_that_cannot_be_timed_is_said_to_be_unknown(shapes, asked, monkeypatch):
    monkeypatch.setattr(estimate, "_ask", lambda question: None)
    said = announcement(shapes, list(shapes.passes), list(shapes.passes))
    assert "time: unknown" in said and "1200 images" in said


def test_a_machine_that_was_busy_is_said_to_have_been(shapes, asked, monkeypatch):
    quiet = cost(shapes, [SHAPES], again=True)
    assert "other programs" not in totals(quiet)[1]
    seconds = iter([100.0, 101.5])
    monkeypatch.setattr(estimate, "_others", lambda: next(seconds))
    busy = cost(shapes, [SHAPES], again=True)
    assert "other programs took 1.5 cores while it was timed" in totals(busy)[1]


def test_what_other_cores_do_counts_for_nothing(monkeypatch):
    monkeypatch.setattr(estimate.os, "sched_getaffinity", lambda _: {1})
    Times = namedtuple("Times", "user nice system")  # not on Linux: no time is stolen
    cores = [Times(1e9, 0.0, 0.0), Times(1000.0, 20.0, 300.0)]
    monkeypatch.setattr(estimate.psutil, "cpu_times", lambda percpu: cores)
    assert 0 < 1320 - estimate._others() < 1000


def test_both_disks_must_have_room_for_all_that_is_written(smoke, asked, monkeypatch, tmp_path):
    """On a disk of this machine the suite took 13 MB of data and 7 MB of results."""
    names = list(smoke.passes)

    def disks():
        said = announcement(smoke, names, names).splitlines()
        return [line for line in said if line.startswith("disk: ")]

    (one,) = disks()
    needed, unit = one.removeprefix("disk: about ").split()[:2]
    assert 20 < float(needed) < 40 and unit == "MB" and one.endswith("free in data and results")
    (tmp_path / "results").mkdir()
    device = "cliptrase.pipeline.announcement._device"
    monkeypatch.setattr(device, lambda folder: str(folder))
    monkeypatch.setattr(
        "cliptrase.pipeline.announcement.free_space",
        lambda folder: 10**6 if folder == "results" else 10**9,
    )
    data, results = disks()
    assert data.endswith("1.0 GB free in data")
    assert results.endswith("1.0 MB free in results: NOT ENOUGH")


def test_a_short_start_is_not_kept_waiting_by_the_probe(smoke, shapes, asked):
    said = announcement(smoke, list(smoke.passes), list(smoke.passes))
    assert "time: about" in said and "a guess" in said and not asked
    said = announcement(shapes, list(shapes.passes), list(shapes.passes))
    assert "time: about" in said and "a guess" not in said and len(asked) == 1
    assert "time" not in announcement(shapes, list(shapes.passes), [])


def test_a_start_whose_jobs_run_elsewhere_times_nothing(shapes, asked):
    said = announcement(shapes, list(shapes.passes), list(shapes.passes), elsewhere=True)
    assert not asked and "memory" not in said
    assert "cliptrase estimate shapes" in said.splitlines()[-1] and "\ndisk: " in said


def test_planning_loads_neither_torch_nor_numpy(empty):
    code = (
        "import sys; from cliptrase.pipeline import estimate; estimate._ask = lambda _: None; "
        "from cliptrase.cli import main; main(['estimate', 'shapes']); "
        "print({'numpy', 'torch', 'open_clip', 'hydra', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=empty)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


# --- how it grows ---------------------------------------------------------------------------


def test_images_cost_in_proportion_and_are_shared_by_the_cores(shapes, asked, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    (one,) = cost(shapes, [SHAPES], again=True).passes
    assert one.images == 200 and one.windows == 400
    alone = one.work - 200 * 0.5
    seconds = [
        cost(shapes, [SHAPES], cores, again=True).passes[0].seconds for cores in (1, 2, 4, None)
    ]
    assert seconds == pytest.approx([alone + 100 / cores for cores in (1, 2, 4, 4)])


def test_a_start_is_paid_by_the_pass_and_writing_by_the_run(shapes, asked):
    names = [SHAPES, "shapes.shapes_clip.224.slide"]
    both = cost(shapes, names, again=True)
    one, other = both.passes
    assert one.work - other.work == pytest.approx(estimate.WRITTEN * (one.runs - other.runs))
    assert other.work > 100 + 4.0 + 5.0
    assert both.work - cost(shapes, [SHAPES], again=True).work == pytest.approx(other.work)


def test_a_pass_on_a_gpu_has_it_to_itself(shapes, asked, monkeypatch):
    monkeypatch.setattr(machine, "gpu_uuids", lambda: [""] * 2)
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    names = list(shapes.passes)
    blind = cost(shapes, names, again=True)
    assert totals(blind) == ["time: unknown, as this machine could not be timed"]
    monkeypatch.setattr(estimate, "_ask", lambda question: answer(question, "cuda"))
    on_gpus = cost(shapes, names, again=True)
    assert on_gpus.gpus == 2 and any("on 2 GPUs and" in line for line in totals(on_gpus))
    assert "2 passes at once" in totals(on_gpus)[-1]
    assert on_gpus.passes[0].seconds == on_gpus.passes[0].work


# --- what is kept ---------------------------------------------------------------------------


def timed(runs=("a",), device="cpu", **more):
    return estimate.timed("shapes", {"a pass": list(runs)}, device, **more)


def test_a_probe_that_breaks_breaks_nothing(empty, monkeypatch):
    for program in ("/nonexistent", "/bin/false", "/bin/true"):
        monkeypatch.setattr(sys, "executable", program)
        assert timed() is None
    assert not estimate.KEPT.exists()


def test_what_was_timed_is_believed_here_and_for_a_day(asked, monkeypatch, capsys):
    assert timed() == timed() and len(asked) == 1
    assert capsys.readouterr().err.count("timing this machine") == 1, "the wait is said"
    assert timed(["b"]) and len(asked) == 2, "other runs"
    assert timed(["b"], again=True) and len(asked) == 3, "it may have been busy"
    start = estimate.time.time()
    for later, times in ((0.9, 3), (1.1, 4), (-0.1, 5)):
        monkeypatch.setattr(
            estimate.time, "time", lambda later=later: start + later * estimate.BELIEVED
        )
        assert timed(["b"]) and len(asked) == times
    monkeypatch.setattr(estimate.platform, "node", lambda: "elsewhere")
    assert timed(["b"]) and len(asked) == 6
    kept = estimate.KEPT.read_text()
    changed = kept.replace('"speed"', '"spead"'), kept.replace('"at": ', '"at": 1')
    for content in ("{", "", "[]", "{}", '{"about": 1, "sha256": "0"}', *changed):
        estimate.KEPT.write_text(content)
        before = len(asked)
        assert timed(["b"]) and len(asked) == before + 1, content
        assert timed(["b"]) and len(asked) == before + 1


def test_an_answer_of_the_cpu_is_not_kept_where_there_is_a_gpu(asked, monkeypatch):
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    monkeypatch.setattr(machine, "gpu_uuids", lambda: ["GPU-1"])
    assert timed(device="auto").device == timed(device="auto").device == "cpu" and len(asked) == 2
    assert timed(device="cpu") == timed(device="cpu") and len(asked) == 3, "it was asked for"
    monkeypatch.setattr(estimate, "_ask", lambda question: answer(question, "cuda"))
    assert timed(device="auto") == timed(device="auto")
    monkeypatch.setattr(machine, "gpu_uuids", lambda: ["GPU-2"])
    monkeypatch.setattr(estimate, "_ask", lambda question: None)
    assert timed(device="auto") is None, "another one"
