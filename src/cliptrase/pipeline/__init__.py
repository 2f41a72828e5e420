"""What the Snakefile asks: which files a step reads, its share of the cores, what is left to do.

Imports neither torch nor Hydra: every start of Snakemake, and every remote job, asks again.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cliptrase import machine
from cliptrase.data.make import recipes
from cliptrase.data.read.ordered import MOST
from cliptrase.errors import UserError, nearest
from cliptrase.files import sha256_file
from cliptrase.pipeline.data import selfcheck
from cliptrase.plan import Pass, Plan
from cliptrase.resources import resource
from cliptrase.runs import seal
from cliptrase.runs.provenance import code_files

PACKAGE = Path(__file__).resolve().parents[1]
RUNS = Path("results/runs")
THREADS = (  # how many threads the mathematics, the tokenizer and W&B's server may start
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "GOMAXPROCS",
)


def chosen_passes(plan: Plan, benchmarks: str | Iterable[str] | None) -> list[str]:
    """The passes that some benchmarks need; `benchmarks` as `--config` gives it, None for all.

    A pass is made whole: its other benchmarks share its images, and cost little.
    Raises UserError for a benchmark that is not in the suite.
    """
    if benchmarks is None:
        return list(plan.passes)
    wanted = set(benchmarks.split(",") if isinstance(benchmarks, str) else benchmarks)
    known = {run["benchmark"]["name"] for run in plan.runs.values()}
    for name in sorted(wanted - known):
        raise UserError(f"suite {plan.suite} has no benchmark {name!r}; {nearest(name, known)}")
    return [
        one.name
        for one in plan.passes.values()
        if any(run["benchmark"]["name"] in wanted for run in one.runs.values())
    ]


def preparing_code(dataset: str, data: str) -> list[str]:
    """The code that a prepared dataset is of: that of its recipe's digest, no more.

    Other code that prepares, and checks, does not change what was prepared.
    """
    return sorted({_relative(file) for file in recipes.code_files(dataset, data)})


def evaluation_code() -> list[str]:
    """The code that can change a number, as the run folders' code digest counts it."""
    return [_relative(file) for file in code_files()]


def code_of(folder: str) -> list[str]:
    """The Python files of a folder of the package, subfolders too."""
    return [_relative(file) for file in sorted((PACKAGE / folder).rglob("*.py"))]


def pass_files(one: Pass) -> list[str]:
    """The shipped and user files that say what the runs of a pass are: conf, words, weights.

    (Weights that are fetched have a receipt, see `pipeline_data.weights`.)
    """
    files = {resource("conf", "evaluate.yaml")}
    for run in one.runs.values():
        for group in ("benchmark", "method", "protocol"):
            files.add(resource("conf", group, f"{run[group]['name']}.yaml"))
        files.add(resource("conf", "model", f"{run['model']['label']}.yaml"))
        files |= {Path(words["path"]) for words in run["vocabulary"].values() if words}
        if run["benchmark"]["labels"]["map"]:
            files.add(PACKAGE / "data" / "labels" / f"{run['benchmark']['labels']['map']}.csv")
        if run["model"]["path"]:
            files |= {file for file in Path(run["model"]["path"]).iterdir() if _is_weights(file)}
    return sorted(_relative(file) for file in files)


def table_files(plan: Plan) -> list[str]:
    """The files that say what the tables of a suite are, and what the paper printed."""
    tables = [resource("conf", "table", f"{name}.yaml") for name in plan.tables]
    suite = resource("conf", "suite", f"{plan.suite}.yaml")
    return [_relative(file) for file in (*tables, suite, resource("published", "published.csv"))]


def pass_file(suite: str, name: str) -> Path:
    """Where a pass writes which runs it made: run → sha256 of its metrics.json."""
    return Path("results/passes", suite, f"{name}.json")


def unmade(plan: Plan) -> list[str]:
    """The passes without a pass file that holds: whose every run is there, as it was written.

    Reads every file of the runs, so it is asked once a start.
    """
    return [one.name for one in plan.passes.values() if not _holds(plan.suite, one)]


def passes_to_make(dag: Any) -> list[str]:
    """The passes that Snakemake is about to make, whatever its reason: to be asked at its start."""
    jobs = [job for job in dag.needrun_jobs() if job.rule.name == "evaluate_pass"]
    return [job.wildcards.name for job in jobs]


def force_false_pass(dag: Any, suite: str, name: str, false: Iterable[str]) -> list[str]:
    """Make Snakemake run a pass again whose file is there and does not hold; returns no input.

    Run folders are not declared to Snakemake (it deletes what is declared before a rerun), so it
    would not notice that one is gone or damaged. To be called as an input function: Snakemake asks
    once it has a DAG, and only for passes that the targets need. Nothing is deleted before the pass
    runs, which finds its other runs finished. `false`: what `unmade` says.
    """
    file = pass_file(suite, name)
    if name in false and file.exists():
        dag.forcefiles.add(str(file))
    return []


