"""The pictures of a suite: label maps of its first images, attention beside correlation, and the
paper's figures. The only figures that need torch and the model.
"""

from pathlib import Path

import torch

from cliptrase.config.kinds import has_background
from cliptrase.data.read.prepared import open_prepared
from cliptrase.errors import counted
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.targets import background_of
from cliptrase.model.load import Clip, load_clip
from cliptrase.plan import Plan
from cliptrase.publish.figures.attention import attention_figure, look
from cliptrase.publish.figures.label_maps import label_maps
from cliptrase.publish.figures.paper_figures import FIGURES, draw, shown_blocks
from cliptrase.publish.figures.parts import Wanted
from cliptrase.publish.figures.predicted import explained, graph_of, jobs_of, predicted, truth_map
from cliptrase.publish.figures.shown_runs import Shown, shown_runs
from cliptrase.publish.figures.style import save
from cliptrase.runs.scoring import class_names

PICTURED = 4  # images: the first of the dataset, so that nobody chose them
ROWS = 3  # of the correlation figure
RANKED = 40  # images over which it averages
MOST = max(figure.most for figure in FIGURES.values())


def draw_pictures(suite: Plan, folder: Path, data: Path) -> list[Path]:
    """Write label_maps, correlation (svg, png) and the paper's figures (npz too) to `folder`.

    Of the suite's first benchmark whose dataset is prepared. The correlation takes the first
    without a background, if there is one: there every pixel has a class of its own kind; it is
    drawn where the model sees a picture whole, that is not under protocol slide. Raises
    UserError where no dataset is prepared or the model cannot be had.
    """
    shown = shown_runs(suite)
    prepared = [each for each in shown if each.is_prepared(data)]
    if not prepared:
        open_prepared(shown[0].first.benchmark.dataset, data)  # its error says how to prepare it
    plain = [each for each in prepared if not has_background(each.first)]
    with single_threaded_pool(1):  # as in a pass, so that the maps are those of the runs
        clip = load_clip(prepared[0].first.model, torch.device("cpu"))
        paths = _draw_label_maps(clip, prepared[0], folder, data)
        paths += _draw_correlation(clip, (plain or prepared)[0], folder, data)
        return paths + _draw_paper_figures(clip, prepared[0], folder, data)


def draw_label_maps(
    shown: Shown, folder: Path, data: Path, name: str, count: int | None = None
) -> list[Path]:
    """Write label maps of some runs as <folder>/<name>.svg and .png, of the first `count` images.

    Raises UserError as `draw_pictures`.
    """
    with single_threaded_pool(1):
        clip = load_clip(shown.first.model, torch.device("cpu"))
        return _draw_label_maps(clip, shown, folder, data, name, count or PICTURED)


def _draw_label_maps(
    clip: Clip,
    shown: Shown,
    folder: Path,
    data: Path,
    name: str = "label_maps",
    count: int = PICTURED,
) -> list[Path]:
    loader, run, jobs = shown.loader(data), shown.first, jobs_of(shown.runs, clip, data)
    loaded = map(loader, range(min(count, len(loader.dataset))))
    pictures = [predicted(clip, loader, jobs, each, run) for each in loaded]
    title = f"The first images of {shown.benchmark} · {clip.label} · {run.image_size} px"
    figure = label_maps(pictures, class_names(run), background_of(run), title)
    return save(figure, folder, name)


def _draw_correlation(clip: Clip, shown: Shown, folder: Path, data: Path) -> list[Path]:
    loader, run = shown.loader(data), shown.clustered
    if run is None:
        return []
    count = min(RANKED, len(loader.dataset))
    looks = [
        look(graph_of(clip, loader, each, {}), each.shown.pixels, run, truth_map(each, run))
        for each in map(loader, range(count))
    ]
    title = (
        f"{shown.benchmark} · {clip.label} · {run.image_size} px · "
        f"AUC: how well each patch ranks its own class first, mean over {counted(count, 'image')}"
    )
    return save(attention_figure(looks, ROWS, title), folder, "correlation")


def _draw_paper_figures(clip: Clip, shown: Shown, folder: Path, data: Path) -> list[Path]:
    loader, run = shown.loader(data), shown.clustered
    if run is None:
        return []
    count = min(MOST, len(loader.dataset))
    pictures = list(explained(clip, run, loader, range(count), data))
    about = f"{shown.benchmark} · {clip.label} · {run.image_size} px"
    wanted = Wanted(about, shown_blocks(clip.depth))
    return draw(list(FIGURES), pictures, wanted, folder, all_pictures=False)
