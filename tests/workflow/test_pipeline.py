"""What the Snakefile asks: files of a step, shares of the cores, passes that are stale; markers."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.provenance import change_provenance
from tests.workflow.made_runs import make_pass, write

from cliptrase import machine, pipeline, plan
from cliptrase.data.make import prepare
from cliptrase.data.read.ordered import cores
from cliptrase.errors import UserError
from cliptrase.pipeline import markers
from cliptrase.publish.digests import remember
from cliptrase.runs import code, finished


@pytest.fixture
def real_cores(monkeypatch) -> Callable[[int], None]:
    """real_cores(n): a machine that seems to have n cores."""

    def have(count: int) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(count)))
        monkeypatch.setattr("cliptrase.machine.cpu_quota", lambda: None)

    return have


@pytest.mark.parametrize(
    ("real", "cores", "threads"),
    [
        (real, cores, threads)
        for real, cores in itertools.product([1, 2, 3, 8, 64], [1, 2, 3, 8, 64, 100])
        for threads in sorted({1, min(2, real, cores), min(real, cores)})
    ],
)
def test_jobs_never_have_more_busy_threads_than_there_are_real_cores(
    real_cores, real, cores, threads
):
    real_cores(real)
    claimed = pipeline.claim(threads, cores)
    at_once = cores // claimed
    assert at_once >= 1, "a job that claims more than there is never starts"
    assert at_once * threads <= min(real, cores)
    assert pipeline.busy(claimed, cores) == threads


def test_a_job_of_a_cluster_has_the_threads_that_its_profile_sets(real_cores):
    real_cores(2)  # the machine where Snakemake runs, without --cores
    assert pipeline.busy(8, None) == 8
    real_cores(64)  # the one of the job, which offers all its cores
    assert pipeline.busy(8, 64) == 8


def test_two_passes_share_two_cores_and_one_has_both(real_cores):
    real_cores(2)
    assert pipeline.workers(["a", "b"], gpus=0, cores=8) == 1
    assert pipeline.workers(["a", "b"], gpus=1, cores=8) == 2
    assert pipeline.workers(["a", "b"], gpus=2, cores=8) == 1
    assert pipeline.workers(["b"], gpus=0, cores=8) == 2
    assert pipeline.workers(["b"], gpus=2, cores=8) == 2


def test_a_pass_on_a_gpu_leaves_a_core_to_the_thread_that_feeds_it():
    assert pipeline.options("auto", 4, gpus=0, freeze_code=False) == "--device cpu --workers 4"
    assert pipeline.options("auto", 4, gpus=2, freeze_code=True).endswith(
        "--workers 3 --freeze-code"
    )
    assert pipeline.options("cuda", 1, gpus=2, freeze_code=False).endswith("--workers 1")
    assert "--device cpu " in pipeline.options("cuda", 1, gpus=0, freeze_code=False)


def test_libraries_start_no_threads_of_their_own_in_a_job():
    """Whatever Snakemake says before: the cores that a job claims may be more than there are."""
    script = pipeline.shell_prefix().format() + "env"
    before = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    done = subprocess.run(
        ["bash", "-c", script], env=before, capture_output=True, text=True, check=True
    )
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert {name: said[name] for name in pipeline.THREADS} == dict.fromkeys(pipeline.THREADS, "1")


def test_preparations_share_the_cores_too(real_cores, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    real_cores(8)
    assert pipeline.preparing_threads(["coco", "voc2012"], "data", 64) == 4
    assert pipeline.preparing_threads(["coco"], "data", 64) == 4, "more would wait for one another"
    assert pipeline.preparing_threads(["coco"], "data", 2) == 2
    four = ["coco", "voc2012", "ade2016", "pcontext"]
    assert pipeline.preparing_threads(four, "data", 64) == 2
    write(tmp_path / "data/prepared/coco/selfcheck.json", "{}")
    write(tmp_path / "data/prepared/voc2012/selfcheck.json", "{}")
    assert pipeline.preparing_threads(four, "data", 64) == 4


def test_a_preparation_has_the_threads_that_it_was_given(real_cores, monkeypatch, tmp_path):
    real_cores(8)
    seen = []
    monkeypatch.setattr(prepare, "prepare", lambda *_, **__: seen.append(cores()) or tmp_path)
    prepare.main(["shapes"])
    prepare.main(["shapes", "--threads", "1"])
    assert seen == [4, 1] and cores() == 4


def test_benchmarks_choose_the_passes_that_they_need():
    paper = plan.load("paper")
    chosen = pipeline.chosen_passes(paper, ["voc20"])
    assert chosen and all(name.startswith("voc2012.") for name in chosen)
    both = [
        pipeline.chosen_passes(paper, names) for names in (["voc20", "pc59"], ["pc59", "voc20"])
    ]
    assert both[0] == both[1] != chosen
    assert pipeline.chosen_passes(paper, None) == list(paper.passes)
    with pytest.raises(UserError, match="voc20"):
        pipeline.chosen_passes(paper, ["voc2O"])


@pytest.fixture
def made(monkeypatch, tmp_path, smoke):
    """The suite made, with files that hold nothing of use; returns a run and its pass file."""
    monkeypatch.chdir(tmp_path)
    first, _ = (make_pass("smoke", one) for one in smoke.passes.values())
    return pipeline.RUNS / next(iter(smoke.passes[first.stem].runs)), first


def asks(marker: str) -> bool:
    """Whether a marker file makes Snakemake run its job again."""
    assert Path(marker).is_file(), "an input that is not there is an error"
    return time.time() - os.path.getmtime(marker) < 3600


@pytest.mark.parametrize("name", finished.FILES)
def test_a_pass_is_made_again_where_a_file_of_a_run_is_lost_or_changed(made, smoke, name):
    folder, pass_file = made
    assert pipeline.stale_passes(smoke) == {}
    content = (folder / name).read_bytes()
    for spoil in (Path.unlink, lambda file: file.write_bytes(b""), lambda file: write(file, "x")):
        spoil(folder / name)
        stale = pipeline.stale_passes(smoke)
        assert list(stale) == [pass_file.stem] and folder.name in stale[pass_file.stem]
        each = {one: asks(markers.evaluation("smoke", one, stale)) for one in smoke.passes}
        assert [one for one, asked in each.items() if asked] == [pass_file.stem]
        assert pass_file.exists(), "to look deletes nothing"
    (folder / name).write_bytes(content)
    assert pipeline.stale_passes(smoke) == {}
    assert not asks(markers.evaluation("smoke", pass_file.stem, {})), "it is withdrawn"


def test_a_marker_that_asks_twice_has_another_content_each_time(made, smoke):
    _, pass_file = made
    stale = {pass_file.stem: "a run is lost"}
    first, second = (
        Path(markers.evaluation("smoke", pass_file.stem, stale)).read_text() for _ in range(2)
    )
    assert first != second and "a run is lost" in first and "a run is lost" in second


def test_a_pass_that_is_not_made_yet_needs_no_marker_that_asks(empty, smoke):
    stale = pipeline.stale_passes(smoke)
    assert list(stale) == list(smoke.passes)
    assert not any(asks(markers.evaluation("smoke", name, stale)) for name in stale)


def test_passes_of_other_code_are_to_be_made_unless_it_is_frozen(made, smoke):
    _, pass_file = made
    one = smoke.passes[pass_file.stem]
    assert pipeline.runs_to_predict(one, "data", frozen=False) == []
    make_pass("smoke", one, code="another")
    assert list(pipeline.stale_passes(smoke)) == [one.name]
    assert pipeline.stale_passes(smoke, frozen=True) == {}
    assert pipeline.runs_to_predict(one, "data", frozen=False) == list(one.runs)
    assert pipeline.runs_to_predict(one, "data", frozen=True) == []
    make_pass("smoke", one, scoring="another")
    assert list(pipeline.stale_passes(smoke)) == [one.name]
    assert pipeline.runs_to_predict(one, "data", frozen=False) == [], "no image is read for scores"


def test_metrics_with_a_provenance_that_was_made_to_fit_are_not_what_the_pass_wrote(made, smoke):
    folder, pass_file = made
    write(folder / "metrics.json", "another number")
    change_provenance(folder, files=finished.file_digests(folder))
    assert list(pipeline.stale_passes(smoke)) == [pass_file.stem]


@pytest.mark.parametrize("text", ['{"cut off', "{}", "[]", '{"runs": {}}'])
def test_a_pass_file_names_the_runs_of_its_pass(made, smoke, text):
    _, pass_file = made
    write(pass_file, text)
    assert list(pipeline.stale_passes(smoke)) == [pass_file.stem]


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("all", ["a", "b"]),
        ("--cores 8", ["a", "b"]),
        ("regenerate-paper-tables", []),
        ("results/passes/smoke/b.json -n", ["b"]),
        ("./results/passes/smoke/b.json", ["b"]),
        ("results/smoke/tables/table1_main.csv", ["a", "b"]),
        ("data/prepared/shapes/selfcheck.json", []),
        ("./data/raw/val2017.zip.json --cores 8", []),
        ("data/prepared/shapes/selfcheck.json all", ["a", "b"]),
    ],
)
def test_a_start_makes_what_its_command_line_names(smoke, words, made):
    stale = {"a": "it is missing", "b": "a run is lost"}
    assert pipeline.passes_to_make(smoke, stale, words.split()) == made


def test_passes_see_as_many_gpus_as_they_may_have(monkeypatch):
    monkeypatch.setattr("cliptrase.machine.gpu_uuids", lambda: ["GPU-1", "GPU-2", "GPU-3"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert pipeline.limit_gpus("auto", None) == "auto" and machine.usable_gpus("auto") == 2
    assert pipeline.limit_gpus("auto", 9) == "auto" and machine.usable_gpus("auto") == 2
    assert pipeline.limit_gpus("cuda:1", 1) == "cuda:1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,0", "the second is another if one is hidden"
    assert pipeline.limit_gpus("auto", 1) == "auto" and machine.usable_gpus("cuda") == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert pipeline.limit_gpus("cuda", 0) == "cpu"


def test_the_marker_of_code_changes_with_the_code_and_not_with_its_comments(empty):
    file = write("cliptrase/a.py", '"""What it is."""\nX = 1\n')
    marker = Path(markers._code("a", [file]))
    before = marker.read_bytes(), marker.stat().st_mtime_ns
    code._read.cache_clear()
    write(file, '"""What it is, in other words."""\nX = 1  # one\n')
    markers._code("a", [file])
    assert (marker.read_bytes(), marker.stat().st_mtime_ns) == before
    code._read.cache_clear()
    write(file, "X = 2")
    markers._code("a", [file])
    assert marker.read_bytes() != before[0]


def test_the_marker_of_code_notices_files_that_go_and_older_ones_that_come(empty):
    files = [write(f"cliptrase/{name}.py", "X = 1") for name in "ab"]
    marker = Path(markers._code("a", files))
    both = marker.read_bytes()
    markers._code("a", files[:1])
    assert marker.read_bytes() != both
    code._read.cache_clear()
    write(files[1], "X = 2")
    os.utime(files[1], (0, 0))
    markers._code("a", files)
    assert marker.read_bytes() != both


@pytest.mark.parametrize("name", ["plan/tables.py", "publish/tables/cells.py"])
def test_tables_are_of_the_code_that_plans_them_too(empty, monkeypatch, name):
    package = Path(shutil.copytree(markers.PACKAGE, "cliptrase"))
    monkeypatch.setattr(markers, "PACKAGE", package.resolve())
    before = Path(markers.publishing()).read_bytes()
    code._read.cache_clear()
    write(package / name, "EDITED = 1\n")
    assert Path(markers.publishing()).read_bytes() != before


def test_a_table_is_rendered_again_once_the_run_of_an_empty_cell_is_there(empty):
    write("results/smoke/tables/table1_main.csv", "row,value,run\nA,1.0,there\nB,,lost\nC,,\n")
    write(pipeline.RUNS / "there" / "metrics.json", "{}")
    assert not asks(markers.tables("smoke")), "an empty cell without a run is no reason"
    file = write(pipeline.RUNS / "lost" / "metrics.json", "{}")
    os.utime(file, (0, 0))
    table = Path("results/smoke/tables/table1_main.csv")
    os.utime(table, (time.time() - 60,) * 2)
    assert asks(markers.tables("smoke")), "an old run that was moved here"
    os.utime(table, (time.time() + 60,) * 2)
    assert not asks(markers.tables("smoke")), "it was there, and has no value to show"


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        (markers.tables, ["tables/main.csv", "tables/main.md", "tables/main.tex"]),
        (markers.figures, ["figures/main.svg", "figures/main.png"]),
        (markers.pictures, ["pictures/shapes.npz", "pictures/shapes_bg.npz"]),
        (markers.page, ["index.html", "another.html"]),
    ],
)
def test_what_was_edited_is_rendered_again(empty, asked, files):
    paths = [write(empty / "results/smoke" / file, "row,value,run\n") for file in files]
    remember(paths[0].parent, paths[:-1])
    remember(paths[0].parent, paths[-1:], keep=True)
    assert not asks(asked("smoke"))
    for content in ("row,value,run\nA,99.9,a\n", "", "\0"):
        for path in paths:
            before = path.read_text()
            write(path, content)
            assert asks(asked("smoke")) and path.name in Path(asked("smoke")).read_text()
            write(path, before)
            assert not asks(asked("smoke")), "it is withdrawn"
    paths[0].unlink()
    assert asks(asked("smoke")) == (asked is markers.pictures), "Snakemake sees the others itself"
    write(paths[1], "a figure that the suite has no more")
    remember(paths[0].parent, paths[2:])
    assert not asks(asked("smoke"))
    write(paths[0].with_name(".rendered.json"), "")
    assert asks(asked("smoke"))


@pytest.mark.parametrize("content", ["row,value\nA,1\n", "", "a\0b\n,\n"])
def test_a_table_that_is_none_of_ours_stops_no_start(empty, content):
    write("results/smoke/tables/mine.csv", content)
    assert not asks(markers.tables("smoke"))


@pytest.mark.parametrize(
    ("ledger", "asked"),
    [('{"failed": {"a": "no account"}}', True), ('{"failed": {}}', False), ("cut o", False)],
)
def test_what_wandb_did_not_take_is_published_again(empty, ledger, asked):
    assert not asks(markers.wandb("smoke"))
    write("results/smoke/wandb/ledger.json", ledger)
    assert asks(markers.wandb("smoke")) == asked
