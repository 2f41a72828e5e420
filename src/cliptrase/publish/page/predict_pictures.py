"""Keeps the pictures of a suite's page: ground truth, label maps, attention and correlation of a
few images of each benchmark. The page only reads them.

`python -m cliptrase.publish pictures SUITE`, or `cliptrase pictures SUITE`. Predicted on the CPU by
the graph that passes use, one image and one thread at a time; a map must have the pixel counts that
its run has for the image.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.errors import UserError, exit_on_user_error, start_log
from cliptrase.files import write_json
from cliptrase.plan import Plan
from cliptrase.publish.command_line import add_benchmarks as add_options
from cliptrase.publish.command_line import command_line, planned
from cliptrase.publish.digests import remember
from cliptrase.publish.page import kept_pictures
from cliptrase.publish.page.kept_pictures import STEPS, Kept
from cliptrase.publish.results import Shelf
from cliptrase.publish.run_folders import Folder
from cliptrase.publish.run_pairs import by_image

if TYPE_CHECKING:
    from cliptrase.publish.figures.shown_runs import Shown

log = logging.getLogger(__name__)
CHOOSING = "cliptrase"  # the method whose scores choose; else that of the last row


def keep(suite: Plan, shelf: Shelf, data: Path) -> dict[str, str]:
    """Write the file of each benchmark of the suite's table of pictures; returns benchmark → why
    it has none, "" where it has."""
    table = suite.tables[suite.pictures]
    reasons = {}
    for benchmark in table.benchmarks:
        try:
            path = kept_pictures.file_of(shelf.results, suite.suite, benchmark)
            kept_pictures.write(path, _kept(suite, shelf, benchmark, data))
            reasons[benchmark] = ""
        except UserError as error:
            reasons[benchmark] = str(error)
    return reasons


def _kept(suite: Plan, shelf: Shelf, benchmark: str, data: Path) -> Kept:
    """The pictures of one benchmark. Raises UserError where a run, the data or the model lacks."""
    from cliptrase.config.kinds import facts_of
    from cliptrase.evaluate.targets import background_of  # torch: after what fails quickly
    from cliptrase.publish.figures.shown_runs import chosen_runs
    from cliptrase.runs.scoring import class_names

    shown = chosen_runs(suite, benchmark, suite.pictures)
    found, reason = shelf.find_all([run.name for run in shown.runs.values()])
    if reason:
        raise UserError(reason)
    if facts_of(shown.first).whole_pictures:
        raise UserError("its runs see a picture in windows, which have a correlation each")
    folders = [Folder(each.folder) for each in found]
    by_run = [by_image(folder, folder.metrics["rule"]) for folder in folders]
    methods = [run.method.name for run in shown.runs.values()]
    chooser = methods.index(CHOOSING) if CHOOSING in methods else -1
    ids = folders[0].counts.ids.tolist()
    chosen = kept_pictures.chosen(ids, by_run[chooser])
    if not chosen:
        raise UserError("no image is scored")
    about = {
        "benchmark": benchmark,
        "runs": [
            {"row": row, "run": run.name, "counts": kept_pictures.counts_digest(folder.path)}
            for (row, run), folder in zip(shown.runs.items(), folders, strict=True)
        ],
        "names": class_names(shown.first),
        "background": background_of(shown.first),
        "pictures": [
            {"id": ids[place], "why": why, "scores": [float(each[place]) for each in by_run]}
            for place, why in chosen
        ],
    }
    places = [place for place, _ in chosen]
    kept = _predicted(shown, places, data, about)
    for folder, maps in zip(folders, kept.maps, strict=True):
        for place, truth, labels in zip(places, kept.truth, maps, strict=True):
            if not _is_counted(folder, place, truth, labels):
                raise UserError(
                    f"{folder.path.name}: predicted again, its map of {ids[place]} has other pixel "
                    "counts than the run; make the run again with this code on this machine"
                )
    return kept


def _predicted(shown: "Shown", places: Sequence[int], data: Path, about: dict[str, Any]) -> Kept:
    """What the runs and the model make of the images at some places of the dataset."""
    import torch

    from cliptrase.evaluate.device import single_threaded_pool
    from cliptrase.model.load import load_clip
    from cliptrase.publish.figures.predicted import graph_of, jobs_of, truth_map
    from cliptrase.publish.figures.quantities import CLUSTERED, USUAL

    pixels, truth, maps, attention, correlation = [], [], [], [], []
    with single_threaded_pool(1), torch.inference_mode():
        clip, loader = load_clip(shown.first.model, torch.device("cpu")), shown.loader(data)
        jobs = jobs_of(shown.runs, clip, data)
        for place in places:
            loaded = loader(place)
            graph = graph_of(clip, loader, loaded, jobs)
            pixels.append(loaded.shown.pixels)
            truth.append(truth_map(loaded, shown.first))
            maps.append([job.predict(graph)[0].numpy() for job in jobs.values()])
            attention.append(graph.attention(clip.depth - 1)[0, 1:, 1:].float().numpy())
            weights = graph.correlation(CLUSTERED, USUAL.kind)
            correlation.append(weights[0, 1:, 1:].float().numpy())
    top = np.array([each.max() for each in attention], np.float32)
    return Kept(
        about | {"grid": graph.grid},
        pixels=np.stack(pixels),
        truth=np.stack(truth).astype(np.int16),
        maps=np.stack(maps, axis=1).astype(np.int16),
        attention=np.rint(np.stack(attention) / top[:, None, None] * STEPS).astype(np.uint8),
        attention_top=top,
        correlation=np.rint((np.stack(correlation).clip(-1, 1) + 1) / 2 * STEPS).astype(np.uint8),
    )


def _is_counted(
    folder: Folder, place: int, truth: NDArray[np.int16], labels: NDArray[np.int16]
) -> bool:
    """Whether a label map has the counts that its run has for the image at a place."""
    counts, scored_here = folder.counts, truth >= 0
    classes = counts.gt.shape[1]
    hits = np.bincount(truth[scored_here & (truth == labels)], minlength=classes)
    predicted = np.bincount(labels[scored_here], minlength=classes)
    return bool((hits == counts.tp[place]).all() and (predicted == counts.pred[place]).all())


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the pictures of a suite; a benchmark that has none is a warning."""
    args = command_line("pictures", __doc__, add_options).parse_args(arguments)
    start_log("warning: %(message)s")
    suite, shelf = planned(args)
    if not suite.pictures:
        raise UserError(f"conf/suite/{suite.suite}.yaml names no table under `pictures`")
    import cliptrase.model.lean  # noqa: F401

    reasons = keep(suite, shelf, args.data or Path(suite.data))
    for benchmark, reason in reasons.items():
        if reason:
            log.warning("no pictures of %s: %s", benchmark, reason)
    folder = args.results / suite.suite / "pictures"
    there = [name for name, reason in reasons.items() if not reason]
    remember(folder, (kept_pictures.file_of(args.results, suite.suite, name) for name in there))
    write_json(folder / "kept.json", reasons)
    print(folder)
