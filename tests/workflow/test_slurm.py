"""On a true SLURM of one machine: profiles/slurm makes the bytes of a local start although SLURM
kills a job, and each pass of a sweep is a job.

`make cluster` runs it; it takes minutes, and needs Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.few_scenes import write_scenes
from tests.workflow.one_machine import jobs, missing, slurm

pytestmark = pytest.mark.cluster
PASS = "shapes.shapes_clip.336.crop"
PARTS = {  # a suite of one pass
    "title": "Parts",
    "model": "shapes_clip",
    "protocol": "crop",
    "published": False,
    "roles": {"main": ["shapes"]},
    "tables": ["parts"],
    "overrides": ["limit=4"],
}
PARTS_TABLE = {
    "title": "Parts",
    "kind": "metrics",
    "role": "main",
    "metrics": ["mIoU"],
    "image_size": 224,
    "groups": [{"name": "both", "rows": [{"row": "CLIPtrase", "run": ["method=cliptrase"]}]}],
}
# As its machine has neither accounts nor a database of finished jobs; and a look each few seconds
ON_SLURM = ("--profile", "profiles/slurm", "--slurm-no-account", "--slurm-status-command=squeue",
            "--slurm-init-seconds-before-status-checks=1")  # fmt: skip
LOCAL = os.environ | {"OMP_NUM_THREADS": "1"}
# Of a run, and of what is made of runs: what tells where, when and how long differs
DIFFERS = {"provenance.json", "index.html", ".rendered.json", "ledger.json"}


@pytest.fixture(scope="module")
def cluster(request) -> Iterator[dict[str, str]]:
    """The environment of a SLURM that has started."""
    if request.config.option.markexpr != "cluster":
        pytest.skip("`make cluster` runs it: it needs SLURM, and minutes")
    assert not missing(), f"{missing()} not installed: apt-get install slurm-wlm munge"
    with slurm() as environment:
        yield environment


@pytest.fixture(scope="module")
def tree(copy_of_the_tree, tmp_path_factory) -> Path:
    """The working tree, with passes that save their counts at every image, and suite `parts`."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree") / "tree")
    code = tree / "src/cliptrase/evaluate/passes.py"
    text = code.read_text(encoding="utf-8")
    assert "\nSAVE_EVERY = 256" in text
    code.write_text(text.replace("\nSAVE_EVERY = 256", "\nSAVE_EVERY = 1"), encoding="utf-8")
    (tree / "conf/suite/parts.yaml").write_text(yaml.safe_dump(PARTS), encoding="utf-8")
    (tree / "conf/table/parts.yaml").write_text(yaml.safe_dump(PARTS_TABLE), encoding="utf-8")
    return tree


