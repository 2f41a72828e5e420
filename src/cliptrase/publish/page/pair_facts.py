"""What the page says of pairs of runs: every two of the same images, compared."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptrase.config.metric_names import METRICS
from cliptrase.publish import run_pairs
from cliptrase.publish.page.run_facts import MOST, Read
from cliptrase.publish.run_folders import Facts, Folder
from cliptrase.publish.run_pairs import Scored
from cliptrase.runs import bootstrap

QUANTILES = [bootstrap.LOW, bootstrap.MIDDLE, bootstrap.HIGH]


def groups_of(read: Mapping[str, Read]) -> Iterator[Facts]:
    """Runs that may be compared image by image, as `run_pairs.compare` refuses others, with all
    their pairs."""
    alike: dict[str, list[str]] = {}
    for name, each in read.items():
        alike.setdefault(each.truth, []).append(name)
    for names in alike.values():
        first = Folder(read[names[0]].path)
        yield {
            "runs": names,
            "images": first.counts.ids.tolist(),
            "classes": first.names,
            **_pairs([read[name] for name in names]),
        }


def _pairs(read: Sequence[Read]) -> Facts:
    """Each run less each that follows it, and the other way round where their rules differ, as
    `run_pairs.compare` has them, rounded as the command prints them.

    A pair is [number of its notes; gap, low, high, … of each metric, in hundredths; better, worse:
    how many images; image, value, other, difference, … of the images that differ most, in tenths].
    """
    runs = [Folder(each.path) for each in read]  # for what is small: metrics and provenance
    rules = [run.metrics["rule"] for run in runs]
    noted: dict[tuple[str, ...], int] = {(): 0}
    pairs: list[list[Any]] = []

    @cache
    def scored(place: int, rule: str) -> Scored:
        own = rule == rules[place]
        return read[place].scored if own else run_pairs.scored(Folder(read[place].path), rule)

    for place, rule in enumerate(rules):
        others = [
            other
            for other, its in enumerate(rules)
            if other > place or (its != rule and other != place)
        ]
        rows = _less(scored(place, rule), [scored(other, rule) for other in others])
        for other, row in zip(others, rows, strict=True):
            notes = tuple(run_pairs.notes(runs[place], runs[other]))
            pairs.append([noted.setdefault(notes, len(noted)), *row])
    return {"pairs": pairs, "notes": [list(notes) for notes in noted]}


def _less(run: Scored, others: Sequence[Scored]) -> Iterator[list[int | None]]:
    """`run` less each of the others, as a pair of `_pairs` after its notes."""
    if not others:
        return
    gaps = {metric: _gaps(run, others, metric) for metric in METRICS}
    for place, other in enumerate(others):
        pair = [_rounded(value, 2) for metric in METRICS for value in gaps[metric][place]]
        difference = run.by_image - other.by_image
        pair += [int((difference > 0).sum()), int((difference < 0).sum())]
        for image in run_pairs.by_difference(run.by_image, other.by_image)[:MOST]:
            if difference[image]:
                values = (run.by_image[image], other.by_image[image], difference[image])
                pair += [int(image), *(_rounded(value, 1) for value in values)]
        yield pair


def _gaps(run: Scored, others: Sequence[Scored], metric: str) -> NDArray[np.float64]:
    """The paired differences to the others with their intervals, (others, 3), as
    `bootstrap.difference`, of all at once."""
    values = np.stack([run.resampled[metric] - other.resampled[metric] for other in others])
    if np.isnan(values).any():
        return np.array(
            [
                bootstrap.difference(
                    run.points[metric],
                    run.resampled[metric],
                    other.points[metric],
                    other.resampled[metric],
                )
                for other in others
            ]
        )
    gap = np.array([run.points[metric] - other.points[metric] for other in others])
    low, middle, high = np.quantile(values, QUANTILES, axis=1)
    return np.stack([gap, gap + (low - middle), gap + (high - middle)], axis=1)


def _rounded(value: float, digits: int) -> int | None:
    """The digits that the command prints, without the point; None for no number."""
    return None if np.isnan(value) else int(f"{value:.{digits}f}".replace(".", ""))
