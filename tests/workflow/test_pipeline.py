"""What the Snakefile asks: files of a step, shares of the cores, pass files that are false."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cliptrase import pipeline, plan
from cliptrase.data.fetch.sources import read_sources
from cliptrase.data.make import prepare, recipes
from cliptrase.data.read.ordered import cores
from cliptrase.errors import UserError
from cliptrase.files import sha256_file
from cliptrase.pipeline.estimate import todo
from cliptrase.resources import share
from cliptrase.runs import seal
from cliptrase.runs.provenance import code_digest


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


def test_two_passes_share_two_cores_and_one_has_both(real_cores, smoke):
    real_cores(2)
    first, second = smoke.passes
    both = [first, second]
    assert pipeline.workers(both, both, gpus=0, cores=8) == 1
    assert pipeline.workers(both, both, gpus=1, cores=8) == 2
    assert pipeline.workers(both, both, gpus=2, cores=8) == 1
    assert pipeline.workers(both, [second], gpus=0, cores=8) == 2
    assert pipeline.workers(both, [second], gpus=2, cores=8) == 2
    assert pipeline.workers(both, [], gpus=0, cores=8) == 1


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


def test_a_pass_reads_its_own_conf_words_and_weights(monkeypatch, smoke):
    monkeypatch.chdir(share())
    files = {Path(file) for file in pipeline.pass_files(next(iter(smoke.passes.values())))}
    assert all(file.is_file() for file in files)
    assert Path("conf/method/cliptrase.yaml") in files
    assert Path("assets/shapes_clip/open_clip_model.safetensors") in files
    assert not any("ade" in file.name or file.name == "vit_b16.yaml" for file in files)


@pytest.mark.parametrize("dataset", ["shapes", *read_sources("nowhere").datasets])
def test_a_dataset_is_prepared_again_for_the_code_of_its_digest_alone(dataset):
    files = {Path(file).resolve() for file in pipeline.preparing_code(dataset, "data")}
    assert files == {file.resolve() for file in recipes.recipe(dataset).code}


def test_benchmarks_choose_the_passes_that_they_need():
    paper = plan.load("paper")
    chosen = pipeline.chosen_passes(paper, ["voc20"])
    assert chosen and all(name.startswith("voc2012.") for name in chosen)
    assert pipeline.chosen_passes(paper, "voc20,pc59") == pipeline.chosen_passes(
        paper, ["pc59", "voc20"]
    )
    assert pipeline.chosen_passes(paper, None) == list(paper.passes)
    with pytest.raises(UserError, match="voc20"):
        pipeline.chosen_passes(paper, ["voc2O"])


@pytest.fixture
def made(monkeypatch, tmp_path, smoke):
    """The suite made, with files that hold nothing of use; returns a run and its pass file."""
    monkeypatch.chdir(tmp_path)
    for name, one in smoke.passes.items():
        digests = {}
        for run in one.runs:
            for file in seal.SEALED:
                write(pipeline.RUNS / run / file, f"{file} of {run}")
            written = json.dumps({"files": seal.digests(pipeline.RUNS / run)})
            write(pipeline.RUNS / run / seal.PROVENANCE, written)
            digests[run] = sha256_file(pipeline.RUNS / run / "metrics.json")
        write(pipeline.pass_file("smoke", name), json.dumps(digests))
    first = next(iter(smoke.passes))
    return pipeline.RUNS / next(iter(smoke.passes[first].runs)), pipeline.pass_file("smoke", first)


@pytest.mark.parametrize("name", seal.FILES)
def test_a_pass_is_made_again_where_a_file_of_a_run_is_lost_or_changed(made, smoke, name):
    folder, pass_file = made
    assert pipeline.unmade(smoke) == []
    content = (folder / name).read_bytes()
    for spoil in (Path.unlink, lambda file: file.write_bytes(b""), lambda file: write(file, "x")):
        spoil(folder / name)
        left = pipeline.unmade(smoke)
        assert left == [pass_file.stem]
        dag = SimpleNamespace(forcefiles=set())
        for each in [*smoke.passes, "not made yet"]:
            assert pipeline.force_false_pass(dag, "smoke", each, [*left, "not made yet"]) == []
        assert dag.forcefiles == {str(pass_file)}
        assert pass_file.exists(), "to look deletes nothing"
    (folder / name).write_bytes(content)
    assert pipeline.unmade(smoke) == []


def test_passes_of_other_code_are_to_be_made_unless_it_is_frozen(made, smoke):
    folder, pass_file = made
    assert todo.unmade(smoke, [], frozen=True) == []
    assert todo.unmade(smoke, []) == list(smoke.passes), "no run says of which code it is"
    for name in smoke.runs:
        provenance = pipeline.RUNS / name / seal.PROVENANCE
        said = json.loads(provenance.read_text()) | {"code": code_digest()}
        provenance.write_text(json.dumps(said))
    assert todo.unmade(smoke, []) == []
    assert todo.unmade(smoke, [pass_file.stem], frozen=True) == [pass_file.stem]
    one = smoke.passes[pass_file.stem]
    assert todo.runs_left(one) == []
    said = json.loads((folder / seal.PROVENANCE).read_text()) | {"code": "another"}
    write(folder / seal.PROVENANCE, json.dumps(said))
    assert todo.unmade(smoke, []) == [one.name] and todo.unmade(smoke, [], frozen=True) == []
    assert todo.runs_left(one) == [one.runs[folder.name]] and not todo.runs_left(one, frozen=True)


def test_passes_that_snakemake_is_about_to_make():
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=SimpleNamespace(name=name))
        for rule, name in (("evaluate_pass", "a"), ("prepare_dataset", "b"), ("evaluate_pass", "c"))
    ]
    dag = SimpleNamespace(needrun_jobs=lambda: iter(jobs))
    assert pipeline.passes_to_make(dag) == ["a", "c"]


def test_metrics_with_a_provenance_that_was_made_to_fit_are_not_what_the_pass_wrote(made, smoke):
    folder, pass_file = made
    write(folder / "metrics.json", "another number")
    write(folder / seal.PROVENANCE, json.dumps({"files": seal.digests(folder)}))
    assert pipeline.unmade(smoke) == [pass_file.stem]


@pytest.mark.parametrize("text", ['{"cut off', "{}", "[]", '{"runs": {}}'])
def test_a_pass_file_names_the_runs_of_its_pass(made, smoke, text):
    _, pass_file = made
    write(pass_file, text)
    assert pipeline.unmade(smoke) == [pass_file.stem]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Dag:
    """Snakemake's, as far as it is asked."""

    def __init__(self) -> None:
        self.forcefiles: set[str] = set()


