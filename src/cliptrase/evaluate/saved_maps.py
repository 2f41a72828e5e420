"""The label maps that runs keep, of the first pictures that they score, which are streamed again.

A run's maps are made once its numbers stand, and change none of them. What says that they are
complete is written last.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.data.read.ordered import in_order_by
from cliptrase.errors import UserError, counted
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.evaluate.from_files import FilePredictor
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.protocols import Maps
from cliptrase.evaluate.targets import background_of, surplus_of
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.files import atomic_write, write_json
from cliptrase.machine import cores
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.runs import finished, scoring, store, unsupervised
from cliptrase.runs.counts import RegionCounts
from cliptrase.runs.finished import LEGEND, MAPS
from cliptrase.runs.label_files import GREY, colours, labels_png, legend_png
from cliptrase.runs.provenance import Stages

log = logging.getLogger(__name__)


def save_maps(
    runs: Mapping[str, Run],
    *,
    out: Path | str,
    data: Path | str,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    freeze_code: bool = False,
) -> None:
    """Write the label maps that finished runs of one pass ask for and do not have.

    The same options as `run_pass`; pictures are computed one by one, also on a GPU, whatever the
    `batch_size`. Raises UserError as that does.
    """
    todo = finished.without_maps(runs, out, data, freeze_code=freeze_code)
    if not todo:
        return
    with (
        computing_on(device, alone=True) as chosen,
        single_threaded_pool(workers or cores()) as pool,
    ):
        kept = {name: _Kept(run, Path(out) / name) for name, run in todo.items()}
        _stream(kept, Path(data), chosen, workers or cores(), pool, freeze_code)
    for each in kept.values():
        each.seal()
    log.info("label maps of %s written to %s", counted(len(kept), "run"), out)


def _stream(
    kept: Mapping[str, "_Kept"],
    data: Path,
    device: torch.device,
    workers: int,
    pool: Executor,
    any_code: bool,
) -> None:
    """Predict each picture that a run keeps, for all runs that do, and write its maps."""
    runs = {name: each.run for name, each in kept.items()}
    first = next(iter(runs.values()))
    dataset = open_dataset(first, data, any_code=any_code)
    loader = Loader.of(dataset, runs.values(), data)
    positions = sorted(set[int]().union(*(each.positions for each in kept.values())))
    if first.method.digest is not None:  # of files
        given = FilePredictor.of(loader, dataset.ids, runs, Stages())
        for position in positions:
            labels = given.labels(position)
            for each in kept.values():
                if position in each.positions:
                    each.write(position, labels)
        return
    clip = load_clip(first.model, device)
    networks = load_networks(chain(*(run.method.networks for run in runs.values())), device)
    words = {name: run.vocabulary.model_dump_json() for name, run in runs.items()}
    alike = {words[name]: run for name, run in runs.items()}
    texts = {key: text_of(run, clip, data, workers) for key, run in alike.items()}
    jobs = {name: Job.of(run, *texts[words[name]], networks) for name, run in runs.items()}
    predictor = Predictor(clip, loader, jobs, Stages(), 1)

    def predicted(position: int) -> tuple[int, Maps]:
        return position, predictor.first([position], 1)[1]

    results: Iterator[tuple[int, Maps]] = map(predicted, positions)
    if device.type == "cpu":
        results = in_order_by(pool, predicted, positions, ahead=2 * workers)
    for position, maps in results:
        for name, each in kept.items():
            if position in each.positions:
                each.write(position, maps[name].classes[0])


class _Kept:
    """The label maps of one run, in its folder."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.names = scoring.class_names(run) + ["a distractor"] * surplus_of(run)
        self.background = background_of(run)
        self.table: NDArray[np.uint8] | None = None  # as many colours as there are names
        if len(self.names) <= 255:
            self.table = colours(len(self.names))
            if self.background is not None:
                self.table[self.background] = GREY
        self.none = 255 if self.table is not None else 65535  # of a pixel without a class
        counts = scoring.read_counts(folder)
        self.positions = frozenset(np.flatnonzero(~counts.skipped)[: run.save_maps].tolist())
        self.ids = counts.ids
        self.of_regions = _classes(run, folder, self.none) if run.method.unsupervised else None
        self.seen: set[int] = set()
        self.files: list[str] = []

    def write(self, position: int, labels: NDArray[np.integer]) -> None:
        """Write the label map (H, W) of the picture at a position of the dataset, of an
        unsupervised run from the region of every pixel."""
        if self.of_regions is not None:
            labels = self._by_region(position, labels)
        self.seen |= {int(label) for label in np.unique(labels) if label != self.none}
        name = f"{MAPS}/{self.ids[position]}.png"
        with atomic_write(self.folder / name) as file:
            file.write(labels_png(labels, len(self.names), self.table))
        self.files.append(name)

    def seal(self) -> None:
        """Write the legend, then that all maps are there."""
        picture, words = (self.folder / name for name in LEGEND)
        with atomic_write(picture) as file:
            file.write(legend_png(sorted(self.seen), self.names, self.table))
        write_json(words, {"classes": self.names, "background": self.background})
        store.seal_maps(self.folder, self.run.save_maps, [*self.files, *LEGEND])

    def _by_region(self, position: int, regions: NDArray[np.integer]) -> NDArray[np.integer]:
        """The class of every pixel, of the region of every pixel (H, W) of an unsupervised run."""
        assert self.of_regions is not None
        image, classes = self.of_regions
        own, (numbers, place) = classes[image == position], np.unique(regions, return_inverse=True)
        if len(own) != len(numbers):
            raise UserError(
                f"{self.folder}: image {self.ids[position]} has {counted(len(numbers), 'region')} "
                f"here and {len(own)} in {finished.REGIONS}; make its maps on the same device"
            )
        return own[place].reshape(regions.shape)


def _classes(run: Run, folder: Path, none: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Of each region of an unsupervised run: its image and its class, `none` where it gets none."""
    assert run.method.unsupervised is not None
    with np.load(folder / finished.REGIONS, allow_pickle=False) as file:
        regions = RegionCounts(**file)
    k, count = regions.g.shape[1], run.method.unsupervised.clusters
    count = count if isinstance(count, int) else k
    clusters = unsupervised.clustered(regions, count)
    of_cluster = unsupervised.matched(unsupervised.shared_pixels(clusters, regions.g, count))
    return regions.image, np.where(of_cluster == k, none, of_cluster)[clusters]
