"""The pictures of a suite: label maps of its first images, and attention beside correlation.

Computed on the prepared dataset by the graph that passes use, one image and one thread at a time,
so a map is that of the run: the only figures that need torch and the model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of, has_background
from cliptrase.data import open_dataset
from cliptrase.data.read.prepared import open_prepared, prepared_folder, read_selfcheck
from cliptrase.errors import UserError, counted, nearest
from cliptrase.evaluate.counting import labels_of
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.passes import shared
from cliptrase.evaluate.protocols import Crop, Jobs
from cliptrase.evaluate.targets import background_of, target_key
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loaded, Loader
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import Clip, load_clip
from cliptrase.plan import Plan, Table
from cliptrase.publish import check_pictured, pictured
from cliptrase.publish.figures.attention import attention_figure, look, patch_classes, shown_patch
from cliptrase.publish.figures.label_maps import Labels, Picture, label_maps
from cliptrase.publish.figures.paper_figures import FIGURES, draw, shown_blocks
from cliptrase.publish.figures.parts import Wanted
from cliptrase.publish.figures.quantities import Quantities, Words, quantities
from cliptrase.publish.figures.style import save
from cliptrase.runs.provenance import Stages
from cliptrase.runs.scoring import class_names

PICTURED = 4  # images: the first of the dataset, so that nobody chose them
ROWS = 3  # of the correlation figure
RANKED = 40  # images over which it averages
MOST = max(figure.most for figure in FIGURES.values())


@dataclass(frozen=True)
class Shown:
    """The runs of a table's rows on one benchmark; `first` stands for what they have in common."""

    benchmark: str
    runs: dict[str, Run]  # by row

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))

    @property
    def clustered(self) -> Run | None:
        """The first run that clusters CLIP's correlation, if the model sees its pictures whole."""
        runs = [run for run in self.runs.values() if _clip_correlates(run)]
        return None if not runs or facts_of(runs[0]).whole_pictures else runs[0]

    def is_prepared(self, data: Path) -> bool:
        """Whether the images can be read; a user's folder always can."""
        benchmark = self.first.benchmark
        check = read_selfcheck(prepared_folder(benchmark.dataset, data))
        return benchmark.folder is not None or check is not None

    def loader(self, data: Path) -> Loader:
        """Reads the images. Raises UserError where the dataset is not prepared."""
        samples = open_dataset(self.first, data, any_code=True)
        return Loader.of(samples, self.runs.values(), data)


def _clip_correlates(run: Run) -> bool:
    return run.method.regions is not None and run.method.regions.source == "clip"


def shown_runs(suite: Plan) -> list[Shown]:
    """The benchmarks of the suite's first table that is not a grid, in its order.

    Shown are the rows that see what the first sees. Raises UserError for a suite that has
    only grids.
    """
    table = next(iter(pictured(suite).values()))
    shown = {name: _runs_of(suite, table, name) for name in table.benchmarks}
    return [Shown(name, _like_the_first(runs)) for name, runs in shown.items()]


def chosen_runs(
    suite: Plan, benchmark: str, table: str | None = None, rows: Sequence[str] = ()
) -> Shown:
    """Some rows of a table on a benchmark: by default those of the first table that has it, which
    see what the first sees.

    Raises UserError for a table, benchmark or row that is not there, and for rows that do not see
    the same.
    """
    check_pictured(suite, benchmark, table)
    tables = pictured(suite)
    looked_at = [tables[table]] if table is not None else list(tables.values())
    runs: dict[str, Run] = {}
    for each in looked_at:
        runs = runs or _runs_of(suite, each, benchmark)
    if not runs:
        names = ", ".join(each.name for each in looked_at)
        raise UserError(f"benchmark {benchmark}: no run on it to picture in {names}")
    for row in rows:
        if row not in runs:
            raise UserError(f"no row {row!r} to picture on {benchmark}; {nearest(row, runs)}")
    if not rows:
        return Shown(benchmark, _like_the_first(runs))
    chosen = {row: runs[row] for row in rows}
    if other := next((row for row in rows if row not in _like_the_first(chosen)), None):
        raise UserError(
            f"rows {rows[0]!r} and {other!r} do not see the same: another image size, model, "
            "protocol or ground truth; draw them one after the other"
        )
    return Shown(benchmark, chosen)


def _like_the_first(runs: dict[str, Run]) -> dict[str, Run]:
    """Those that see the same pictures and ground truth as the first."""
    seen = {name: (shared(run), target_key(run)) for name, run in runs.items()}
    return {name: run for name, run in runs.items() if seen[name] == next(iter(seen.values()))}


def _runs_of(suite: Plan, table: Table, benchmark: str) -> dict[str, Run]:
    """Row → run on a benchmark; not those of unsupervised methods, whose classes a few images do
    not decide, of label maps from files, and with distractors, which are no class. A row that
    several groups have is named with its group."""
    rows = [row for row in table.rows if row.kind == "run"]
    names = [row.name for row in rows]
    return {
        row.name if names.count(row.name) == 1 else f"{row.name}, {row.group}": suite.runs[cell.run]
        for row in rows
        for cell in row.cells
        if (cell.kind, cell.benchmark, cell.metric) == ("run", benchmark, table.metrics[0])
        and suite.runs[cell.run].method.unsupervised is None
        and suite.runs[cell.run].method.digest is None
        and suite.runs[cell.run].vocabulary.distractors is None
    }


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


def explained(
    clip: Clip, run: Run, loader: Loader, positions: Iterable[int], data: Path
) -> Iterator[Quantities]:
    """What the run makes of the images at some positions, on its way; the patch that is shown is
    the middle of the smallest class, if one fills enough patches."""
    jobs = jobs_of({run.name: run}, clip, data)
    words = Words(jobs[run.name].text, tuple(class_names(run)), background_of(run))
    for position in positions:
        loaded = loader(position)
        yield quantities(
            graph_of(clip, loader, loaded, jobs),
            run.method,
            loader.dataset[position].id,
            loaded.shown.pixels,
            words=words,
            logit_scale=run.protocol.logit_scale,
            patch=shown_patch(patch_classes(truth_map(loaded, run), clip.patch)),
        )


def graph_of(clip: Clip, loader: Loader, loaded: Loaded, jobs: Jobs) -> Graph:
    """What everything that is shown of an image comes from; the model sees it whole."""
    assert isinstance(loader.protocol, Crop)
    return loader.protocol.graph(clip, [loaded.shown], jobs)


def jobs_of(runs: Mapping[str, Run], clip: Clip, data: Path) -> Jobs:
    """What a pass does for the runs; they share their networks."""
    networks = load_networks(chain(*(run.method.networks for run in runs.values())), clip.device)
    return {row: Job.of(run, *text_of(run, clip, data), networks) for row, run in runs.items()}


def truth_map(loaded: Loaded, run: Run) -> Labels:
    """The ground truth (H, W) of a run, −1 where nothing is scored."""
    size = loaded.shown.out_size
    return labels_of(loaded.truths[target_key(run)], size).astype(np.int64).reshape(size)


def predicted(clip: Clip, loader: Loader, jobs: Jobs, loaded: Loaded, run: Run) -> Picture:
    """An image with the maps of all the runs, and the ground truth of one."""
    with torch.inference_mode():
        maps = loader.protocol.maps(clip, [loaded.shown], jobs, 1, Stages())
    labels = {row: each.classes[0].astype(np.int64) for row, each in maps.items()}
    return Picture(loaded.shown.pixels, truth_map(loaded, run), labels)
