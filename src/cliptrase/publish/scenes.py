"""What pictures show: a few images of a suite's dataset with the label maps of its methods.

Computed by the graph that passes use, one image and one thread at a time, so a map is that of the
run; torch is needed for nothing else in this folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loaded, Loader, target_key
from cliptrase.model.load import Clip
from cliptrase.plan import Plan, Table
from cliptrase.runs.provenance import Stages

Labels = NDArray[np.int64]
Runs = dict[str, Run]  # row of the table → resolved run


@dataclass(frozen=True)
class Scene:
    """One image as the model sees it, its ground truth, and a label map for each row."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    truth: Labels  # (H, W), −1 where nothing is scored
    maps: dict[str, Labels]  # (H, W) each


def shown_runs(suite: Plan) -> list[tuple[str, Runs]]:
    """(benchmark, row → run) of the suite's first table that is not a grid, in its order.

    A row that several groups have is named with its group. Shown are the rows that see what the
    first sees: of its image size, its model and precision. Raises UserError for a suite that has
    only grids.
    """
    for table in suite.tables.values():
        if table.kind != "grid" and table.benchmarks:
            return [
                (benchmark, _runs_of(suite, table, benchmark)) for benchmark in table.benchmarks
            ]
    raise UserError(f"suite {suite.suite} has no table but grids: there is nothing to picture")


def _runs_of(suite: Plan, table: Table, benchmark: str) -> Runs:
    rows = [row for row in table.rows if row.kind == "run"]
    names = [row.name for row in rows]
    found = {
        row.name if names.count(row.name) == 1 else f"{row.name}, {row.group}": suite.runs[cell.run]
        for row in rows
        for cell in row.cells
        if (cell.kind, cell.benchmark, cell.metric) == ("run", benchmark, table.metrics[0])
    }
    shown = [(run["model"], run["image_size"]) for run in found.values()]
    return {
        name: run for (name, run), one in zip(found.items(), shown, strict=True) if one == shown[0]
    }


def open_scenes(runs: Runs, data: Path) -> Loader:
    """Reads the images of the runs' dataset. Raises UserError where it is not prepared."""
    first = next(iter(runs.values()))
    samples = open_dataset(first, data, any_code=True)
    return Loader.of(samples, runs.values(), data)


def truth_map(loaded: Loaded, run: Run) -> Labels:
    """The ground truth (H, W) of a run, −1 where nothing is scored."""
    truth = loaded.truths[target_key(run)]
    labels = np.full(loaded.out_size, -1, np.int64).reshape(-1)
    if truth is not None:
        scored = slice(None) if truth.scored is None else truth.scored
        labels[scored] = truth.rows // truth.classes
    return labels.reshape(loaded.out_size)


def graph_of(clip: Clip, loaded: Loaded) -> Graph:
    """The graph of one image that the model sees whole (protocol crop)."""
    return Graph(clip, clip.normalise(loaded.pixels[None]), loaded.out_size)


def predict(clip: Clip, runs: Runs, loader: Loader, position: int, data: Path) -> Scene:
    """The image at one position with the maps of all the runs."""
    loaded = loader(position)
    jobs = {row: Job.of(run, *text_of(run, clip, data)) for row, run in runs.items()}
    with torch.inference_mode():
        maps = loader.protocol.maps(clip, [loaded.shown], jobs, 1, Stages())
    truth = truth_map(loaded, next(iter(runs.values())))
    return Scene(
        loaded.pixels, truth, {row: found[0].astype(np.int64) for row, found in maps.items()}
    )
