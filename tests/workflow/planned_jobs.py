"""What Snakemake would start, and within which limits: asked of its own scheduler, in dry runs.

`python planned_jobs.py FOLDER` reads a list of cases from stdin (JSON), plans each in the empty
FOLDER by the Snakefile of the working directory, and prints a list of plans. A process of its own,
as Snakemake changes the process it is in.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from typing import Any

from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

from cliptrase import machine, plan

SEEN: list[JobScheduler] = []
INIT = JobScheduler.__init__


def planned(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """The jobs of a case and the limits of what they have together.

    case: `real` cores, `gpus`, Snakemake's `cores` and `suite`; more `arguments` and `config`.
    """
    os.sched_getaffinity = lambda _: set(range(case["real"]))
    machine.cpu_quota = lambda: None
    machine.gpu_uuids = lambda: [""] * case["gpus"]
    os.environ.pop(machine.VISIBLE, None)
    SEEN.clear()
    words = ["all", "--dry-run", "--quiet", "--directory", folder, "--cores", str(case["cores"])]
    try:
        pairs = [f"suite={case['suite']}", *case.get("config", [])]
        main([*words, *case.get("arguments", []), "--config", *pairs])
    except SystemExit as error:
        assert error.code == 0, case
    (scheduler,) = SEEN
    return {
        "limits": scheduler.global_resources,
        "jobs": [
            {
                "rule": job.rule.name,
                "command": job.shellcmd or "",
                "priority": job.priority,
                "claims": {
                    name: value
                    for name, value in job.scheduler_resources.items()
                    if isinstance(value, int)
                },
            }
            for job in scheduler.workflow.dag.needrun_jobs()
            if job.rule.name != "all"
        ],
    }


def remember(scheduler: JobScheduler, *arguments: Any, **options: Any) -> None:
    """Takes the place of a scheduler's `__init__`."""
    INIT(scheduler, *arguments, **options)
    SEEN.append(scheduler)


if __name__ == "__main__":
    plan.load = functools.cache(plan.load)
    JobScheduler.__init__ = remember
    print_to, sys.stdout = sys.stdout, sys.stderr
    plans = [planned(case, sys.argv[1]) for case in json.load(sys.stdin)]
    json.dump(plans, print_to)
