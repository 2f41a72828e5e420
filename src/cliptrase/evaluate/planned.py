"""One pass of a suite, as Snakemake starts it: python -m cliptrase.evaluate.planned SUITE PASS.

Writes OUT/passes/SUITE/PASS.json (run → sha256 of its metrics.json) once every run stands.
With `--shard 2/7` it only counts that part of the images, into a file beside it; with `--shards 7`
it adds up the seven files in the place of streaming the images.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliptrase import plan
from cliptrase.config import Run
from cliptrase.data.read.prepared import read_subset
from cliptrase.errors import UserError, counted, exit_on_user_error, nearest
from cliptrase.evaluate.console import interruptible, log_to_stderr
from cliptrase.files import local_path, write_text
from cliptrase.machine import check_gpu, positive
from cliptrase.runs import finished, store
from cliptrase.runs.shards import Shard, shards_of, written


def make_pass(
    suite: str,
    name: str,
    results: Path | str = "results",
    data: Path | str | None = None,
    *,
    freeze_code: bool = False,
    save_maps: int | None = None,
    shard: str | None = None,
    shards: int = 1,
    **options: Any,
) -> Path:
    """Make the runs of a planned pass that are not finished, then its pass file, which is returned.

    `data`: the data folder, None for the suite's own; `save_maps`: label maps of each run, None for
    what the suite says; `shard`: count this part of the images alone, "2/7", and return the file of
    the counts; `shards`: add up so many of these, 1 for none; `options`: device, batch_size and
    workers, as `run_pass` takes them.
    Raises UserError for an unknown suite or pass, as `run_pass`, and, once the others are made, for
    runs on a part of the dataset that is not there, or whose folder holds something else.
    """
    planned = plan.load(suite, save_maps)
    passes, data = planned.passes, planned.data if data is None else data
    if name not in passes:
        raise UserError(f"suite {suite} has no pass {name!r}; {nearest(name, passes)}")
    runs, file = passes[name].runs, finished.pass_file(suite, name, results)
    out = Path(results) / "runs"
    lost = _taken(runs, out)
    free = {run: runs[run] for run in runs if run not in lost}
    todo = store.rescore(free, out, data, freeze_code=freeze_code)
    lost |= _without_their_images(todo, data)
    if shard is not None:
        counting = {run: runs[run] for run in todo if run not in lost}
        return _count(counting, Shard.of(shard), file, data, freeze_code, options)
    made = {run: runs[run] for run in runs if run not in lost}
    parts = [each.file(file) for each in shards_of(shards)] if shards > 1 else []
    partial = file.with_name(f".{name}.partial.npz")
    if todo.keys() - lost.keys() or finished.without_maps(made, out, data, freeze_code=freeze_code):
        check_gpu(options.get("device", "auto"))
        import cliptrase.model.lean  # noqa: F401
        from cliptrase.evaluate import saved_maps  # torch: not where all runs are there
        from cliptrase.evaluate.passes import run_pass

        shared = {"out": out, "data": data, "freeze_code": freeze_code, **options}
        run_pass(made, partial=partial, counted_shards=parts, **shared)
        saved_maps.save_maps(made, **shared)
    if lost:
        reasons = "; ".join(dict.fromkeys(lost.values()))
        raise UserError(
            f"{len(lost)} of the {counted(len(runs), 'run')} of {name} left out: {reasons}"
        )
    partial.unlink(missing_ok=True)  # of a pass that was killed when all runs were written
    finished.write_pass(file, runs, out)
    for counts in written(file):  # of another number of shards, too
        counts.unlink(missing_ok=True)
    return file


def _count(
    runs: dict[str, Run],
    shard: Shard,
    file: Path,
    data: Path | str,
    freeze_code: bool,
    options: Mapping[str, Any],
) -> Path:
    """Write the counts of a shard of a pass; an empty file where no run is to be made."""
    counts = shard.file(file)
    if not runs:
        write_text(counts, "")
        return counts
    check_gpu(options.get("device", "auto"))
    import cliptrase.model.lean  # noqa: F401
    from cliptrase.evaluate.passes import count_shard

    partial = counts.with_name(f".{counts.stem}.partial.npz")
    count_shard(runs, shard, counts, partial=partial, data=data, freeze_code=freeze_code, **options)
    return counts


def _taken(runs: Mapping[str, Run], out: Path) -> dict[str, str]:
    """Those of `runs` in whose place something else stands, and what it is."""
    taken = {}
    for name, run in runs.items():
        try:
            finished.unwritten(out / name, run)
        except UserError as error:
            taken[name] = str(error)
    return taken


def _without_their_images(runs: dict[str, Run], data: Path | str) -> dict[str, str]:
    """Those of `runs` that are scored on a part of a dataset which it lacks, and why it does."""
    lost = {}
    for name, run in runs.items():
        dataset, subset = run.benchmark.dataset, run.benchmark.subset
        if subset is not None:
            try:
                read_subset(dataset, subset, data)
            except UserError as error:
                lost[name] = str(error)
    return lost


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cliptrase.evaluate.planned", description="Make one pass of a suite."
    )
    parser.add_argument("suite", metavar="SUITE")
    parser.add_argument("name", metavar="PASS", help="as python -m cliptrase.plan SUITE prints it")
    out = parser.add_argument("--out", type=local_path, dest="results", default="results")
    out.metavar, out.help = "OUT", "results folder (results)"
    parser.add_argument("--data", type=local_path, help="data folder (the suite's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    batch_size = "images at once on a GPU (of conf/evaluate.yaml)"
    parser.add_argument("--batch-size", type=positive, help=batch_size)
    parser.add_argument("--workers", type=positive, help="threads (as many as cores)")
    kept = "label maps kept of each run (of the suite)"
    parser.add_argument("--save-maps", type=int, metavar="N", help=kept)
    parser.add_argument(
        "--freeze-code", action="store_true", help="let runs stand that other code made"
    )
    parser.add_argument("--shard", metavar="I/N", help="only count this part of the images")
    parser.add_argument("--shards", type=positive, default=1, metavar="N", help="add up N of them")
    options = parser.parse_args(arguments)
    with interruptible():
        log_to_stderr()
        path = make_pass(**vars(options))
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
