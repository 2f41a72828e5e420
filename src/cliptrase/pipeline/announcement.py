"""What a start of a suite is about, for people, before anything is fetched or computed."""

import argparse
from collections.abc import Iterable, Sequence

from cliptrase import pipeline, plan
from cliptrase.data.fetch.receipts import existing, free_space, state, to_fetch
from cliptrase.data.fetch.sources import how_to_get, readable, size_of
from cliptrase.errors import counted, exit_on_user_error
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.data import images
from cliptrase.pipeline.estimate import Estimate, estimate
from cliptrase.pipeline.settings import read_settings
from cliptrase.plan import Pass, Plan
from cliptrase.publish import chart_names

RESULTS = "results"
BUSY = 0.3  # cores that others may use while this machine is timed, without a word about it
# Bytes, generously: a prepared image and its label, from an archive or drawn
AN_IMAGE, A_SCENE = 250_000, 70_000
# … the folder of a run, each class and each image in it, its pass's files while it is made
A_RUN, A_CLASS, AN_OUTCOME = 30_000, 300, 600
# … a table, a chart, a run in W&B, the charts' worth of the pictures
A_TABLE, A_CHART, A_LOGGED, PICTURES = 25_000, 250_000, 60_000, 8


def announcement(
    suite: Plan,
    asked: list[str],
    left: Iterable[str],
    mirror: str | None = None,
    cores: int | None = None,
    device: str = "auto",
    frozen: bool = False,
    *,
    in_full: bool = False,
    elsewhere: bool = False,
) -> str:
    """Passes without a result and their cost: images, downloads, disk, weights, time, memory.

    asked: the passes that the benchmarks need which are asked for. left: those that are to be made.
    mirror: a server that has all archives. in_full: with the minutes of every pass, timed anew; the
    others are as `estimate` takes them. elsewhere: the jobs run on other machines, so this one
    is not timed. Raises UserError as `data.to_make`.
    """
    lacking = pipeline_data.lacking(suite, asked, mirror)
    made, data = pipeline_data.to_make(suite, asked, left, mirror), suite.data
    number = sum(images(each, data) for each in made)
    reads = f", to read {counted(number, 'image')}" if made else ""
    size = f"{counted(len(suite.tables), 'table')} of {counted(len(suite.runs), 'run')}"
    lines = [
        f"suite {suite.suite}: {suite.title}: {size}",
        f"passes without a result: {len(made)} of {len(asked)}{reads}",
    ]
    cost = None if elsewhere else estimate(suite, made, cores, device, frozen, again=in_full)
    if cost and in_full and made:
        lines.append(f"  {'pass':48}{'runs':>6}{'images':>9}{'encodes':>10}{'minutes':>9}")
        lines += [
            f"  {name:48}{runs:6,}{number:9,}{windows:10,}{seconds / 60:9.1f}"
            for name, runs, number, windows, _, seconds in cost.passes
        ]
    else:
        lines += [
            f"  {each.name}: {counted(len(each.runs), 'run')}"
            f" from {counted(images(each, data), 'image')} of {each.dataset}"
            for each in made
        ]
    for dataset, archives in lacking.items():
        gone = [name for name in asked if suite.passes[name].dataset == dataset]
        lines.append(
            f"left out: {counted(len(gone), 'pass')} over {dataset}, which you alone can get:"
        )
        lines += [f"  {archive.name}: {how_to_get(archive, data)}" for archive in archives]
        command = f"cliptrase prepare {dataset} --from FOLDER --data {data}"
        lines.append(f"  if it is extracted already: `{command}`")
    if made:
        times = f"time: of the jobs' machines; `cliptrase estimate {suite.suite}` on one tells it"
        lines += [*_downloads(suite, made, mirror), *(totals(cost) if cost else [times])]
    return "\n".join(lines)


def _downloads(suite: Plan, made: list[Pass], mirror: str | None) -> list[str]:
    """What is to be fetched for these passes, and whether the disk has room for all of it."""
    data, datasets = suite.data, pipeline_data.unprepared(made, suite.data)
    states = [state(each, data, deep=False) for each in pipeline_data.archives(suite, datasets)]
    fetched = [each for each in states if each.status in ("missing", "partial")]
    needed, words = to_fetch(fetched)
    lines = [f"to download: {counted(len(fetched), 'archive')}, {words}"] if fetched else []
    for each in fetched:
        archive, there = each.archive, each.bytes_there
        kept = f", {readable(there)} of it are there" if there else ""
        place = mirror or (archive.urls[0].split("/")[2] if archive.urls else "you")
        lines.append(f"  {archive.name}: {size_of(archive)}{kept}, from {place}")
    rooms = {RESULTS: _written(suite, made)}
    for model in sorted({label for each in made for label in pipeline_data.fetched_networks(each)}):
        if not pipeline_data.weights_receipt(model, data).is_file():
            from cliptrase.model.receipt import cache, size_and_place  # only where it is asked for

            size, there = size_and_place(model)
            place = "in the cache" if there else "to be fetched"
            lines.append(
                f"weights of {model}: {readable(size) if size else 'size unknown'}, {place}"
            )
            rooms[cache()] = rooms.get(cache(), 0) + (0 if there else size)
    listed = {each.name for each in pipeline_data.sources(datasets, data)}
    for name in datasets:
        needed += pipeline_data.count(name, data) * (AN_IMAGE if name in listed else A_SCENE)
    return [*lines, *_room({data: needed, **rooms})]


