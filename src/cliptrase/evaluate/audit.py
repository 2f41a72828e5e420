"""What is wrong with an export of label maps: evidence from ground truth and files alone.

Each finding has the score if the fault were mended. What no image shows is not found: where a
method guesses, no order of classes can be told from another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

from cliptrase.config import Run
from cliptrase.config.kinds import has_background
from cliptrase.data import open_dataset
from cliptrase.data.read.crop import nearest_indices
from cliptrase.data.read.predictions import Predictions
from cliptrase.errors import UserError, counted
from cliptrase.evaluate.targets import scored_classes, target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.runs.scoring import class_names

Labels = NDArray[np.int64]
Columns = dict[int, Labels]  # predicted value → (K,) scored pixels by true class

GRID = 48  # places along each side of a map at which maps are compared with one another
TIMES = 1.5  # a mend of the order of labels raises mIoU by this factor
SHIFT, ORDER = 3.0, 1.0  # and by so many per cent: one of all labels, and one of some names
MOVED, STAYED = 0.2, 0.05  # IoU of a value with another class, with its own, where names moved
STEPS = 0.15  # share of the borders that go up or down in steps, where labels were interpolated
SURE = 5.0  # standard errors, where maps are turned
PARTNER = 0.25  # agreement that another image's map has more than an image's own
MANY = 0.3  # share of the images that have another's, from which chance is no reason
TRUE = 0.9999  # share of pixels that no prediction gets right
TURNS: dict[str, Callable[[Labels], Labels]] = {
    "mirrored left to right": lambda labels: labels[:, ::-1],
    "mirrored top to bottom": lambda labels: labels[::-1],
    "turned by 180 degrees": lambda labels: labels[::-1, ::-1],
    "transposed": lambda labels: labels.T,
    "turned by 90 degrees": lambda labels: np.rot90(labels),
    "turned by 270 degrees": lambda labels: np.rot90(labels, 3),
    "transposed along the other diagonal": lambda labels: labels[::-1, ::-1].T,
}  # what makes the right map of one that is so


@dataclass(frozen=True)
class Finding:
    """A fault, what shows it, and mIoU in per cent if it were mended; None where only another
    export can say."""

    fault: str
    evidence: str
    mended: float | None


@dataclass(frozen=True)
class Report:
    """Of an export. score: mIoU in per cent of the maps that can be read, under the rule of the
    run, where what is no class is wrong."""

    images: int
    score: float
    findings: list[Finding]


@dataclass
class _Seen:
    """What the images of an export show together."""

    columns: Columns = field(default_factory=dict)
    halves: tuple[Columns, Columns] = field(default_factory=lambda: ({}, {}))  # of every second
    positions: list[int] = field(default_factory=list)  # of the maps that can be read
    ids: list[str] = field(default_factory=list)
    truths: list[Labels] = field(default_factory=list)  # (GRID, GRID), −1 where not scored
    maps: list[Labels] = field(default_factory=list)  # (GRID, GRID)
    unreadable: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)  # what is said of maps of another size
    steps: int = 0  # borders that go up or down in steps
    borders: int = 0  # with room for a label between


def audit(run: Run, data: Path | str) -> Report:
    """What is wrong with the label maps of a resolved run (`method.path`).

    Raises UserError for a benchmark that is not prepared, label maps of no image, and a folder in
    which no map can be read.
    """
    return _Audit(run, data).report()


class _Audit:
    def __init__(self, run: Run, data: Path | str) -> None:
        self.run, self.key, self.k = run, target_key(run), scored_classes(run)
        dataset = open_dataset(run, data)
        self.load = Loader.of(dataset, [run], data)
        path = Path(str(run.method.path))
        self.maps = Predictions(path, dataset.ids, all_ids=run.limit is None)
        self.ids = dataset.ids
        self.missing = [id for id in dataset.ids if id not in self.maps]

    def report(self) -> Report:
        """Stream the images once, and once more for each fault whose mend needs their pixels."""
        seen = self._seen()
        if not seen.positions:
            raise UserError(f"{self.maps.path}: no label map can be read; {seen.unreadable[0]}")
        findings = list(self._of_files(seen))
        names, mend = self._of_labels(seen.columns, seen.halves)
        findings += names
        findings += self._of_steps(seen)
        findings += self._of_turns(seen, mend)
        findings += self._of_partners(seen, mend)
        return Report(len(seen.positions), self._miou(seen.columns), findings)

    # --- what the images show ---------------------------------------------------------------------

    def _seen(self) -> _Seen:
        seen = _Seen()
        for position, id in enumerate(self.ids):
            if id not in self.maps:
                continue
            scored = self.load.scored(position)
            truth = scored.truths[self.key]
            if truth is None:
                continue
            try:
                stored = self.maps.read(id)[0].astype(np.int64)
            except UserError as error:
                seen.unreadable.append(str(error))
                continue
            if stored.shape != scored.size:
                (height, width), (wanted, wide) = stored.shape, scored.size
                seen.sizes.append(f"{id}: {width} × {height}, not {wide} × {wanted}")
            labels = fitted(stored, scored.size)
            for part in (seen.columns, seen.halves[len(seen.ids) % 2]):
                _add(part, truth, labels)
            steps, borders = interpolated(stored)
            seen.steps, seen.borders = seen.steps + steps, seen.borders + borders
            seen.positions.append(position)
            seen.ids.append(id)
            seen.truths.append(fitted(_truth_map(truth, scored.size), (GRID, GRID)))
            seen.maps.append(fitted(stored, (GRID, GRID)))
        return seen

    def _columns(self, positions: Sequence[int], mend: Callable[[int], Labels]) -> Columns:
        """Of some images, with what `mend` makes of a position as their maps."""
        columns: Columns = {}
        for position in positions:
            scored = self.load.scored(position)
            truth = scored.truths[self.key]
            assert truth is not None
            _add(columns, truth, fitted(mend(position), scored.size))
        return columns

    def _stored(self, position: int) -> Labels:
        return self.maps.read(self.ids[position])[0].astype(np.int64)

    def _miou(self, columns: Columns, mend: Callable[[int], int] = lambda value: value) -> float:
        """mIoU in per cent, each value taken for what `mend` makes of it."""
        matrix = np.zeros((self.k, self.k + 1), np.int64)
        for value, pixels in columns.items():
            label = mend(value)
            matrix[:, label if 0 <= label < self.k else self.k] += pixels
        return float(scores(self.run.protocol.rule, *class_counts(matrix))["mIoU"])

    # --- findings ---------------------------------------------------------------------------------

    def _of_files(self, seen: _Seen) -> Iterator[Finding]:
        if self.missing:
            some = ", ".join(self.missing[:3]) + ", …" * (len(self.missing) > 3)
            evidence = f"{len(self.missing)} of {counted(len(self.ids), 'image')} have none: {some}"
            yield Finding("missing images", evidence, None)
        if seen.unreadable:
            evidence = f"{counted(len(seen.unreadable), 'file')}: {seen.unreadable[0]}"
            yield Finding("unreadable files", evidence, None)
        if seen.sizes:
            evidence = f"{counted(len(seen.sizes), 'map')}, as {seen.sizes[0]}"
            resized = self._miou(seen.columns)  # as they were counted
            yield Finding("another size", evidence, resized)

    def _of_labels(
        self, columns: Columns, halves: Sequence[Columns]
    ) -> tuple[list[Finding], Callable[[int], int]]:
        """What is wrong with the values, and what would mend them. halves: the columns of every
        second image each."""
        findings, k, as_is = [], self.k, self._miou(columns)
        pixels = {value: int(column.sum()) for value, column in columns.items()}
        total = sum(pixels.values())
        right = sum(int(columns[value][value]) for value in columns if 0 <= value < k)
        if right > TRUE * total:
            evidence = f"{100 * right / total:.3f} % of the scored pixels are right"
            return [Finding("ground truth given as prediction", evidence, None)], int
        if (wrapped := self._wrapped(columns)) is not None:
            return [wrapped], int
        shifts: dict[str, Callable[[int], int]] = {
            "labels one too high": lambda v: v - 1,
            "labels one too low": lambda v: 0 if v in (255, 65535, -1) and v >= k else v + 1,
        }
        if has_background(self.run):
            shifts["background last, not first"] = lambda v: (v + 1) % k if 0 <= v < k else v
            shifts["background first, not last"] = lambda v: (v - 1) % k if 0 <= v < k else v
        by_shift = {fault: self._miou(columns, shift) for fault, shift in shifts.items()}
        fault = max(by_shift, key=lambda each: by_shift[each])
        mend: Callable[[int], int] = partial(_in_order, {})
        moved = self._moved(columns, halves)
        in_order = self._miou(columns, partial(_in_order, moved))
        if _raises(by_shift[fault], as_is, TIMES, SHIFT) and in_order < TIMES * by_shift[fault]:
            first = _miou_words(as_is, by_shift[fault])
            values = f"values {min(columns)} to {max(columns)} of classes 0 to {k - 1}"
            findings.append(Finding(fault, f"{values}; {first}", by_shift[fault]))
            mend = shifts[fault]
        elif moved and _raises(in_order, as_is, 1.0, ORDER):
            names = class_names(self.run)
            pairs = [f"{names[v]} is {names[c]}" for v, c in moved.items() if v != c]
            evidence = f"{counted(len(pairs), 'name')} moved: {', '.join(pairs[:5])}"
            evidence += ", …" * (len(pairs) > 5)
            findings.append(Finding("another order of classes", evidence, in_order))
            mend = partial(_in_order, moved)
        strays = {v: n for v, n in pixels.items() if not 0 <= mend(v) < k}
        if strays:
            share, most = 100 * sum(strays.values()) / total, max(strays, key=lambda v: strays[v])
            ignore = most in (255, 65535)
            fault = "ignored value predicted" if ignore else "values that are no class"
            evidence = f"{share:.2f} % of the scored pixels, most of them {most}"
            kept = {v: column for v, column in columns.items() if v not in strays}
            findings.append(Finding(fault, evidence, self._miou(kept, mend)))
        return findings, mend

    def _wrapped(self, columns: Columns) -> Finding | None:
        """Where there are more than 256 classes, and none of those above is ever predicted."""
        truth = np.sum(list(columns.values()), axis=0)
        if self.k <= 256 or max(columns) > 255 or not truth[256:].any():
            return None
        hits = sum(int(column[value + 256 :: 256].sum()) for value, column in columns.items())
        above = int(truth[256:].sum())
        if hits < 0.05 * above:
            return None
        matrix = np.zeros((self.k, self.k + 1), np.int64)
        for value, column in columns.items():
            rest = column.copy()
            for label in range(value + 256, self.k, 256):
                matrix[label, label] += rest[label]
                rest[label] = 0
            matrix[:, value] += rest
        mended = float(scores(self.run.protocol.rule, *class_counts(matrix))["mIoU"])
        evidence = (
            f"no value above 255 of {self.k} classes, and {100 * hits / above:.0f} % of the pixels "
            "of classes above hold the class less 256; mended: at most"
        )
        return Finding("wrapped at 256", evidence, mended)

    def _moved(self, columns: Columns, halves: Sequence[Columns]) -> dict[int, int]:
        """Value → class, where names moved. Either values agree with another class and not with
        their own, in a closed circle, in both halves of the images; or what each half says of all
        values mends the other half."""
        classes, values, iou = self._assigned(columns)
        by_half = [self._assigned(half) for half in halves]
        strong = {
            int(value): int(label)
            for label, value in zip(classes, values, strict=True)
            if label != value
            and iou[label, value] > MOVED
            and max(iou[label, label], iou[value, value]) < STAYED
            and all(half[label, value] > 2 * STAYED for _, _, half in by_half)
        }
        sure = any(_cycle(strong, value) for value in strong)
        if not sure:
            orders = [dict(zip(v.tolist(), c.tolist(), strict=True)) for c, v, _ in by_half]
            sure = all(
                _raises(
                    self._miou(half, partial(_in_order, order)),
                    self._miou(half),
                    TIMES,
                    ORDER,
                )
                for half, order in zip(halves, orders[::-1], strict=True)
            )
        return dict(zip(values.tolist(), classes.tolist(), strict=True)) if sure else {}

    def _assigned(self, columns: Columns) -> tuple[Labels, Labels, NDArray[np.float64]]:
        """Classes and values, (K,) each, that agree best in pairs; IoU of every class with every
        value (K, K)."""
        matrix = np.zeros((self.k, self.k))
        for value, pixels in columns.items():
            if 0 <= value < self.k:
                matrix[:, value] = pixels
        union = matrix.sum(axis=1)[:, None] + matrix.sum(axis=0) - matrix
        iou = np.divide(matrix, union, out=np.zeros_like(matrix), where=union > 0)
        return *linear_sum_assignment(-iou), iou

    def _of_steps(self, seen: _Seen) -> Iterator[Finding]:
        if seen.steps <= STEPS * max(seen.borders, 1) or seen.borders < 50:
            return
        share = 100 * seen.steps / seen.borders
        mended = self._columns(seen.positions, lambda p: without_steps(self._stored(p)))
        evidence = f"{share:.0f} % of the borders with room for a label between go in steps"
        yield Finding("resized with interpolation", evidence, self._miou(mended))

    def _of_turns(self, seen: _Seen, mend: Callable[[int], int]) -> Iterator[Finding]:
        if len(seen.ids) < 4:
            return
        maps = [_mended(each, mend) for each in seen.maps]
        as_is = np.array([_share(t, m) for t, m in zip(seen.truths, maps, strict=True)])
        best: tuple[float, str, float] = (SURE, "", 0.0)
        for name, turn in TURNS.items():
            turned = [_share(t, turn(m)) for t, m in zip(seen.truths, maps, strict=True)]
            more = np.array(turned) - as_is
            error = float(more.std(ddof=1)) / np.sqrt(len(more)) + 1e-6
            if (sure := float(more.mean()) / error) > best[0] and more.mean() > 0.02:
                best = sure, name, float(np.mean(turned))
        sure, name, share = best
        if name:
            right = self._columns(
                seen.positions, lambda p: _mended(TURNS[name](self._stored(p)), mend)
            )
            evidence = f"{100 * as_is.mean():.1f} % of the pixels are right, {100 * share:.1f} % "
            evidence += f"if turned back ({sure:.0f} standard errors)"
            yield Finding(name, evidence, self._miou(right))

    def _of_partners(self, seen: _Seen, mend: Callable[[int], int]) -> Iterator[Finding]:
        """Images that have one another's maps, or all those of their neighbours."""
        count = len(seen.ids)
        maps = np.stack([_mended(each, mend) for each in seen.maps]).reshape(count, -1)
        truths = np.stack(seen.truths).reshape(count, -1)
        agree = np.stack([((truth == maps) & (truth >= 0)).mean(axis=1) for truth in truths])
        agree /= np.maximum((truths >= 0).mean(axis=1), 1e-6)[:, None]
        rows, partners = linear_sum_assignment(-agree)
        gain = agree[rows, partners] - agree.diagonal()
        swapped = [int(row) for row in rows if partners[row] != row and gain[row] > PARTNER]
        many = len(swapped) >= MANY * count
        if many:
            swapped = [int(row) for row in rows if partners[row] != row]
        else:  # not by chance: images that have one another's maps
            partner_of = {i: int(partners[i]) for i in swapped}
            swapped = [i for i in swapped if _cycle(partner_of, i)]
        if not swapped:
            return
        other = {seen.positions[i]: seen.positions[int(partners[i])] for i in swapped}
        columns = self._columns(
            seen.positions, lambda p: _mended(self._stored(other.get(p, p)), mend)
        )
        as_is, mended = self._miou(seen.columns, mend), self._miou(columns)
        if not _raises(mended, as_is, *((TIMES, SHIFT) if many else (1.0, 0.0))):
            return
        pairs = [f"{seen.ids[i]} fits the map of {seen.ids[int(partners[i])]}" for i in swapped]
        evidence = f"{counted(len(swapped), 'image')}: {'; '.join(pairs[:3])}"
        yield Finding("predictions of other images", evidence, mended)


