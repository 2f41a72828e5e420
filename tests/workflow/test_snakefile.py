"""The workflow on a handful of scenes: what is planned, made, noticed, and left alone.

In copies of the working tree, so that a test may edit code, lose a run or break a pass.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cliptrase import plan
from cliptrase.pipeline import division, estimate
from cliptrase.pipeline.settings import read_settings
from cliptrase.publish import PAPER_FIGURES, chart_names

PLAN = plan.load("smoke")

pytestmark = pytest.mark.slow


def start(tree: Path, *arguments: str, suite: str = "smoke", **config: str) -> subprocess.Popen:
    """Start Snakemake in a tree, by the tree's own code, in a process group of its own."""
    pairs = [f"{key}={value}" for key, value in {"suite": suite, **config}.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "8", *arguments, "--config", *pairs],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def snakemake(tree: Path, *arguments: str, **config: str) -> subprocess.CompletedProcess:
    """Run Snakemake in a tree to its end."""
    with start(tree, *arguments, **config) as process:
        output, _ = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def planned_jobs(tree: Path, *arguments: str, **config: str) -> dict[str, int]:
    """Rule → number of jobs that a dry run lists, `all` left out."""
    done = snakemake(tree, *arguments, "--dry-run", "--quiet", "rules", **config)
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in jobs if rule not in ("all", "total")}


def run_folder(tree: Path, name: str) -> Path:
    return tree / "results" / "runs" / name


def bytes_of_runs(tree: Path) -> dict[str, bytes]:
    files = (tree / "results" / "runs").glob("*/metrics.json")
    return {file.parent.name: file.read_bytes() for file in files}


def times_of_runs(tree: Path) -> dict[str, int]:
    folders = (tree / "results" / "runs").iterdir()
    return {folder.name: folder.stat().st_mtime_ns for folder in folders}


def runs_of_a_pass() -> tuple[str, list[str]]:
    """The pass that has most runs of Table 2, and these."""
    rows = PLAN.tables["table2_ablation"].rows
    shown = {cell.run for row in rows for cell in row.cells if cell.run}
    name = max(PLAN.passes, key=lambda name: len(shown & {*PLAN.passes[name].runs}))
    return name, sorted(shown & {*PLAN.passes[name].runs})


@pytest.fixture(scope="module")
def tree(tmp_path_factory, copy_of_the_tree) -> Path:
    """A copy of the tree in which the whole suite has been made once."""
    folder = copy_of_the_tree(tmp_path_factory.mktemp("workflow") / "tree")
    made = snakemake(folder, "all")
    assert made.returncode == 0, made.stdout
    return folder


@pytest.fixture
def bare(tmp_path, copy_of_the_tree) -> Path:
    """A copy of the tree in which nothing has been made."""
    return copy_of_the_tree(tmp_path / "tree")


def test_a_dry_run_lists_every_step(bare):
    assert planned_jobs(bare, "all") == {
        "prepare_dataset": 1,
        "evaluate_pass": len(PLAN.passes),
        "render_tables": 1,
        "draw_figures": 1,
        "keep_pictures": 1,
        "write_page": 1,
        "publish_runs": 1,
    }
    assert [file.name for file in (bare / "results").iterdir()] == ["markers"]


def test_figure_8_is_a_job_for_each_arm_and_seed_beside_all(bare):
    jobs = {"average_san_regions": 1, "train_san": 9, "draw_figure_8": 1, "fig8": 1}
    assert planned_jobs(bare, "fig8") == jobs | {"store_san_tokens": 1}
    fetched = {"fetch_archive": 3, "prepare_dataset": 2, "fetch_weights": 1}
    assert planned_jobs(bare, "fig8", san="coco") == jobs | fetched


def test_a_fault_in_the_experiment_costs_figure_8_alone(bare):
    assert "evaluate_pass" in planned_jobs(bare, "all", san="shaped")
    refused = snakemake(bare, "fig8", "--dry-run", san="shaped")
    assert refused.returncode == 1 and "Traceback" not in refused.stdout
    assert "error: unknown san 'shaped'; did you mean 'shapes'" in refused.stdout


