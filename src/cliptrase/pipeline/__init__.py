"""What the Snakefile asks: which files a step reads, its share of the cores, what is left to do.

Imports neither torch nor Hydra: every start of Snakemake, and every remote job, asks again.
"""

import math
import os
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from cliptrase import machine
from cliptrase.config import Run, files
from cliptrase.config.schema import Slide
from cliptrase.data.read.ordered import MOST
from cliptrase.errors import UserError
from cliptrase.pipeline.data import images, selfcheck
from cliptrase.plan import Pass, Plan
from cliptrase.publish.page import PAGE_FILES
from cliptrase.resources import resource
from cliptrase.runs import finished
from cliptrase.runs.shards import shards_of

RUNS = Path("results/runs")
FIRST = 10**6  # priority of what passes read, above that of all passes together
A_SAM = 40  # how many times as long as CLIP a SAM takes for a picture
THREADS = (  # how many threads the mathematics, the tokenizer and W&B's server may start
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "GOMAXPROCS",
)


def chosen_passes(plan: Plan, benchmarks: Collection[str] | None) -> list[str]:
    """The passes that some benchmarks need; None for all.

    A pass is made whole: its other benchmarks share its images, and cost little.
    Raises UserError for a benchmark that is not in the suite.
    """
    if benchmarks is None:
        return list(plan.passes)
    plan.check_benchmarks(benchmarks)
    return [
        each.name
        for each in plan.passes.values()
        if any(run.benchmark.name in benchmarks for run in each.runs.values())
    ]


def table_files(plan: Plan) -> list[str]:
    """The files that say what the tables of a suite are, and what papers printed."""
    tables = [files.find("table", name) for name in plan.tables]
    suite = files.find("suite", plan.suite)
    printed = (resource("published", name) for name in ("published.csv", "peers.csv"))
    needed = (*tables, suite, *printed)
    # a checkout that moves runs nothing again
    return [os.path.relpath(file) for file in needed if file is not None]


def page_files() -> list[str]:
    """The HTML, CSS and script of a suite's page."""
    return [os.path.relpath(file) for file in sorted(PAGE_FILES.iterdir())]