def fitted(labels: Labels, size: tuple[int, int]) -> Labels:
    """A label map (H, W) at another size, nearest pixel."""
    if labels.shape == size:
        return labels
    rows, columns = (nearest_indices(old, new) for old, new in zip(labels.shape, size, strict=True))
    return labels[rows[:, None], columns]


def interpolated(labels: Labels) -> tuple[int, int]:
    """How many places along rows have three neighbours strictly rising or falling, and how many
    have ends at least 2 apart, that is room for a label between them."""
    left, middle, right = labels[:, :-2], labels[:, 1:-1], labels[:, 2:]
    return int(_rising(left, middle, right).sum()), int((np.abs(left - right) > 1).sum())


def without_steps(labels: Labels) -> Labels:
    """The labels with the nearest pixel that is in no step in the place of each that is."""
    steps = np.zeros(labels.shape, bool)
    steps[:, 1:-1] |= _rising(labels[:, :-2], labels[:, 1:-1], labels[:, 2:])
    steps[1:-1] |= _rising(labels[:-2], labels[1:-1], labels[2:])
    if steps.all():
        return labels
    rows, columns = distance_transform_edt(steps, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _rising(left: Labels, middle: Labels, right: Labels) -> NDArray[np.bool_]:
    """Where three neighbours strictly rise or fall."""
    return ((left < middle) & (middle < right)) | ((left > middle) & (middle > right))


def _truth_map(truth: GroundTruth, size: tuple[int, int]) -> Labels:
    """Class (H, W) of every pixel, −1 where it is not scored."""
    labels = np.full(size[0] * size[1], -1, np.int64)
    labels[slice(None) if truth.scored is None else truth.scored] = truth.labels
    return labels.reshape(size)


def _add(columns: Columns, truth: GroundTruth, labels: Labels) -> None:
    """Add the scored pixels of an image, whose map has its size."""
    flat = labels.reshape(-1)
    flat = flat if truth.scored is None else flat[truth.scored]
    values, index = np.unique(flat, return_inverse=True)
    counts = np.bincount(
        index.reshape(-1) * truth.classes + truth.labels, minlength=len(values) * truth.classes
    ).reshape(len(values), -1)
    for value, pixels in zip(values.tolist(), counts, strict=True):
        columns[value] = columns.get(value, 0) + pixels


def _mended(labels: Labels, mend: Callable[[int], int]) -> Labels:
    values, index = np.unique(labels, return_inverse=True)
    return np.array([mend(value) for value in values.tolist()])[index].reshape(labels.shape)


def _share(truth: Labels, labels: Labels) -> float:
    """Of the scored places, that are right."""
    scored = truth >= 0
    return float((truth == labels)[scored].mean()) if scored.any() else 0.0


def _cycle(moved: dict[int, int], value: int) -> bool:
    """Whether names that moved lead back to a value."""
    label = moved[value]
    for _ in moved:
        if label == value:
            return True
        if label not in moved:
            return False
        label = moved[label]
    return label == value


def _in_order(order: Mapping[int, int], value: int) -> int:
    return order.get(value, value)


def _raises(mended: float, as_is: float, times: float, more: float) -> bool:
    return mended > times * as_is and mended > as_is + more


def _miou_words(as_is: float, mended: float) -> str:
    return f"mIoU is {as_is:.2f}, and {mended:.2f} with the labels moved back"