def test_the_paper_is_planned_without_network_and_without_data(bare):
    paper = plan.load("paper")
    gated = [name for name, one in paper.passes.items() if one.dataset in ("ade2021", "cityscapes")]
    assert planned_jobs(bare, "all", suite="paper") == {
        "fetch_archive": 6,
        "fetch_weights": 7,  # of CLIP, of two SAM and four DINO
        "prepare_dataset": 4,
        "evaluate_pass": len(paper.passes) - len(gated),
        "render_tables": 1,
        "draw_figures": 1,
        "keep_pictures": 1,
        "write_page": 1,
        "publish_runs": 1,
    }
    assert not (bare / "data").exists() and not (bare / "results/passes").exists()


def test_names_of_any_signs_are_single_words_for_the_shell(bare):
    name, conf = "a & b; (c) $(touch there) 'd' e", bare / "conf"
    for folder, kind in (("i", "jpg"), ("l", "png")):
        (bare / folder).mkdir()
        Image.new("L", (32, 32)).save(bare / folder / f"1.{kind}")
    (bare / "words.txt").write_text("sky\ngrass\n")
    benchmark = yaml.safe_load((conf / "benchmark/folder.yaml").read_text())
    files = {"images": "i", "labels": "l", "classes": "words.txt"}
    suite = yaml.safe_load((conf / "suite/smoke.yaml").read_text())
    changed = {"roles": {"main": [name]}, "tables": ["table1_main"], "data": name}
    for file, content in (
        (f"benchmark/{name}.yaml", benchmark | files | {"name": name}),
        (f"suite/{name}.yaml", suite | changed),
    ):
        (conf / file).write_text(yaml.safe_dump(content))
    done = snakemake(bare, "all", "--dry-run", "--printshellcmds", suite=name)
    assert done.returncode == 0 and not (bare / "there").exists(), done.stdout
    commands = re.findall("^Shell command: (python.*)", done.stdout, re.MULTILINE)
    assert len(commands) == 5
    for words in map(shlex.split, commands):
        assert words[:2] == ["python", "-m"] and name in words
        assert [word for word in words if name in word and words[words.index(word) - 1] == ">"]
        named = f"folder-{name}.shapes_clip.336.crop"
        assert named in words or "cliptrase.evaluate.planned" not in words


def test_what_is_made_is_what_the_plan_names(tree):
    for name, one in PLAN.passes.items():
        said = json.loads((tree / "results/passes/smoke" / f"{name}.json").read_text())
        assert set(said) == set(one.runs)
        assert all((run_folder(tree, run) / "metrics.json").is_file() for run in said)
    for table in PLAN.tables:
        for kind in ("csv", "md", "tex"):
            assert (tree / "results/smoke/tables" / f"{table}.{kind}").stat().st_size > 0
    for figure in ("label_maps", "correlation", *chart_names(PLAN), *PAPER_FIGURES):
        for kind in ("svg", "png"):
            assert (tree / "results/smoke/figures" / f"{figure}.{kind}").stat().st_size > 5000
    assert not (tree / "regenerate-paper-tables").exists()


def test_label_maps_are_due_where_they_are_asked_for(tree):
    done = snakemake(tree, "all", "--dry-run", "--printshellcmds", save_maps="1")
    commands = re.findall(r"cliptrase.evaluate.planned .*", done.stdout)
    assert len(commands) == len(PLAN.passes), done.stdout
    assert all(" --save-maps 1 " in command for command in commands)


def test_the_device_and_the_number_of_cores_rerun_nothing(tree):
    """Nor do label maps that another start asked for."""
    assert planned_jobs(tree, "--cores", "1", "all", device="cpu") == {}