def start(
    tree: Path, folder: Path, environment: dict[str, str], config: str, *words: str
) -> subprocess.Popen:
    """Start a suite in a folder; what Snakemake says goes to a file beside it."""
    folder.mkdir(exist_ok=True)
    environment = environment | {"PYTHONPATH": str(tree / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "snakemake", "all", "--config", *config.split()]
    command += ["--directory", str(folder), *words]
    with open(folder.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log)


def until(ready: Callable[[], object], process: subprocess.Popen, log: Path) -> object:
    """What `ready` returns once it is true."""
    patience = time.monotonic() + 300
    while not (said := ready()):
        assert process.poll() is None and time.monotonic() < patience, log.read_text()
        time.sleep(0.1)
    return said


def made(folder: Path) -> dict[str, bytes]:
    """What a suite leaves: runs, pass files, tables, figures and pictures."""
    results = folder / "results"
    kinds = ("runs", "passes", "*/tables", "*/figures", "*/pictures")
    files = (file for kind in kinds for file in results.glob(f"{kind}/**/*") if file.is_file())
    return {
        str(file.relative_to(results)): file.read_bytes()
        for file in files
        if file.name not in DIFFERS
    }


def slow_to_answer(cluster: dict[str, str], folder: Path) -> dict[str, str]:
    """A SLURM in which a job has begun long before sbatch says its number."""
    real = shutil.which("sbatch", path=cluster["PATH"])
    (folder / "sbatch").write_text(f'#!/bin/sh\n{real} "$@"\nsleep 60\n')
    (folder / "sbatch").chmod(0o755)
    return cluster | {"PATH": f"{folder}:{cluster['PATH']}"}


def test_a_sweep_is_a_job_for_each_pass(cluster, tmp_path):
    data = write_scenes(tmp_path / "data", range(3))
    launcher = ["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=2"]
    sweep = ["benchmark=shapes", f"data={data}", "image_size=112,224", "method=clip,sclip"]
    command = [sys.executable, "-m", "cliptrase.evaluate", *launcher, *sweep, "device=cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 passes, each a job of submitit_slurm; logs: results/logs/sweeps\n" in done.stderr
    assert done.stdout.count("rule cliptrase") == 4 and "wrote results/sweeps/" in done.stdout
    logs = [file.read_text() for file in tmp_path.glob("results/logs/sweeps/*/*_log.err")]
    assert len(logs) == 2 and all("2 runs to make, 0 already there" in log for log in logs)


def test_a_suite_has_the_bytes_of_a_local_start_though_slurm_kills_a_job(cluster, tree, tmp_path):
    there, here = tmp_path / "slurm", tmp_path / "local"
    log = there.with_suffix(".log")

    # Ctrl-C takes the jobs out of the queue, also one that Snakemake has not heard of.
    process = start(tree, there, slow_to_answer(cluster, tmp_path), "suite=smoke", *ON_SLURM)
    until(lambda: jobs(cluster, "running"), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=400) == 130
    assert not jobs(cluster, "pending,running"), "they would run on"

    # A pass that SLURM kills is submitted again, and goes on from the image that it had saved.
    local = start(tree, here, LOCAL, "suite=smoke", "--cores", "1")
    process = start(tree, there, cluster, "suite=smoke", *ON_SLURM)
    partial = there / f"results/passes/smoke/.{PASS}.partial.npz"
    until(partial.exists, process, log)
    (killed,) = (job for job, about in jobs(cluster, "running").items() if PASS in about)
    subprocess.run(["scancel", killed], env=cluster, check=True)
    assert process.wait(timeout=600) == 0, log.read_text()
    said = log.read_text()
    assert f"SLURM-job '{killed}' failed, SLURM status is: 'CANCELLED'" in said
    assert len(re.findall(f"Job .*{PASS}/{killed}.log", said)) == 1

    # The logs are where the messages say: of the step, and what SLURM said of the job.
    rule_log, slurm_log = re.search(r"\n +log: (\S+), (\S+) \(check", said).groups()
    assert f"its log is {rule_log}\n" in said
    assert re.search(r"^going on from image [1-3]$", (there / rule_log).read_text(), re.MULTILINE)
    assert "CANCELLED" in Path(slurm_log).read_text()
    assert Path(slurm_log).is_relative_to(there / "results/logs/slurm")

    assert local.wait(timeout=600) == 0, here.with_suffix(".log").read_text()
    ours, theirs = made(here), made(there)
    assert len([name for name in ours if name.endswith("confusion.npz")]) > 100
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_pass_in_shards_has_the_bytes_of_one_that_is_not_cut(cluster, tree, tmp_path):
    there, here = tmp_path / "slurm", tmp_path / "local"
    local = start(tree, here, LOCAL, "suite=parts", "--cores", "1")
    log = there.with_suffix(".log")
    process = start(tree, there, cluster, "suite=parts shards=2", *ON_SLURM)
    until(lambda: len(jobs(cluster, "running")) == 2, process, log)  # each shard a job
    killed = min(jobs(cluster, "running"))
    subprocess.run(["scancel", killed], env=cluster, check=True)
    assert process.wait(timeout=600) == 0, log.read_text()
    assert f"SLURM-job '{killed}' failed" in log.read_text()
    assert local.wait(timeout=600) == 0, here.with_suffix(".log").read_text()
    assert "metrics.json" in {Path(name).name for name in made(here)}
    assert made(here) == made(there)
