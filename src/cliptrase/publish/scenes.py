"""What pictures show: a few images of a suite's dataset with the label maps of its methods.

Computed by the graph that passes use, one image and one thread at a time, so a map is that of the
run; torch is needed for nothing else in this folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.data import open_dataset
from cliptrase.errors import UserError
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.provenance import Stages
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loaded, Loader, target_key
from cliptrase.model.load import Clip
from cliptrase.plan import Plan

Labels = NDArray[np.int64]
Runs = dict[str, dict[str, Any]]  # row of the table → resolved run


@dataclass(frozen=True)
class Scene:
    """One image as the model sees it, its ground truth, and a label map for each row."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    truth: Labels  # (H, W), −1 where nothing is scored
    maps: dict[str, Labels]  # (H, W) each


def shown_runs(suite: Plan) -> list[tuple[str, Runs]]:
    """(benchmark, row → run) of the suite's first table that is not a grid, in its order.

    Raises UserError for a suite that has only grids.
    """
    for table in suite.tables.values():
        if table.kind != "grid" and table.benchmarks:
            cells = [cell for row in table.rows for cell in row.cells if cell.kind == "run"]
            metric = table.metrics[0]
            return [
                (
                    benchmark,
                    {
                        cell.row: suite.runs[cell.run]
                        for cell in cells
                        if (cell.benchmark, cell.metric) == (benchmark, metric)
                    },
                )
                for benchmark in table.benchmarks
            ]
    raise UserError(f"suite {suite.suite} has no table but grids: there is nothing to picture")


def open_scenes(runs: Runs, data: Path) -> Loader:
    """Reads the images of the runs' dataset. Raises UserError where it is not prepared."""
    first = next(iter(runs.values()))
    samples = open_dataset({**first, "data": str(data)}, any_code=True)
    return Loader.of(samples, runs.values(), data)


def truth_map(loaded: Loaded, run: dict[str, Any]) -> Labels:
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