def test_what_is_lost_or_edited_is_made_again_and_nothing_else(tree):
    names = ("figures/main_results.svg", "index.html")  # an edited table reruns the page anyway
    shown = {name: (tree / "results/smoke" / name).read_bytes() for name in names}
    for name, content in shown.items():
        (tree / "results/smoke" / name).write_bytes(content.replace(b"1", b"2"))
    steps = ("draw_figures", "write_page", "publish_runs")
    assert planned_jobs(tree, "all") == dict.fromkeys(steps, 1)

    its_pass, (lost, edited, other, *_) = runs_of_a_pass()
    numbers, times = bytes_of_runs(tree), times_of_runs(tree)
    published = set((tree / "results/smoke/wandb").glob("offline-run-*"))
    assert published
    target = tree / "results/passes/smoke" / f"{its_pass}.json"
    said, arrays = target.read_bytes(), (run_folder(tree, other) / "per_image.npz").read_bytes()
    shutil.rmtree(run_folder(tree, lost))
    metrics = run_folder(tree, edited) / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"mIoU": ', '"mIoU": 9'), encoding="utf-8")
    (run_folder(tree, other) / "per_image.npz").unlink()
    assert planned_jobs(tree, "all")["evaluate_pass"] == 1
    assert planned_jobs(tree, "regenerate-paper-tables") == {"regenerate_paper_tables": 1}
    assert snakemake(tree, "--lint").returncode == 0
    assert target.read_bytes() == said, "only a run of the pass replaces its file"

    for name in PLAN.passes.keys() - {its_pass}:
        (target.parent / f"{name}.json").unlink()
    made = snakemake(tree, "all")
    assert made.returncode == 0, made.stdout
    assert f"evaluate {its_pass}" in made.stdout
    assert f"passes without a result: {len(PLAN.passes)} of {len(PLAN.passes)}" in made.stdout
    assert bytes_of_runs(tree) == numbers and target.read_bytes() == said
    assert (run_folder(tree, other) / "per_image.npz").read_bytes() == arrays
    changed = {name for name, time in times_of_runs(tree).items() if time != times[name]}
    assert changed == {lost, edited, other}, "a pass file alone is made again without a run"
    *drawn, page = names  # the page says what the passes took, which is another time now
    assert all((tree / "results/smoke" / name).read_bytes() == shown[name] for name in drawn)
    assert (tree / "results/smoke" / page).read_bytes() != shown[page].replace(b"1", b"2")
    again = set((tree / "results/smoke/wandb").glob("offline-run-*"))
    assert again == published, "the ledger outlives a rerun: nothing is published twice"
    assert "Nothing to be done" in snakemake(tree, "all").stdout


@pytest.fixture
def edit_code(tree) -> Iterator[Callable[[str, Callable[[str], str]], None]]:
    """edit_code(name, edit): a file of the tree's code has another content until the test ends."""
    before: dict[Path, str] = {}

    def edited(name: str, edit: Callable[[str], str]) -> None:
        file = tree / "src" / "cliptrase" / name
        before[file] = file.read_text(encoding="utf-8")
        file.write_text(edit(before[file]), encoding="utf-8")

    yield edited
    for file, code in before.items():
        file.write_text(code, encoding="utf-8")


CODE = {  # file → the first step that it is of
    "segment/vote.py": "evaluate_pass",
    "publish/__init__.py": "render_tables",
    "shapes/scenes.py": "prepare_dataset",
}


@pytest.mark.parametrize("name", CODE)
def test_edited_code_reruns_the_step_that_it_is_of(tree, edit_code, name):
    edit_code(name, lambda code: code + "\nEDITED = 1\n")
    jobs = planned_jobs(tree, "all")
    assert CODE[name] in jobs and ("prepare_dataset" in jobs) == (name == "shapes/scenes.py")
    predicted = 0 if name == "publish/__init__.py" else len(PLAN.passes)
    assert jobs.get("evaluate_pass", 0) == predicted


