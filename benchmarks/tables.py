"""What the paper's tables cost: every pass of the plan, in passes of a bare encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from benchmarks.scenery import Eps, Held, Models, job, patchwork
from benchmarks.timing import Way, encoding, package_way, passing, spread, taking_turns
from cliptrase import config, plan
from cliptrase.data.read.vocabularies import owned_names, read_classes
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.targets import scored_classes
from cliptrase.evaluate.textcache import background_words

TABLES = (
    "table1_main",
    "table2_ablation",
    "table6_metrics_224",
    "table7_metrics_336",
    "fig7_sensitivity",
)


def table_passes(
    models: Models,
    eps: dict[int, Eps],
    encoder_way: Way,
    *,
    images: int,
    parts: int,
    threads: int,
) -> dict[str, Any]:
    """All passes of tables 1, 2, 6, 7 and Figure 7, and bare encodes, on the same pictures.

    They take turns on `parts` parts of the `images` pictures; an image's seconds, the median over
    the parts, count as often as the dataset has images. Text features are there already; reading
    images and starting up do not count.
    """
    clip, each = models.clip, images // parts
    encoded: dict[str, list[float]] = {}
    passed: dict[str, list[float]] = {}
    passes = planned()
    jobs = {one.name: answers(one, clip, eps[one.image_size]) for one in passes}
    sizes = sorted({one.image_size for one in passes})
    for part in range(parts):
        indices = range(part * each, (part + 1) * each)
        turns: dict[str, Callable[[], float]] = {}
        for size in sizes:
            turns[f"encoder {size}"] = _encoding(models, size, indices, encoder_way)
        for one in passes:
            held = Held.patchworks(one.image_size, indices, _truths(jobs[one.name]))
            turns[one.name] = _passing(models, held, jobs[one.name], threads)
        for name, (seconds,) in taking_turns(turns, 1, warm_up=False).items():
            found = encoded if name.startswith("encoder") else passed
            found.setdefault(name, []).append(seconds / each)
    counts = images_of()
    bare = {size: spread(encoded[f"encoder {size}"], 5) for size in sizes}
    by_pass: dict[str, dict[str, Any]] = {}
    for one in passes:
        took = spread(passed[one.name], 5)
        by_pass[one.name] = {
            "runs": len(one.runs),
            "images": counts[one.dataset],
            "ms": {name: round(1000 * s, 2) for name, s in took.items()},
            "encoder_passes": round(took["median"] / bare[one.image_size]["median"], 3),
        }
    datasets = sorted({one.dataset for one in passes})
    total = sum(counts[one.dataset] * by_pass[one.name]["ms"]["median"] for one in passes) / 1000
    once = sum(counts[name] for name in datasets) * sum(bare[size]["median"] for size in sizes)
    return {
        "passes": round(total / once, 3),
        "hours": round(total / 3600, 2),
        "hours_of_one_encode_of_all_images_at_both_sizes": round(once / 3600, 2),
        "runs": sum(len(one.runs) for one in passes),
        "pictures_measured": images,
        "encoder_ms": {
            str(size): {name: round(1000 * s, 2) for name, s in bare[size].items()}
            for size in sizes
        },
        "by_pass": by_pass,
    }


def planned() -> list[plan.Pass]:
    """The passes of the paper's suite, with the runs that TABLES show."""
    suite = plan.load("paper")
    shown = [cell for name in TABLES for row in suite.tables[name].rows for cell in row.cells]
    wanted = {run for cell in shown for run in (cell.run, *cell.runs) if run}
    passes = []
    for one in suite.passes.values():
        runs = {name: run for name, run in one.runs.items() if name in wanted}
        if runs:
            passes.append(
                plan.Pass(one.name, one.dataset, one.model, one.image_size, one.protocol, runs)
            )
    return passes


def answers(one: plan.Pass, clip: Any, eps: Eps) -> dict[str, Job]:
    """The jobs of a pass, with random words as many as its own, and eps for random weights."""
    jobs = {}
    for name, run in one.runs.items():
        vocabulary = run["vocabulary"]
        _, owner = owned_names(
            read_classes(vocabulary["classes"]["path"]), background_words(vocabulary["background"])
        )
        jobs[name] = job(eps.fitted(run["method"]), clip, scored_classes(run), owner)
    return jobs


def images_of() -> dict[str, int]:
    """Images of each dataset."""
    with open(config.files.CONF / "sources.yaml", encoding="utf-8") as file:
        return {name: one["count"] for name, one in yaml.safe_load(file)["datasets"].items()}


def _truths(jobs: dict[str, Job]) -> dict[str, int]:
    return {one.target: int(one.target) for one in jobs.values()}


def _encoding(models: Models, size: int, indices: Sequence[int], way: Way) -> Callable[[], float]:
    pictures = [patchwork(index, size)[0] for index in indices]
    return lambda: encoding(models.clip, models.encoders[size], pictures, way)


def _passing(models: Models, held: Held, jobs: dict[str, Job], threads: int) -> Callable[[], float]:
    way = package_way(models.clip.device, threads)
    return lambda: passing(models.clip, held, jobs, way)