def stale_passes(plan: Plan, *, frozen: bool = False) -> dict[str, str]:
    """pass → why it is to be made: its pass file is missing or a run of it is not finished.

    frozen: other code is no reason. Reads every file of the runs, so it is asked once a start.
    """
    reasons = {
        name: finished.stale_pass(
            finished.pass_file(plan.suite, name), each.runs, RUNS, plan.data, freeze_code=frozen
        )
        for name, each in plan.passes.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def shard_files(suite: str, name: str, shards: int) -> list[str]:
    """The files with the counts of a pass that is cut into shards."""
    file = finished.pass_file(suite, name)
    return [str(shard.file(file)) for shard in shards_of(shards)]


def counted(suite: str, name: str, shards: int) -> list[str]:
    """The file that stands for the shards of a pass, whatever their number; none for one."""
    return [str(finished.pass_file(suite, name).with_suffix(".counted"))] if shards > 1 else []


def has_run(plan: Plan) -> bool:
    """Whether a run of the plan has numbers, finished or stale."""
    return any((RUNS / name / "metrics.json").is_file() for name in plan.runs)


def runs_to_predict(a_pass: Pass, data: str, frozen: bool) -> list[str]:
    """The runs of a pass for which it must stream the images."""

    def lost(run: Run) -> bool:
        try:
            return finished.status(run, RUNS, data, freeze_code=frozen).streams
        except UserError:  # something else is in its place: the pass will say it
            return True

    return [name for name, run in a_pass.runs.items() if lost(run)]


def passes_to_make(plan: Plan, stale: Iterable[str], words: list[str]) -> list[str]:
    """The stale passes that a start makes, by the words of Snakemake's command line: those whose
    pass files it names, none where it only renders tables, makes data or trains SAN, else all."""
    targets = {os.path.normpath(word) for word in words}
    if named := [name for name in stale if str(finished.pass_file(plan.suite, name)) in targets]:
        return named
    needing = "all" in targets or any(target.startswith("results/") for target in targets)
    needless = ("regenerate-paper-tables", "regenerate_paper_tables", "fig8", f"{plan.data}/")
    return list(stale) if needing or not any(t.startswith(needless) for t in targets) else []


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


def limit_gpus(device: str, most: int | None) -> str:
    """Let the passes see the first `most` GPUs only, None for all.

    Returns their device: the CPU for 0.
    """
    if most is None:
        return device
    seen = machine.visible_gpus(machine.gpu_uuids() or None)[:most]
    if seen and ":" not in device:
        os.environ[machine.VISIBLE] = ",".join(seen)
    return device if most else "cpu"


def workers(made: list[str], gpus: int, cores: int | None) -> int:
    """The cores of one pass, so that the passes that are `made` keep the cores busy, no more.

    `cores`: Snakemake's --cores. On GPUs as many passes run at once as there are GPUs; without, all
    of them, as far as there are cores.
    """
    at_once = min(gpus or len(made), len(made))
    return max(1, usable(cores) // max(1, at_once))


def priorities(plan: Plan) -> dict[str, int]:
    """pass → its priority, from 1: the longest has the highest, so that it does not begin last, and
    compute alone at the end.

    How long is guessed: the pixels that CLIP sees, times the methods and the networks beside it,
    then the runs. Raises UserError for a user's folder that cannot be read.
    """

    def length(name: str) -> tuple[int, int]:
        a_pass = plan.passes[name]
        runs, side, windows = [*a_pass.runs.values()], a_pass.image_size, 1
        if isinstance(protocol := runs[0].protocol, Slide):  # they share it
            windows += math.ceil((protocol.short_side - side) / protocol.stride)
        work = len({run.method.name for run in runs})
        beside = {each.key: each.kind for run in runs for each in run.method.networks}
        work += sum(A_SAM if kind == "sam" else 1 for kind in beside.values())
        return images(a_pass, plan.data) * (windows * side) ** 2 * work, len(runs)

    return {name: rank for rank, name in enumerate(sorted(plan.passes, key=length), start=1)}


def preparing_threads(datasets: Iterable[str], data: str, cores: int | None) -> int:
    """Threads of one preparation, so that those to be made keep the cores busy; 4 at most."""
    made = [dataset for dataset in datasets if not Path(selfcheck(dataset, data)).is_file()]
    return max(1, min(MOST, usable(cores) // max(1, len(made))))


def options(
    device: str,
    cores: int,
    gpus: int,
    freeze_code: bool,
    save_maps: int | None = None,
    shards: int = 1,
) -> str:
    """The part of a pass's command line that cannot change a number.

    `cores`: what `workers` says. Where the pass has a GPU, one of them is for the thread that feeds
    it. (A pass with one core has a thread beside it, as that one mostly waits.) Where no pass may
    have a GPU, all are told so.
    """
    device, threads = (device, max(1, cores - 1)) if gpus else ("cpu", cores)
    kept = "" if save_maps is None else f" --save-maps {save_maps}"
    kept += f" --shards {shards}" * (shards > 1)
    return f"--device {device} --workers {threads}{kept}" + " --freeze-code" * freeze_code


def claim(threads: int, cores: int | None) -> int:
    """How many of Snakemake's `cores` a job with this many busy threads must claim.

    `--cores 8` on 2 real cores would start 8 jobs: there, each real core is worth 4 of them.
    """
    return math.ceil(threads * (cores or usable(cores)) / usable(cores))


def busy(claimed: int, cores: int | None) -> int:
    """The busy threads of a job that has claimed so many of Snakemake's `cores`.

    What `claim` was given, unless `--set-threads` says otherwise, as a cluster's profile does.
    """
    return max(1, claimed * usable(cores) // (cores or usable(cores)))


def usable(cores: int | None) -> int:
    """The real cores among Snakemake's `cores`."""
    real = machine.cores()
    return min(real, cores or real)