def test_edited_code_reruns_nothing_where_it_is_frozen(tree, edit_code):
    for name in CODE:
        edit_code(name, lambda code: code + "\nEDITED = 1\n")
    assert planned_jobs(tree, "all", freeze_code="true") == {}


def test_an_edited_docstring_or_comment_reruns_nothing(tree, edit_code):
    for name in CODE:
        edit_code(name, lambda code: code.replace('"""', '"""In other words: ', 1) + "\n# edited\n")
    assert planned_jobs(tree, "all") == {}


def test_an_edited_setting_reruns_what_it_concerns(tree):
    file = tree / "conf" / "table" / "table2_ablation.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"(?m)^title: .*$", "title: Another title", text), encoding="utf-8")
    try:
        jobs = planned_jobs(tree, "all")
        assert "render_tables" in jobs and "evaluate_pass" not in jobs
    finally:
        file.write_text(text, encoding="utf-8")


def test_archives_of_a_suite_s_own_folder_are_never_those_of_the_paper(bare):
    done = snakemake(bare, "all", suite="miniature")
    assert done.returncode != 0 and "run `make miniature` first" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (bare / "data").exists() and not any((bare / ".snakemake").glob("locks/*"))


def test_a_pass_in_shards_has_the_same_bytes_and_is_finished(tree, bare):
    name = "shapes.shapes_clip.224.crop"
    (bare / "data").symlink_to(tree / "data")
    target, shards = f"results/passes/smoke/{name}.json", {"shards": "2"}
    done = snakemake(bare, target, **shards)
    assert done.returncode == 0, done.stdout
    assert "passes without a result: 1 of 2" in done.stdout and "part 2 of 2" in done.stdout
    made, before = bytes_of_runs(bare), bytes_of_runs(tree)
    assert made and made == {run: before[run] for run in made}
    assert not planned_jobs(bare, target, **shards)
    assert [each.name for each in (bare / target).parent.iterdir()] == [f"{name}.json"]


def test_a_pass_is_cut_by_hours_as_it_was_when_it_began(bare, monkeypatch):
    names = list(PLAN.passes)
    monkeypatch.chdir(bare)
    timing = estimate.Timing(image=60.0, once=10.0)
    speed = estimate.Speed(device="cpu", start=5.0, memory=1e9, passes=dict.fromkeys(names, timing))
    monkeypatch.setattr(estimate, "_ask", lambda question: speed)
    cut = division.shards(PLAN, names, read_settings({"hours": 0.05}), "auto")
    assert set(cut.values()) == {2}
    (bare / "results/speed.json").unlink()
    done = snakemake(bare, "all", "--dry-run", "--printshellcmds", hours="0.05")
    assert done.returncode == 0 and "timing this machine" not in done.stdout, done.stdout
    commands = re.findall(r"cliptrase.evaluate.planned smoke (\S+) (.*)", done.stdout)
    counts = [name for name, options in commands if re.match(r"--shard [12]/2 ", options)]
    assert sorted(counts) == sorted(names * 2)
    added_up = [name for name, options in commands if "--shards 2 " in options]
    assert sorted(added_up) == sorted(names)


def test_tables_are_rendered_every_time_and_no_run_is_started(tree, tmp_path):
    _, (run, *_) = runs_of_a_pass()
    file = tree / "results/smoke/tables/table2_ablation"
    whole = file.with_suffix(".csv").read_bytes()
    (tree / "regenerate-paper-tables").touch()  # a mark that a broken start left stops nothing
    run_folder(tree, run).rename(tmp_path / "lost")
    try:
        for spelling in ("regenerate-paper-tables", "regenerate_paper_tables"):
            done = snakemake(tree, spelling)
            assert done.returncode == 0, done.stdout
            assert "missing" in done.stdout and "without a result: 0 of" in done.stdout
            assert not run_folder(tree, run).exists()
            assert not (tree / "regenerate-paper-tables").exists()
            lines = list(csv.DictReader(file.with_suffix(".csv").open(encoding="utf-8")))
            values = {line["value"] for line in lines if line["run"] == run}
            assert values == {""}
            assert any(line["value"] for line in lines), "the other cells are still there"
            assert "not run yet" in file.with_suffix(".md").read_text(encoding="utf-8")
    finally:
        (tmp_path / "lost").rename(run_folder(tree, run))
    # `all` must notice though every pass is older than the tables.
    assert snakemake(tree, "all").returncode == 0
    assert file.with_suffix(".csv").read_bytes() == whole


