"""What a start of a suite will cost on this machine: its steps as jobs, and when they are done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cliptrase import pipeline
from cliptrase.machine import cores as real_cores
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.estimate import costs, todo, work
from cliptrase.pipeline.estimate.schedule import Job, finished
from cliptrase.pipeline.estimate.speed import Speed
from cliptrase.pipeline.estimate.start import USUAL, Start
from cliptrase.plan import Pass, Plan

STARTED = "snakemake"


@dataclass(frozen=True)
class Left:
    """A pass that is to be made, those of its runs that are, and what it reads."""

    one: Pass
    runs: list[work.Run]
    images: int

    @property
    def encodes(self) -> int:
        """Images, or windows of images, that the encoder sees."""
        return self.images * costs.windows(first(self.one), self.one.dataset)


@dataclass(frozen=True)
class Estimate:
    """cores, gpus: that are used. jobs: every step, in order; empty where no speed is known.

    threads: of a pass. encoder_passes: what is computed of images, in bare encodes of every image
    of the datasets at every size.
    """

    left: list[Left]
    cores: int
    gpus: int
    threads: int
    speed: Speed | None
    jobs: list[Job]
    encoder_passes: float

    @property
    def seconds(self) -> float:
        """By the clock, from the start to the end, without downloads."""
        return finished(self.jobs, self.cores, self.gpus)

    @property
    def work(self) -> float:
        """Seconds of one core."""
        return sum(job.work for job in self.jobs)

    @property
    def at_once(self) -> int:
        """Passes that run at the same time."""
        most = self.gpus or max(1, self.cores // self.threads)
        return min(most, len(self.left))

    @property
    def memory(self) -> float:
        """Bytes, with the largest passes at the same time."""
        some = [one for one in self.left if one.runs]  # a lost pass file is made without a run
        peaks = [costs.peak_memory(one.runs, one.images, self.threads) for one in some]
        return sum(sorted(peaks, reverse=True)[: self.at_once])

    def minutes(self, one: Left) -> float:
        """Of a pass, by the clock."""
        return next(job.seconds for job in self.jobs if job.name == one.one.name) / 60


def blocks(passes: Iterable[Pass]) -> list[costs.Block]:
    """What is to be timed for some passes."""
    return sorted({block for one in passes for block in costs.needed_blocks(first(one))})


def first(one: Pass) -> work.Run:
    """A run of a pass: they share model, size and protocol."""
    return next(iter(one.runs.values()))


def estimate(
    plan: Plan,
    passes: list[str],
    left: list[str],
    mirror: str | None,
    speed: Speed | None,
    start: Start = USUAL,
) -> Estimate:
    """Of the passes `left` among those that are asked for; without what only the user can get.

    speed: of this machine, None if unknown.
    """
    lacking = pipeline_data.lacking(plan, passes, mirror)
    possible = pipeline_data.without(plan, passes, lacking)
    made = todo.made(plan, passes, left, mirror)
    found = [
        Left(one, todo.runs_left(one, frozen=start.frozen), todo.images(one, plan.data))
        for one in made
    ]
    gpus, cores = start.cards, start.cores
    used = min(real_cores(), cores or real_cores())
    threads = pipeline.workers(possible, left, gpus, cores)
    if speed is None:
        return Estimate(found, used, gpus, threads, None, [], 0.0)
    jobs = [Job(STARTED, 0.0)]
    jobs += _preparing(plan, possible, made, speed, cores)
    ready = frozenset(job.name for job in jobs)
    encoded: set[tuple[str, str]] = set()
    for one in found:
        jobs.append(_pass(one, speed, threads, gpus, encoded, ready))
    if found or not Path("results", plan.suite, "wandb", "ledger.json").is_file():
        jobs += _publishing(plan, frozenset(job.name for job in jobs), speed, start.tracking)
    jobs[0] = Job(STARTED, costs.starting_seconds(len(jobs) - 1, speed))
    return Estimate(found, used, gpus, threads, speed, jobs, _encoder_passes(found, speed))


def _preparing(
    plan: Plan, possible: list[str], made: list[Pass], speed: Speed, cores: int | None
) -> list[Job]:
    """Archives that are there or come, and datasets made of them; weights."""
    started = frozenset({STARTED})
    datasets = todo.unprepared(made, plan.data)
    asked = {plan.passes[name].dataset for name in possible}
    threads = pipeline.preparing_threads(asked, plan.data, cores)
    jobs = []
    for archive in todo.archives(plan, todo.sources(datasets, plan.data)):
        seconds = costs.fetching_seconds(archive.size or 0, speed)
        jobs.append(Job(f"fetch {archive.name}", seconds, needs=started))
    for model in sorted({one.model for one in made if pipeline_data.weights(one, plan.data)}):
        if not pipeline_data.weights_receipt(model, plan.data).is_file():
            jobs.append(Job(f"fetch {model}", speed.start, needs=started))
    for dataset in datasets:
        source = pipeline_data.source_of(dataset, plan.data)
        count = source.count if source else todo.SCENES
        own = [archive.name for archive in source.needed()] if source else []
        needs = started | {f"fetch {name}" for name in own}
        alone, shared = costs.preparing_seconds(dataset, count, speed)
        jobs.append(Job(f"prepare {dataset}", alone, shared, threads, needs=needs))
    return jobs


def _pass(
    left: Left,
    speed: Speed,
    threads: int,
    gpus: int,
    encoded: set[tuple[str, str]],
    ready: frozenset[str],
) -> Job:
    """One pass. encoded: words whose features an earlier one makes; its own are added."""
    one, run = left.one, first(left.one)
    needs = ready & {STARTED, f"fetch {one.model}", f"prepare {one.dataset}"}
    if not left.runs:
        return Job(one.name, costs.LOOKED * speed.slower, threads=threads, needs=needs)
    words = {work.text_key(each): each for each in left.runs}
    new = [each for key, each in words.items() if (key, one.model) not in encoded]
    encoded |= {(key, one.model) for key in words}
    text = sum(costs.text_seconds(each, speed) for each in new)
    alone = costs.opening_seconds(run, speed)
    alone += costs.counting_seconds(left.runs, one.dataset, speed)
    alone += costs.writing_seconds(left.runs, left.images, speed)
    on_device, besides = costs.image_seconds(left.runs, one.dataset, speed)
    if gpus:  # the cores work while it does
        streamed = left.images * max(on_device, besides / threads)
        return Job(one.name, alone + text + streamed, 0.0, threads, True, needs)
    shared = text + left.images * (on_device + besides)
    return Job(one.name, alone, shared, threads, needs=needs)


def _publishing(plan: Plan, needs: frozenset[str], speed: Speed, tracking: str) -> list[Job]:
    runs, main = len(plan.runs), len(plan.main_runs)
    tables = Job("tables", costs.publishing_seconds("tables", runs, speed), needs=needs)
    figures = Job("figures", costs.publishing_seconds("figures", runs, speed), needs=needs)
    published = costs.publishing_seconds(tracking, main, speed)
    return [tables, figures, Job("wandb", published, needs=needs | {"tables"})]


def _encoder_passes(found: list[Left], speed: Speed) -> float:
    """What is computed of images, in bare fp32 encodes of each dataset's images at each size."""
    sizes = {(one.one.model, first(one.one)["image_size"]): first(one.one) for one in found}
    counts = {one.one.dataset: one.images for one in found}
    once = sum(costs.bare_encode(run, speed) for run in sizes.values()) * sum(counts.values())
    total = sum(
        one.images * costs.image_seconds(one.runs, one.one.dataset, speed)[0]
        for one in found
        if one.runs
    )
    return total / once if once else 0.0
