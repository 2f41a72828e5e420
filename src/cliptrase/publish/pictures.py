"""The pictures of a suite: label maps of its first images, and attention beside correlation.

Computed on the prepared dataset, so the only figures that need torch and the model.
"""

from __future__ import annotations

from pathlib import Path

import torch

from cliptrase.config import Run
from cliptrase.data.read.prepared import open_prepared, prepared_folder, read_selfcheck
from cliptrase.evaluate.targets import has_background, scored_classes, whole_pictures
from cliptrase.evaluate.threads import single_threaded_pool
from cliptrase.model.load import Clip, load_clip
from cliptrase.plan import Plan
from cliptrase.publish.attention import attention_figure, look
from cliptrase.publish.label_maps import label_maps
from cliptrase.publish.scenes import Runs, open_scenes, predict, shown_runs
from cliptrase.publish.style import save
from cliptrase.runs.scoring import class_names

LABEL_MAPS, CORRELATION = "label_maps", "correlation"
SCENES = 4  # pictured: the first of the dataset, so that nobody chose them
ROWS = 3  # of the correlation figure
RANKED = 40  # images over which it averages


def draw_pictures(suite: Plan, folder: Path, data: Path) -> list[Path]:
    """Write label_maps and correlation (svg, png) to `folder`.

    Of the suite's first benchmark whose dataset is prepared. The correlation takes the first
    without a background, if there is one: there every pixel has a class of its own kind; it is
    drawn where the model sees a picture whole, that is not under protocol slide. Raises
    UserError where no dataset is prepared or the model cannot be had.
    """
    shown = shown_runs(suite)
    prepared = [one for one in shown if _is_prepared(one[1], data)]
    if not prepared:
        open_prepared(_first(shown[0][1])["benchmark"]["dataset"], data)  # says how to prepare it
    plain = [one for one in prepared if not has_background(_first(one[1]))]
    with single_threaded_pool(1):  # as in a pass, so that the maps are those of the runs
        clip = load_clip(_first(prepared[0][1])["model"], torch.device("cpu"))
        paths = _draw_label_maps(clip, *prepared[0], folder, data)
        return paths + _draw_correlation(clip, *(plain or prepared)[0], folder, data)


def _draw_label_maps(
    clip: Clip, benchmark: str, runs: Runs, folder: Path, data: Path
) -> list[Path]:
    loader, first = open_scenes(runs, data), _first(runs)
    scenes = [predict(clip, runs, loader, i, data) for i in range(min(SCENES, len(loader.dataset)))]
    title = f"The first images of {benchmark} · {clip.label} · {first['image_size']} px"
    figure = label_maps(scenes, class_names(first), _background(first), title)
    return save(figure, folder, LABEL_MAPS)


def _draw_correlation(
    clip: Clip, benchmark: str, runs: Runs, folder: Path, data: Path
) -> list[Path]:
    loader = open_scenes(runs, data)
    clustered = [run for run in runs.values() if run["method"]["regions"] is not None]
    if not clustered or whole_pictures(clustered[0]):
        return []
    count = min(RANKED, len(loader.dataset))
    looks = [look(clip, loader, clustered[0], i) for i in range(count)]
    title = (
        f"{benchmark} · {clip.label} · {clustered[0]['image_size']} px · "
        f"AUC: how well each patch ranks its own class first, mean over {count} images"
    )
    return save(attention_figure(looks, ROWS, title), folder, CORRELATION)


def _background(run: Run) -> int | None:
    """The index of the background among the scored classes, None where there is none."""
    if not has_background(run):
        return None
    return 0 if whole_pictures(run) else scored_classes(run) - 1


def _is_prepared(runs: Runs, data: Path) -> bool:
    benchmark = _first(runs)["benchmark"]
    return (
        "folder" in benchmark
        or read_selfcheck(prepared_folder(benchmark["dataset"], data)) is not None
    )


def _first(runs: Runs) -> Run:
    return next(iter(runs.values()))
