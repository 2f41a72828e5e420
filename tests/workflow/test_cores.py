"""Whatever Snakemake starts at once has no more busy threads than there are cores, nor more GPUs.

Of the jobs and limits that its own scheduler has (`planned_jobs.py`), not of a formula: the worst
choice among all jobs of a suite, also of those that never run at the same time.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.workflow.made_runs import make_pass

from cliptrase.plan import load

ROOT = Path(__file__).resolve().parents[2]
REAL, CORES = (1, 2, 3, 16), (1, 2, 64)
WAITING = {"fetch_archive", "fetch_weights"}  # they wait for the network, three at most
WORKERS = re.compile(r"--workers (\d+)")
Case = dict[str, Any]

pytestmark = pytest.mark.slow


def case(real: int, cores: int, suite: str, gpus: int = 0, *arguments: str) -> Case:
    return {"real": real, "cores": cores, "suite": suite, "gpus": gpus, "arguments": arguments}


def plans(cases: list[Case], folder: Path) -> list[tuple[Case, dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("planned_jobs.py")), str(folder)],
        cwd=ROOT, input=json.dumps(cases), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(zip(cases, json.loads(done.stdout), strict=True))


def busy(job: dict[str, Any], a_core_each: bool = False) -> int:
    """The threads of a job that are never idle, by its command line.

    On a GPU there is one more, that feeds it; where there is but a core for each, the two of a pass
    share that.
    """
    if job["rule"] in WAITING:
        return 0
    said = re.search(r"--(?:workers|threads) (\d+)", job["command"])
    assert bool(said) == (job["rule"] in ("evaluate_pass", "prepare_dataset"))
    threads = int(said[1]) if said else 1
    return threads + (job["claims"].get("gpu", 0) > 0 and not a_core_each)


def most(jobs: list[dict[str, Any]], limits: dict[str, int], worth: Callable) -> int:
    """The largest sum of worth(job) among jobs that the limits let run at once."""
    names = [name for name in limits if not name.startswith("_") or name == "_cores"]
    best = {tuple(limits[name] for name in names): 0}
    for job in jobs:
        needs = [job["claims"].get(name, 0) for name in names]
        for left, value in list(best.items()):
            after = tuple(have - need for have, need in zip(left, needs, strict=True))
            if min(after) >= 0:
                best[after] = max(best.get(after, 0), value + worth(job))
    return max(best.values())


@pytest.mark.parametrize("suite", ["shapes", "paper"])
def test_cores_are_never_oversubscribed(suite, tmp_path):
    cases = [case(real, cores, suite) for real, cores in itertools.product(REAL, CORES)]
    rules = Counter()
    for one, plan in plans(cases, tmp_path):
        jobs, limits = plan["jobs"], plan["limits"]
        rules.update({job["rule"] for job in jobs})
        usable = min(one["real"], one["cores"])
        assert limits["_cores"] == one["cores"] and limits["download"] == 3
        assert all(job["claims"]["_cores"] <= one["cores"] for job in jobs), "it would never start"
        found = most(jobs, limits, busy)
        assert found <= usable, one
        passes = [job for job in jobs if job["rule"] == "evaluate_pass"]
        assert most(passes, limits, busy) > usable / 2, "cores lie idle"
        assert most(jobs, limits, lambda job: job["rule"] in WAITING) <= 3
    expected = {"prepare_dataset", "evaluate_pass", "render_tables", "draw_figures", "publish_runs"}
    expected |= {"keep_pictures", "write_page"}
    assert set(rules) == expected | (WAITING if suite == "paper" else set())
    assert set(rules.values()) == {len(cases)}


def test_the_longest_passes_begin_first_once_what_they_read_is_there(tmp_path):
    """Of the demo in the order of how long they were seen to take. In dry runs Snakemake's
    scheduler has the priorities that it starts jobs by; where all is made again, too."""
    cases = [case(2, 8, "shapes"), case(2, 8, "paper"), case(2, 8, "shapes", 0, "--forceall")]
    (_, demo), (_, paper), (_, again) = plans(cases, tmp_path)

    def ranked(plan: dict[str, Any]) -> list[str]:
        passes = [job for job in plan["jobs"] if job["rule"] == "evaluate_pass"]
        assert len({job["priority"] for job in passes}) == len(passes)
        passes.sort(key=lambda job: -job["priority"])
        return [job["command"].split("cliptrase.evaluate.planned")[1].split()[1] for job in passes]

    assert ranked(demo) == [
        "shapes.shapes_clip.224.slide",
        "shapes.shapes_clip.336.crop",
        "shapes_clean.shapes_clip.336.crop",
        "shapes.shapes_clip.224.crop",
        "shapes_clean.shapes_clip.224.crop",
        "shapes.shapes_clip.320.crop",
    ]
    *many, last = *ranked(paper)[:2], ranked(paper)[-1]
    assert {name.split(".")[0] for name in many} == {"coco", "pcontext"}, "5,000 pictures each"
    assert last == "coco.vit_b16.320.crop", "one method"
    assert ranked(again) == ranked(demo)
    for plan in (demo, paper):
        by_rule: dict[str, set[int]] = {}
        for job in plan["jobs"]:
            by_rule.setdefault(job["rule"], set()).add(job["priority"])
        before = [by_rule[rule] for rule in ("prepare_dataset", *WAITING) if rule in by_rule]
        assert min(set().union(*before)) > sum(by_rule["evaluate_pass"]), "two passes are no more"


def test_each_gpu_has_one_pass_and_the_cores_are_shared_among_them(tmp_path):
    cases = [
        case(1, 8, "shapes", 1),
        case(2, 8, "paper", 2),
        case(3, 8, "shapes", 2),
        case(3, 8, "paper", 2),
        case(16, 64, "shapes", 2),
        case(16, 64, "paper", 4),
        case(4, 64, "shapes", 8),
        case(4, 64, "paper", 8),
    ]
    for one, plan in plans(cases, tmp_path):
        jobs, limits = plan["jobs"], plan["limits"]
        passes = [job for job in jobs if job["rule"] == "evaluate_pass"]
        at_once = most(passes, limits, lambda job: 1)
        assert at_once == min(one["gpus"], one["real"], len(passes)), "all are used, none is shared"
        count = partial(busy, a_core_each=one["real"] < 2 * at_once)
        assert most(jobs, limits, count) <= one["real"], one
        assert most(jobs, limits, lambda job: "--workers" in job["command"]) == at_once


def test_the_command_line_may_set_limits_of_its_own(tmp_path):
    cases = [
        case(16, 64, "shapes", 4) | {"config": ["gpus=1"]},
        case(16, 64, "shapes", 4, "--resources", "download=9"),
        case(16, 64, "shapes", 2) | {"config": ["gpus=9"]},
        case(16, 64, "shapes", 0) | {"config": ["gpus=1"]},
        case(16, 64, "shapes", 4) | {"config": ["device=cpu"]},
        case(16, 64, "shapes", 4) | {"config": ["device=cuda", "gpus=0"]},
    ]
    at_once = []
    for _, plan in plans(cases, tmp_path):
        passes = [job for job in plan["jobs"] if job["rule"] == "evaluate_pass"]
        at_once.append(most(passes, plan["limits"], lambda job: 1))
        assert most(plan["jobs"], plan["limits"], busy) <= 16
        on_cpu = {"--device cpu" in job["command"] for job in passes}
        assert on_cpu == {len(at_once) > 3}
        workers = {int(word) for job in passes for word in WORKERS.findall(job["command"])}
        assert workers == {[15, 3, 7, 2, 2, 2][len(at_once) - 1]}, "those that run share the cores"
    assert at_once == [1, 4, 2, 6, 6, 6]


def test_set_threads_decides_what_a_job_computes_with(tmp_path):
    """As on a cluster, where a machine may offer more cores than the job has."""
    threads = ("--set-threads", "evaluate_pass=5", "evaluate_shard=5", "prepare_dataset=3")
    cases = [case(64, 64, "shapes", 0, *threads), case(64, 64, "shapes", 1, *threads)]
    for one, plan in plans(cases, tmp_path):
        said = {(job["rule"], busy(job)) for job in plan["jobs"] if busy(job) > 1}
        assert said == {("evaluate_pass", 5), ("prepare_dataset", 3)}, one


def test_passes_of_other_code_share_the_cores_with_one_that_is_damaged(tmp_path):
    """All of them are made again: that but one has no true pass file gives none all cores."""
    one, *others = load("shapes").passes.values()
    for each in others:
        make_pass("shapes", each, tmp_path, code="another")
    usual = case(16, 64, "shapes")
    cases = [usual, usual | {"config": ["freeze_code=true"]}]
    for (_, plan), threads in zip(
        plans(cases, tmp_path), (16 // (1 + len(others)), 16), strict=True
    ):
        commands = [job["command"] for job in plan["jobs"] if job["rule"] == "evaluate_pass"]
        assert any(one.name in command for command in commands)
        assert all(f"--workers {threads}" in command for command in commands)
