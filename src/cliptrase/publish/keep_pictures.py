"""Keeps the pictures of a suite's page: ground truth, label maps, attention and correlation of a
few images of each benchmark. The page only reads them.

`python -m cliptrase.publish pictures SUITE`, or `cliptrase pictures SUITE`. Predicted on the CPU by
the graph that passes use, one image and one thread at a time; a map that has not the pixel counts
that its run has for the image is said to differ.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliptrase.errors import UserError, exit_on_user_error, start_log
from cliptrase.files import write_json
from cliptrase.plan import Plan
from cliptrase.publish import page_pictures
from cliptrase.publish.page_pictures import STEPS, Kept
from cliptrase.publish.results import Shelf
from cliptrase.publish.run_report import Folder, scored
from cliptrase.publish.tables import add_benchmarks, command_line, planned

log = logging.getLogger(__name__)
CHOOSING = "cliptrase"  # the method whose scores choose; else that of the last row


def keep(suite: Plan, shelf: Shelf, data: Path) -> dict[str, str]:
    """Write the file of each benchmark of the suite's table of pictures; returns benchmark → why
    it has none, "" where it has."""
    table = suite.tables[suite.pictures]
    reasons = {}
    for benchmark in table.benchmarks:
        try:
            path = page_pictures.file_of(shelf.results, suite.suite, benchmark)
            page_pictures.write(path, _kept(suite, shelf, benchmark, data))
            reasons[benchmark] = ""
        except UserError as error:
            reasons[benchmark] = str(error)
    return reasons


def _kept(suite: Plan, shelf: Shelf, benchmark: str, data: Path) -> Kept:
    """The pictures of one benchmark. Raises UserError where a run, the data or the model lacks."""
    import torch

    from cliptrase.evaluate.device import single_threaded_pool
    from cliptrase.evaluate.graph import Graph
    from cliptrase.evaluate.targets import background_of
    from cliptrase.model.load import load_clip
    from cliptrase.publish.pictures import Shown, predict, runs_of
    from cliptrase.publish.quantities import CLUSTERED, USUAL
    from cliptrase.runs.scoring import class_names

    shown = Shown(benchmark, runs_of(suite, suite.tables[suite.pictures], benchmark))
    if not shown.runs:
        raise UserError("the table has no run that sees pictures whole")
    found, reason = shelf.find_all([run.name for run in shown.runs.values()])
    if reason:
        raise UserError(reason)
    folders = [Folder(each.folder) for each in found]
    by_run = [scored(folder, folder.metrics["rule"]).by_image for folder in folders]
    methods = [run.method.name for run in shown.runs.values()]
    chooser = methods.index(CHOOSING) if CHOOSING in methods else -1
    ids = folders[0].counts.ids.tolist()
    chosen = page_pictures.chosen(ids, by_run[chooser])
    if not chosen:
        raise UserError("no image is scored")
    pictures, maps, attention, correlation = [], [], [], []
    with single_threaded_pool(1), torch.inference_mode():
        clip, loader = load_clip(shown.first.model, torch.device("cpu")), shown.loader(data)
        for position, _ in chosen:
            picture = predict(clip, shown, loader, position, data)
            seen = loader(position).shown
            graph = Graph(clip, clip.normalise(seen.pixels[None]), seen.out_size)
            grid = graph.grid
            pictures.append(picture)
            maps.append([*picture.maps.values()])
            attention.append(graph.attention(clip.depth - 1)[0, 1:, 1:].float().numpy())
            weights = graph.correlation(CLUSTERED, USUAL.kind)
            correlation.append(weights[0, 1:, 1:].float().numpy())
    stacked = np.array(maps).swapaxes(0, 1)
    for folder, labels in zip(folders, stacked, strict=True):
        truths = [picture.truth for picture in pictures]
        differ = [
            ids[place]
            for (place, _), truth, label in zip(chosen, truths, labels, strict=True)
            if not _is_counted(folder, place, truth, label)
        ]
        if differ:
            raise UserError(
                f"{folder.path.name}: predicted again, its map of {differ[0]} has other pixel "
                "counts than the run; make the run again with this code on this machine"
            )
    top = np.array([each.max() for each in attention], np.float32)
    return Kept(
        {
            "benchmark": benchmark,
            "grid": grid,
            "runs": [
                {
                    "row": row,
                    "run": run.name,
                    "counts": page_pictures.counts_digest(folder.path),
                }
                for (row, run), folder in zip(shown.runs.items(), folders, strict=True)
            ],
            "names": class_names(shown.first),
            "background": background_of(shown.first),
            "pictures": [
                {"id": ids[place], "why": why, "scores": [float(each[place]) for each in by_run]}
                for place, why in chosen
            ],
        },
        np.stack([picture.pixels for picture in pictures]),
        np.stack([picture.truth for picture in pictures]).astype(np.int16),
        stacked.astype(np.int16),
        np.rint(np.stack(attention) / top[:, None, None] * STEPS).astype(np.uint8),
        top,
        np.rint((np.stack(correlation).clip(-1, 1) + 1) / 2 * STEPS).astype(np.uint8),
    )


def _is_counted(
    folder: Folder, place: int, truth: NDArray[np.int64], labels: NDArray[np.int64]
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
    parser = command_line("pictures", __doc__)
    add_benchmarks(parser)
    args = parser.parse_args(arguments)
    start_log("warning: %(message)s")
    suite, shelf = planned(args)
    if not suite.pictures:
        raise UserError(f"conf/suite/{suite.suite}.yaml names no table under `pictures`")
    import cliptrase.model.lean  # noqa: F401

    reasons = keep(suite, shelf, args.data or Path(suite.data))
    for benchmark, reason in reasons.items():
        if reason:
            log.warning("no pictures of %s: %s", benchmark, reason)
    write_json(args.results / suite.suite / "pictures" / "kept.json", reasons)
    print(args.results / suite.suite / "pictures")