def _written(suite: Plan, made: list[Pass]) -> int:
    """The bytes that runs, tables, figures and W&B will take."""
    total = A_TABLE * len(suite.tables) + A_CHART * (PICTURES + len(chart_names(suite)))
    total += A_LOGGED * (1 + len(suite.main_runs))
    for each in made:
        outcomes = AN_OUTCOME * images(each, suite.data)
        classes = (run.vocabulary.classes.count for run in each.runs.values())
        total += sum(A_RUN + A_CLASS * count + outcomes for count in classes)
    return total


def _room(needed: dict[str, int]) -> list[str]:
    """A line a disk: what its folders need, and what is free there. needed: folder → bytes."""
    disks: dict[int, list[str]] = {}
    for folder in needed:
        disks.setdefault(_device(folder), []).append(folder)
    lines = []
    for folders in disks.values():
        bytes_needed, free = sum(needed[each] for each in folders), free_space(folders[0])
        short = ": NOT ENOUGH" if bytes_needed > free else ""
        room = f"{readable(bytes_needed)} needed, {readable(free)} free"
        lines.append(f"disk: about {room} in {' and '.join(folders)}{short}")
    return lines


def _device(folder: str) -> int:
    return existing(folder).stat().st_dev


def totals(cost: Estimate) -> list[str]:
    """Encoder passes, time and memory of a start."""
    if not cost.speed or (cost.gpus and cost.speed.device == "cpu"):
        return ["time: unknown, as this machine could not be timed"]
    where = counted(cost.cores, "CPU core")
    if cost.gpus:
        where = f"{counted(cost.gpus, 'GPU')} and {where}"
    taken = [each.seconds for each in cost.passes]
    seconds = max(sum(taken) / cost.at_once, *taken) + cost.besides / min(2, cost.cores)
    note = "" if cost.gpus else f", {duration(cost.work)} of one core"
    note += "; a guess, too short to be timed first" * (cost.speed.device == "guess")
    if not cost.gpus and cost.speed.others > BUSY:
        others = f"other programs took {cost.speed.others:.1f} cores while it was timed"
        note += f"; {others}, so it may be too much: time it again on a quiet machine"
    memory = readable(int(cost.at_once * cost.speed.memory))
    passes = counted(cost.at_once, "pass")
    return [
        f"encoder: {sum(each.windows for each in cost.passes):,} images or windows of images",
        f"time: about {duration(seconds)} on {where}{note}",
        f"memory: about {memory} at the peak, {passes} at once",
    ]


def duration(seconds: float) -> str:
    """`40 seconds`, `12 minutes` or `3.5 hours`."""
    if seconds < 90:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cliptrase estimate`."""
    add = parser.add_argument
    add("--benchmarks", metavar="A,B", help="only the passes that these need (also: [A,B])")
    add("--cores", type=int, metavar="N", help="Snakemake's --cores (all)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--mirror", metavar="URL", help="a server that has every archive")
    add("--freeze-code", action="store_true", help="other code is no reason to make a run again")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """`cliptrase estimate SUITE`."""
    parser = argparse.ArgumentParser(
        prog="cliptrase estimate",
        description="What `snakemake all` will cost on this machine: images, encoder passes, time, "
        "disk, memory. Times the code of the passes first; the start of `all` believes it.",
    )
    suites = ", ".join(plan.suites())
    parser.add_argument("suite", metavar="SUITE", nargs="?", default="shapes", help=suites)
    add_options(parser)
    options = parser.parse_args(arguments)
    names = ("suite", "benchmarks", "mirror", "freeze_code", "device")
    settings = read_settings({name: getattr(options, name) for name in names})
    if options.cores is not None and options.cores < 1:
        parser.error(f"--cores {options.cores}: at least 1")
    suite = plan.load(settings.suite)
    asked = pipeline.chosen_passes(suite, settings.benchmarks)
    left = pipeline.stale_passes(suite, frozen=settings.freeze_code)
    given = settings.mirror, options.cores, settings.device, settings.freeze_code
    print(announcement(suite, asked, left, *given, in_full=True))
