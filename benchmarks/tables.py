"""What the paper's tables cost: every pass of the plan, in passes of a bare encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from benchmarks.scenery import Eps, Models, Patchworks, job, patchwork
from benchmarks.timing import Way, encoding, passing, spread, taking_turns, ways
from cliptrase import plan
from cliptrase.config.files import CONF
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.targets import scored_classes
from cliptrase.evaluate.textcache import names_of

TABLES = ("table1_main", "table2_ablation", "table6_metrics_224", "table7_metrics_336")
FIGURE = "fig7_sensitivity"


def table_passes(
    models: Models, eps: dict[int, Eps], encoder_way: Way, *, images: int, parts: int, threads: int
) -> dict[str, Any]:
    """All passes of tables 1, 2, 6, 7 and Figure 7, and bare encodes, on the same pictures.

    They take turns on `parts` parts of the `images` pictures; an image's seconds, the median over
    the parts, count as often as the dataset has images. Text features are there already; reading
    images and starting up do not count.
    """
    clip, way = models.clip, ways(models.clip.device, threads)[0]
    passes, counts = planned(), image_counts()
    jobs = {each.name: jobs_of(each, clip, eps[each.image_size]) for each in passes}
    sizes = sorted({each.image_size for each in passes})
    in_part = images // parts
    seconds: dict[Any, list[float]] = {}  # of an image in each part, by pass or encoder size
    for part in range(parts):
        indices = range(part * in_part, (part + 1) * in_part)
        turns: dict[Any, Callable[[], float]] = {}
        for size in sizes:
            pictures = [patchwork(index, size)[0] for index in indices]
            turns[size] = partial(encoding, clip, models.encoders[size], pictures, encoder_way)
        for each in passes:
            targets = {job.target: int(job.target) for job in jobs[each.name].values()}
            loaded = Patchworks.draw(each.image_size, indices, targets)
            turns[each.name] = partial(passing, clip, loaded, jobs[each.name], way)
        for name, (took,) in taking_turns(turns, 1, warm_up=False).items():
            seconds.setdefault(name, []).append(took / in_part)
    ms = {name: spread(taken, 1000, digits=2) for name, taken in seconds.items()}
    by_pass: dict[str, dict[str, Any]] = {
        each.name: {
            "runs": len(each.runs),
            "images": counts[each.dataset],
            "ms": ms[each.name],
            "encoder_passes": round(ms[each.name]["median"] / ms[each.image_size]["median"], 3),
        }
        for each in passes
    }
    total = sum(each["images"] * each["ms"]["median"] for each in by_pass.values()) / 1000
    all_images = sum(counts[name] for name in {each.dataset for each in passes})
    once = all_images * sum(ms[size]["median"] for size in sizes) / 1000
    return {
        "passes": round(total / once, 3),
        "hours": round(total / 3600, 2),
        "hours_of_one_encode_of_all_images_at_both_sizes": round(once / 3600, 2),
        "runs": sum(len(each.runs) for each in passes),
        "pictures_measured": images,
        "encoder_ms": {str(size): ms[size] for size in sizes},
        "by_pass": by_pass,
    }


def planned() -> list[plan.Pass]:
    """The passes of the paper's suite, with the runs that these tables show."""
    suite = plan.load("paper")
    tables = [suite.tables[name] for name in (*TABLES, FIGURE)]
    shown = [cell for table in tables for row in table.rows for cell in row.cells]
    wanted = {run for cell in shown for run in (cell.run, *cell.runs)}
    passes = [
        dataclasses.replace(each, runs={k: run for k, run in each.runs.items() if k in wanted})
        for each in suite.passes.values()
    ]
    return [each for each in passes if each.runs]


def jobs_of(each: plan.Pass, clip: Any, eps: Eps) -> dict[str, Job]:
    """The jobs of a pass, with random words as many as its own, and eps for random weights."""
    jobs = {}
    for name, run in each.runs.items():
        _, owner = names_of(run)
        jobs[name] = job(eps.fitted(run.method), clip, scored_classes(run), owner)
    return jobs


def image_counts() -> dict[str, int]:
    """Images of each dataset."""
    sources = yaml.safe_load((CONF / "sources.yaml").read_text(encoding="utf-8"))
    return {name: dataset["count"] for name, dataset in sources["datasets"].items()}