def test_tables_without_a_run_end_in_one_message(bare):
    done = snakemake(bare, "regenerate_paper_tables")  # the other spelling of it
    *pages, last = done.stdout.splitlines()
    assert done.returncode == 1 and last.startswith("error: results/runs: no run of suite smoke")
    assert not any(re.search("Error|Exception|Traceback|exit status", line) for line in pages)
    assert not (bare / "results/smoke").exists() and not (bare / ".snakemake/locks").exists()


def test_a_failed_pass_leaves_the_tables_with_its_reason_and_an_exit_code(tree, bare):
    (bare / "data").symlink_to(tree / "data")
    file = bare / "conf/suite/smoke.yaml"
    grid = {"tables": ["fig7_sensitivity"], "pictures": None}  # whose figures need no model
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | grid), encoding="utf-8")
    runs = {cell.run for row in PLAN.tables["fig7_sensitivity"].rows for cell in row.cells}
    blocked, *others = sorted(filter(None, runs))
    for run in others:
        shutil.copytree(run_folder(tree, run), run_folder(bare, run))
    run_folder(bare, blocked).write_text("in the way")
    done = snakemake(bare, "all")
    assert done.returncode != 0
    assert "error: " in done.stdout and "Traceback" not in done.stdout
    text = (bare / "results/smoke/tables/fig7_sensitivity.md").read_text(encoding="utf-8")
    assert f"{blocked}: is a file; delete it" in text
    assert (bare / "results/smoke/index.html").is_file()


def test_killed_in_the_middle_of_a_pass_the_rerun_gives_the_same_numbers(tree, bare):
    (bare / "data").symlink_to(tree / "data")
    name = max(PLAN.passes, key=lambda name: len(PLAN.passes[name].runs))
    target = f"results/passes/smoke/{name}.json"
    log = bare / "results/logs/smoke/evaluate_pass" / f"{name}.log"
    with start(bare, target) as process:
        patience = time.monotonic() + 120
        while not (log.exists() and " to make" in log.read_text()):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (bare / target).exists()

    assert any((bare / ".snakemake/locks").iterdir())
    done = snakemake(bare, target)
    assert done.returncode == 0 and "removed the lock" in done.stdout, done.stdout
    assert (bare / target).read_bytes() == (tree / target).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_passes_and_nothing_is_published(tree, bare, number):
    (bare / "data").symlink_to(tree / "data")
    logs = bare / "results/logs/smoke/evaluate_pass"
    with start(bare, "all") as process:
        patience = time.monotonic() + 120
        while not any("runs to make" in log.read_text() for log in logs.glob("*")):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.05)
        sent = time.monotonic()
        os.kill(process.pid, number)  # to it alone, as a scheduler of a cluster sends it
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number and time.monotonic() - sent < 10
    assert output.splitlines()[-1].startswith("interrupted: "), output
    assert not (bare / "results/smoke").exists() and not any((bare / ".snakemake").glob("locks/*"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"suite": "smoky"}, "did you mean 'smoke'"),
        ({"benchmarks": "[shapes_gb]"}, "did you mean 'shapes_bg'"),
        ({"tracking": "offline; touch there"}, "did you mean 'offline'"),
    ],
)
def test_a_wrong_setting_ends_in_one_message(bare, config, message):
    done = snakemake(bare, "--dry-run", "all", **config)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("error: "))
    assert message in line and "Traceback" not in done.stdout
    assert not (bare / "there").exists()