def force_stale_tables(dag: Any, suite: str) -> list[str]:
    """Make Snakemake render tables with an empty cell whose run is there now; returns no input.

    `regenerate-paper-tables` renders what there is, also where a run is missing: its files are then
    newer than any pass, and a run that came back by itself would go unnoticed. An input function,
    as `force_false_pass`.
    """
    for file in sorted(Path("results", suite, "tables").glob("*.csv")):
        with open(file, encoding="utf-8", newline="") as text:
            cells = list(csv.DictReader(text))
        empty = {cell["run"] for cell in cells if cell.get("run") and not cell.get("value")}
        if any((RUNS / run / "metrics.json").is_file() for run in empty):
            dag.forcefiles.add(str(file))
    return []


def force_failed_publishing(dag: Any, suite: str) -> list[str]:
    """Make Snakemake publish again what W&B did not take the last time; returns no input.

    A failure of W&B fails no job, so only the ledger knows. An input function, as
    `force_false_pass`.
    """
    ledger = Path("results", suite, "wandb", "ledger.json")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(ledger.read_bytes()).get("failed"):
            dag.forcefiles.add(str(ledger))
    return []


def _holds(suite: str, one: Pass) -> bool:
    """Whether the pass file is there and every run that it should name is there as it says."""
    try:
        said = json.loads(pass_file(suite, one.name).read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(said, dict) or said.keys() != one.runs.keys():
        return False
    return all(
        not seal.damage(RUNS / run) and sha256_file(RUNS / run / "metrics.json") == digest
        for run, digest in said.items()
    )


def shell_prefix() -> str:
    """What precedes every rule's command.

    `python` there is the one that runs Snakemake, whatever PATH says: starting .venv/bin/snakemake
    does not put .venv/bin on it. Libraries start no threads of their own: Snakemake would have them
    start as many as the job claims, which are more than there are where `claim` scales them. In a
    prefix, and not in the rules' commands, so that a checkout that moves runs nothing again.
    Snakemake formats it, hence the doubled braces.
    """
    single = " ".join(f"{name}=1" for name in THREADS)
    python = f'python() {{{{ {shlex.quote(sys.executable)} "$@"; }}}}'
    return f"set -euo pipefail; export {single}; {python}; "


def what_there_is(suite: str, tracking: str) -> str:
    """The commands that end a start that failed: tables, figures and W&B from the runs there are.

    Whatever failed, its cells are empty with their reason, and one of these steps costs no other.
    """
    steps = (f"tables {suite}", f"figures {suite}", f"wandb {suite} tracking.mode={tracking}")
    commands = [f"python -m cliptrase.publish {step} >&2 || true" for step in steps]
    return "; ".join(commands)


def workers(passes: list[str], left: list[str], gpus: int, cores: int | None) -> int:
    """The cores of one pass, so that the passes to be made keep the cores busy, no more.

    `left`: what `estimate.todo.unmade` says. `cores`: Snakemake's --cores. On GPUs as many passes
    run at once as there are GPUs; without, all of them, as far as there are cores.
    """
    made = [name for name in passes if name in left] or passes
    at_once = min(gpus or len(made), len(made))
    return max(1, _usable(cores) // max(1, at_once))


def preparing_threads(datasets: Iterable[str], data: str, cores: int | None) -> int:
    """Threads of one preparation, so that those to be made keep the cores busy; 4 at most."""
    made = [one for one in datasets if not Path(selfcheck(one, data)).is_file()]
    return max(1, min(MOST, _usable(cores) // max(1, len(made))))


def options(device: str, cores: int, gpus: int, freeze_code: bool) -> str:
    """The part of a pass's command line that cannot change a number.

    `cores`: what `workers` says. Where the pass has a GPU, one of them is for the thread that feeds
    it. (A pass with one core has a thread beside it, as that one mostly waits.) Where no pass may
    have a GPU, all are told so.
    """
    device, threads = (device, max(1, cores - 1)) if gpus else ("cpu", cores)
    return f"--device {device} --workers {threads}" + " --freeze-code" * freeze_code


def claim(threads: int, cores: int | None) -> int:
    """How many of Snakemake's `cores` a job with this many busy threads must claim.

    `--cores 8` on 2 real cores would start 8 jobs: there, each real core is worth 4 of them.
    """
    return math.ceil(threads * (cores or _usable(cores)) / _usable(cores))


def limit(workflow: Any, name: str, most: int) -> int:
    """Limit what all jobs together have of a resource to `most`, unless --resources says otherwise.

    Without a limit a rule's resource means nothing. Returns the smaller of the two, for planning.
    (In a profile a limit would be gone where --resources names another resource.)
    """
    return min(most, workflow.global_resources.setdefault(name, most).value)


def gpus(device: str) -> int:
    """How many passes may have a GPU at once, each its own: see `machine.usable_gpus`."""
    return machine.usable_gpus(device)


def _usable(cores: int | None) -> int:
    real = machine.cores()
    return min(real, cores or real)


def _is_weights(file: Path) -> bool:
    return file.suffix in {".json", ".safetensors"}


def _relative(file: Path) -> str:
    """As seen from the working directory, so that a checkout may move and nothing runs again."""
    return os.path.relpath(file)