def test_a_table_is_rendered_again_once_the_run_of_an_empty_cell_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    table = Path("results/smoke/tables/table1_main.csv")
    write(table, "row,value,run\nCLIP,1.0,there\nSCLIP,,lost\nGroupViT,,\n")
    write(pipeline.RUNS / "there" / "metrics.json", "{}")
    dag = Dag()
    assert pipeline.force_stale_tables(dag, "smoke") == []
    assert not dag.forcefiles, "an empty cell without a run is no reason"
    write(pipeline.RUNS / "lost" / "metrics.json", "{}")
    pipeline.force_stale_tables(dag, "smoke")
    assert dag.forcefiles == {str(table)}


@pytest.mark.parametrize(
    ("ledger", "forced"),
    [('{"failed": {"a": "no account"}}', True), ('{"failed": {}}', False), ("cut o", False)],
)
def test_what_wandb_did_not_take_is_published_again(monkeypatch, tmp_path, ledger, forced):
    monkeypatch.chdir(tmp_path)
    dag = Dag()
    pipeline.force_failed_publishing(dag, "smoke")
    assert not dag.forcefiles
    file = Path("results/smoke/wandb/ledger.json")
    write(file, ledger)
    pipeline.force_failed_publishing(dag, "smoke")
    assert dag.forcefiles == ({str(file)} if forced else set())


def test_what_a_failed_start_still_makes_costs_no_other_step():
    said = pipeline.what_there_is("smoke", "disabled").replace("python", "step")
    fake = 'step() { echo "$@"; false; }; set -euo pipefail; '
    done = subprocess.run(["bash", "-c", fake + said], capture_output=True, text=True)
    assert done.returncode == 0
    assert [line.split()[2:] for line in done.stderr.splitlines()] == [
        ["tables", "smoke"],
        ["figures", "smoke"],
        ["wandb", "smoke", "tracking.mode=disabled"],
    ]
